"""The public names of a package, each imported from its module when it is first used (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for the `__init__` of a package.

    Args:
        package: its name.
        homes: module inside the package, by public name.

    >>> get, names = lazy_exports("estimators", {"plug_in_entropy": "entropy"})
    >>> get("plug_in_entropy").__module__, names()
    ('estimators.entropy', ['plug_in_entropy'])
    """

    def get(name: str) -> Any:  # whatever the package exports
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return get, lambda: sorted(homes)
