"""What all packages agree on beyond `estimators.base`: names, files, the results folder, summaries. Loads no torch."""
