"""What all packages agree on beyond `estimators.base`: names, numbers, secrets, files, the results folder. Loads no torch."""
