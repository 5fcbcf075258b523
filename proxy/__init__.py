"""From bits and behaviour to an estimate of another model; the command line."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.features import features
    from proxy.fitting import Proxy, fit_proxy
    from proxy.measure import measure, peak_emergence
    from proxy.regression import ProxyRegressor
    from proxy.saving import load_proxy
    from proxy.schemas import EMERGENCE, REFERENCES
    from proxy.sweep import sweep

# Where each public name lives; loaded on first use, so that `import proxy` (which the command line does) costs nothing.
_HOME = {
    "EMERGENCE": "proxy.schemas",
    "REFERENCES": "proxy.schemas",
    "Proxy": "proxy.fitting",
    "ProxyRegressor": "proxy.regression",
    "features": "proxy.features",
    "fit_proxy": "proxy.fitting",
    "load_proxy": "proxy.saving",
    "measure": "proxy.measure",
    "peak_emergence": "proxy.measure",
    "sweep": "proxy.sweep",
}

__all__ = [
    "EMERGENCE",
    "REFERENCES",
    "Proxy",
    "ProxyRegressor",
    "features",
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


class _Package(ModuleType):
    """Keeps a public name from being hidden by the submodule of the same name once that is imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
