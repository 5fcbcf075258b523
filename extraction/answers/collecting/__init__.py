"""Collecting the answers of a model behind an OpenAI-compatible API."""
