"""Cluster files and ready sweeps, shipped as package data."""
