"""Texts and lists as windows of tokens."""
