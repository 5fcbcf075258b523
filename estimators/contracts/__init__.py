"""What all packages agree on beyond `estimators.base`: names, numbers, secrets, files, results. Loads no torch."""
