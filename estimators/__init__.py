"""Mutual information and information emergence, in bits, from the states of a network.

Needs torch and numpy only. `estimate` is the one call; `sample_propagation` and `emergence` are what the rest of the
project measures with. Torch is loaded when a name that computes is first used; the contracts (errors, results,
defaults) need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.contracts.exports import lazy_exports

if TYPE_CHECKING:
    from estimators.base import EmergenceError, Estimator, InputError, MIEstimate, Progress
    from estimators.contracts.conventions import DEFAULT_RESOLUTION, DEFAULT_RESOLUTIONS
    from estimators.entropy import plug_in_entropy
    from estimators.information_emergence import Emergence, emergence
    from estimators.propagation import sample_propagation
    from estimators.registry import estimate, estimate_many, estimator, methods, shuffled_pairs

_HOMES = {
    "DEFAULT_RESOLUTION": "contracts.conventions",
    "DEFAULT_RESOLUTIONS": "contracts.conventions",
    "Emergence": "information_emergence",
    "EmergenceError": "base",
    "Estimator": "base",
    "InputError": "base",
    "MIEstimate": "base",
    "Progress": "base",
    "emergence": "information_emergence",
    "estimate": "registry",
    "estimate_many": "registry",
    "estimator": "registry",
    "methods": "registry",
    "plug_in_entropy": "entropy",
    "sample_propagation": "propagation",
    "shuffled_pairs": "registry",
}

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

__getattr__, __dir__ = lazy_exports("estimators", _HOMES)
