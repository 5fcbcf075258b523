"""From bits and behaviour to an estimate of another model; the command line."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.features.table import compute_features
    from proxy.measurement.table import Listeners, Propagation, measure, peak_emergence
    from proxy.regression.load import load_proxy
    from proxy.regression.proxy import Proxy, fit_proxy
    from proxy.regression.regressor import ProxyRegressor
    from proxy.schemas import EMERGENCE, REFERENCES
    from proxy.sweeps.run import sweep

# Where each public name lives; loaded on first use, so that `import proxy` (which the command line does) costs nothing.
_HOME = {
    "EMERGENCE": "proxy.schemas",
    "REFERENCES": "proxy.schemas",
    "Listeners": "proxy.measurement.table",
    "Propagation": "proxy.measurement.table",
    "Proxy": "proxy.regression.proxy",
    "ProxyRegressor": "proxy.regression.regressor",
    "compute_features": "proxy.features.table",
    "fit_proxy": "proxy.regression.proxy",
    "load_proxy": "proxy.regression.load",
    "measure": "proxy.measurement.table",
    "peak_emergence": "proxy.measurement.table",
    "sweep": "proxy.sweeps.run",
}

__all__ = [
    "EMERGENCE",
    "REFERENCES",
    "Listeners",
    "Propagation",
    "Proxy",
    "ProxyRegressor",
    "compute_features",
    "fit_proxy",
    "load_proxy",
    "measure",
    "peak_emergence",
    "sweep",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module 'proxy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
