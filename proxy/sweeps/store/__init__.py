"""The results of a sweep on disk or behind a URL."""
