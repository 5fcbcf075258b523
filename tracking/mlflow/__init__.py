"""Sweeps, proxies, features and estimates as MLflow runs and models."""
