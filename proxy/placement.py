"""What a model needs of a machine, and how many workers a cluster has room for."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proxy.config import Model, Resources
from proxy.identity import local_model

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PROCESS_GB = 1.0  # a Python process with torch and transformers, and the states of one layer
LOADING = 1.2  # weights while they are loaded, relative to weights at rest
SIZE_IN_NAME = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(k|m|b)(?![a-z0-9])", re.IGNORECASE)
UNIT = {"k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True, order=True)
class Demand:
    """What one worker holds while it measures a model: GPUs, main memory in bytes, cores."""

    gpus: float
    memory: int
    cpus: int

    def fits(self, room: Demand) -> bool:
        """Whether this fits into `room`."""
        return self.gpus <= room.gpus + 1e-9 and self.memory <= room.memory and self.cpus <= room.cpus

    def without(self, other: Demand) -> Demand:
        """Return what is left of this when `other` is taken."""
        return Demand(self.gpus - other.gpus, self.memory - other.memory, self.cpus - other.cpus)

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus} CPU{gpus}, {self.memory / GIB:.1f} GiB"


def demand(model: Model, default: Resources) -> Demand:
    """Return what a worker for `model` asks for: what the config says, the rest from the model's size."""
    own = model.resources or default
    gpus = own.gpus if own.gpus is not None else default.gpus or 0
    memory_gb = own.memory_gb or default.memory_gb or _rounded_up(main_memory_gb(model, gpus))
    return Demand(gpus, int(memory_gb * GIB), own.cpus)


def main_memory_gb(model: Model, gpus: float) -> float:
    """Estimate the main memory that measuring `model` takes, in GiB."""
    parameters = count_parameters(model) or 0
    # On CPU `auto` is float32; with a GPU the weights only pass through main memory in their own type.
    size = BYTES.get(model.dtype, 2 if gpus else 4)
    return PROCESS_GB + LOADING * parameters * size / GIB


def _rounded_up(gigabytes: float) -> float:
    """Round up to a power of two, so that models of like size can take each other's workers."""
    return float(2 ** math.ceil(math.log2(gigabytes)))


@cache
def count_parameters(model: Model) -> int | None:
    """Return the number of parameters: as configured, from the weights' header, or from a size in the name."""
    if model.parameters is not None:
        return model.parameters
    folder = local_model(model.id)
    if folder is not None:
        return _counted(folder)
    found = SIZE_IN_NAME.findall(model.id.rsplit("/", 1)[-1])
    return int(float(found[-1][0]) * UNIT[found[-1][1].lower()]) if found else None


def _counted(folder: Path) -> int | None:
    """Count the numbers in a folder's safetensors files by their headers alone."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total or None


def place(wanted: Demand, rooms: Sequence[Demand]) -> int | None:
    """Return which of `rooms` to put a worker in: the fullest that still has room; None if none has."""
    fitting = [index for index, room in enumerate(rooms) if wanted.fits(room)]
    return min(fitting, key=lambda index: rooms[index], default=None)


def fits_somewhere(wanted: Demand, totals: Iterable[Demand]) -> bool:
    """Whether an empty cluster would have room for `wanted`."""
    return any(wanted.fits(total) for total in totals)
