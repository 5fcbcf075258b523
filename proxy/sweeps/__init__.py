"""Many models on many corpora, measured by workers on a Ray cluster."""
