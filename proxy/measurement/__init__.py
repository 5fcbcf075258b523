"""One model on one corpus, measured: the emergence table."""
