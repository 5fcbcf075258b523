"""Mutual information and information emergence, in bits, from the states of a network."""
