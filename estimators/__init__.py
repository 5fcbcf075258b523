"""Mutual information and information emergence, in bits, from the states of a network.

Needs torch and numpy only. `estimate` is the one call; `sample_propagation` and `emergence` are what the rest of the
project measures with.
"""

from estimators.base import EmergenceError, Estimator, InputError, MIEstimate, Progress
from estimators.contracts.conventions import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
from estimators.entropy import plug_in_entropy
from estimators.information_emergence import Emergence, emergence
from estimators.propagation import sample_propagation
from estimators.registry import estimate, estimate_many, estimator, methods, shuffled_pairs

__all__ = [
    "DEFAULT_RESOLUTION",
    "DEFAULT_RESOLUTIONS",
    "Emergence",
    "EmergenceError",
    "Estimator",
    "InputError",
    "MIEstimate",
    "Progress",
    "emergence",
    "estimate",
    "estimate_many",
    "estimator",
    "methods",
    "plug_in_entropy",
    "sample_propagation",
    "shuffled_pairs",
]
