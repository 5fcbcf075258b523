"""The size of a model without loading it: from its files, the hub's cache, the hub or its name."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from extraction.models.gguf_files import is_gguf, read_header
from extraction.models.names import resolve_model
from extraction.versions import cached_model, hub_parameters
from proxy.sweeps.config import Model

SIZE_IN_NAME = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(k|m|b)(?![a-z0-9])", re.IGNORECASE)
UNIT = {"k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True)
class Shape:
    """Blocks and features of the residual stream."""

    blocks: int
    width: int


# Published sizes of models whose name does not tell.
NAMED = {
    "gpt2": (124_439_808, Shape(12, 768)),
    "gpt2-medium": (354_823_168, Shape(24, 1024)),
    "gpt2-large": (774_030_080, Shape(36, 1280)),
    "gpt2-xl": (1_557_611_200, Shape(48, 1600)),
    "distilgpt2": (81_912_576, Shape(6, 768)),
}


@cache
def count_parameters(model: Model) -> int | None:
    """Return the number of parameters: as configured, from the weights' headers, by name; None if none tells."""
    if model.parameters is not None:
        return model.parameters
    folder = _folder(model)
    if is_gguf(folder):
        assert folder is not None  # noqa: S101  # for the type checker
        return read_header(folder).parameters
    counted = hub_parameters(model.id, model.revision) if folder is None else _counted(folder)
    if counted is not None:
        return counted
    if (named := NAMED.get(_last(model))) is not None:
        return named[0]
    found = SIZE_IN_NAME.findall(_last(model))
    return int(float(found[-1][0]) * UNIT[found[-1][1]]) if found else None


@cache
def shape(model: Model) -> Shape:
    """Return blocks and width from the model's config, or guess them from its size as such models are built."""
    folder = _folder(model)
    if is_gguf(folder):
        assert folder is not None  # noqa: S101  # for the type checker
        header = read_header(folder)
        if header.blocks and header.width:
            return Shape(header.blocks, header.width)
    elif folder is not None:
        config = _config(folder)
        blocks, width = _first(config, "num_hidden_layers", "n_layer"), _first(config, "hidden_size", "n_embd")
        if blocks and width:
            return Shape(blocks, width)
    if (named := NAMED.get(_last(model))) is not None:
        return named[1]
    parameters = count_parameters(model) or 1_000_000_000
    blocks = max(4, round(6 * (parameters / 7e7) ** 0.35))  # 6 at 70 M, 36 at 12 B, as in Pythia
    return Shape(blocks, max(32, round(math.sqrt(parameters / (12 * blocks)))))  # a block holds 12 width^2


def _last(model: Model) -> str:
    return model.id.rsplit("/", 1)[-1].lower()


def _config(folder: Path) -> dict[str, Any]:
    """Return a model's config, of its text part where it has several; empty where it cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        inner: dict[str, Any] = config.get("text_config", config)
        return inner if isinstance(inner, dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def _first(config: dict[str, Any], *names: str) -> int | None:
    return next((int(config[name]) for name in names if name in config), None)


def _folder(model: Model) -> Path | None:
    """Return the folder of a bundled model or one on disk, or the snapshot of a hub model in the local cache."""
    return resolve_model(model.id).path or cached_model(model.id, model.revision)


def _counted(folder: Path) -> int | None:
    """Count the numbers in a folder's safetensors files by their headers alone; None if one is no such file.

    It may be empty or a pointer of Git LFS: loading that model says so, and the others can be measured.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in folder.glob("*.safetensors"):
            with safe_open(path, framework="numpy") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return total or None
