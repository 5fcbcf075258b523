"""Ten small causal language models and their tokenizer, shipped as package data."""
