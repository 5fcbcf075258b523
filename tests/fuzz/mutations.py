"""Mutations of a good file: of its bytes, and of what it says where it is JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e300, -1e308, 10**30, 2**63, 2**64, "", " ", "abc", "1", "nan", "\x00", "\ud800", "x" * 5000,
    "../../outside", "http://u:p@h", "\x1b[2J", [], [[]], {}, [1, "a"], {"a": {}}, [None] * 50,
)  # fmt: skip
# What JSON cannot say by Python's own writer, put in as text.
RAW = ("NaN", "Infinity", "1e999", "1" * 5000, "[" * 3000, '{"a":' * 3000, "'", "\\u0000", "0x1")


@st.composite
def of_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Change a few bytes: flip, cut, repeat, zero or insert."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 8, 64, 512]))
        kind = draw(st.sampled_from(["flip", "cut", "end", "repeat", "zero", "insert", "move"]))
        if kind == "flip" and content:
            content = content[:place] + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place] + content[place + length :]
        elif kind == "end":
            content = content[:place]
        elif kind == "repeat":
            content = content[: place + length] + content[place:]
        elif kind == "zero":
            content = content[:place] + bytes(len(content[place : place + length])) + content[place + length :]
        elif kind == "insert":
            content = content[:place] + draw(st.binary(min_size=1, max_size=16)) + content[place:]
        else:
            content = content[place:] + content[:place]
    return content


@st.composite
def of_json(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace, remove, rename or nest one value, wherever it stands; now and then put in what is no JSON."""
    value = json.loads(content)
    places = [*_places(value)]
    path = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(["odd", "odd", "odd", "raw", "remove", "rename", "nest"]))
    mark = "@@raw@@"
    if kind == "raw":
        changed = _replaced(value, path, mark)
        text = json.dumps(changed).replace(f'"{mark}"', draw(st.sampled_from(RAW)))
        return text.encode()
    if kind == "remove":
        changed = _replaced(value, path, None, remove=True)
    elif kind == "rename":
        changed = _replaced(value, path, None, rename=draw(st.sampled_from(["x", "", "key"])))
    elif kind == "nest":
        changed = _replaced(value, path, [_at(value, path)])
    else:
        changed = _replaced(value, path, draw(st.sampled_from(ODD)))
    return json.dumps(changed).encode("utf-8", "surrogatepass")


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _places(item, (*path, name))
    elif isinstance(value, list):
        for number, item in enumerate(value[:20]):
            yield from _places(item, (*path, number))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        value = value[part]
    return value


def _replaced(value: Any, path: tuple[Any, ...], new: Any, *, remove: bool = False, rename: str | None = None) -> Any:
    if not path:
        return [] if remove else {rename: value} if rename is not None else new
    copy = json.loads(json.dumps(value))
    parent = _at(copy, path[:-1])
    if remove:
        del parent[path[-1]]
    elif rename is not None and isinstance(parent, dict):
        parent[rename] = parent.pop(path[-1])
    else:
        parent[path[-1]] = new
    return copy
