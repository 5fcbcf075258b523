"""One row of features per model, from its answers."""
