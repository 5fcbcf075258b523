"""Labels in tables for things on disk: their own names, made unique where two are equal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def labels(names: Mapping[Path, str]) -> dict[Path, str]:
    """Return a label for each path: its name, after as many folders as distinguish it from others of that name.

    Args:
        names: what each path is called on its own, such as the name of its last part.

    >>> labels({Path("/runs/a/tiny"): "tiny", Path("/runs/b/tiny"): "tiny", Path("/runs/small"): "small"}).values()
    dict_values(['a/tiny', 'b/tiny', 'small'])
    """
    found = dict(names)
    for depth in range(2, 1 + max((len(path.parts) for path in found), default=0)):
        given = [*found.values()]
        for path, name in names.items():
            if given.count(found[path]) > 1:
                found[path] = "/".join([*path.parts[-depth:-1], name])
    return found
