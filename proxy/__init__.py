"""From bits and behaviour to an estimate of another model; the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.contracts.exports import lazy_exports

if TYPE_CHECKING:
    from proxy.features.table import compute_features
    from proxy.measurement.table import Listeners, Propagation, measure, peak_emergence
    from proxy.regression.load import load_proxy
    from proxy.regression.proxy import Proxy, fit_proxy
    from proxy.regression.regressor import ProxyRegressor
    from proxy.schemas import EMERGENCE, REFERENCES
    from proxy.sweeps.run import sweep

# Where each public name lives; loaded on first use, so that `import proxy` (which the command line does) costs nothing.
_HOMES = {
    "EMERGENCE": "schemas",
    "REFERENCES": "schemas",
    "Listeners": "measurement.table",
    "Propagation": "measurement.table",
    "Proxy": "regression.proxy",
    "ProxyRegressor": "regression.regressor",
    "compute_features": "features.table",
    "fit_proxy": "regression.proxy",
    "load_proxy": "regression.load",
    "measure": "measurement.table",
    "peak_emergence": "measurement.table",
    "sweep": "sweeps.run",
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

__getattr__, __dir__ = lazy_exports("proxy", _HOMES)
