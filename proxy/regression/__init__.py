"""Fitting, validating, using and saving a proxy."""
