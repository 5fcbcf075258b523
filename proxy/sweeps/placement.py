"""What a model needs of a machine, and which node of a cluster has room for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from extraction.states.budget import DEFAULT_BUDGET
from proxy.sweeps.config import Model, Resources
from proxy.sweeps.sizes import count_parameters
from proxy.sweeps.store.results import Peaks

GIB = 2**30
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTIZED_BYTES = {"8": 1.0, "4": 0.6}  # per parameter, by the bits in the quantization's name
PROCESS_GB = 0.9  # a Python process with torch and transformers: 0.7 GiB measured, and what one block's states take
LOADING = 1.2  # weights while they are loaded, relative to weights at rest
CONTEXT_GB = 0.6  # what CUDA takes per process
ACTIVATIONS = 1.15  # weights and the activations of a batch of short windows, relative to weights
MEASURED = 1.1  # margin over a measured peak
SMALLEST_FRACTION = 1 / 8  # of a GPU

# Main memory of one GPU in GiB, by Ray's name of the accelerator.
GPU_MEMORY_GB = {
    "B200": 180,
    "H200": 140,
    "H100": 80,
    "H20": 96,
    "A100-80G": 80,
    "A100-40G": 40,
    "A100": 40,
    "L40S": 44,
    "L4": 23,
    "A10G": 23,
    "A10": 23,
    "V100": 16,
    "T4": 15,
}
UNKNOWN_GPU_GB = 16.0


@dataclass(frozen=True, order=True)
class Demand:
    """What one worker holds: GPUs, main memory in bytes, cores; also what a node has."""

    gpus: float
    memory: int
    cpus: int

    def fits(self, room: Demand) -> bool:
        """Whether this fits into `room`."""
        return self.gpus <= room.gpus + 1e-9 and self.memory <= room.memory and self.cpus <= room.cpus

    def without(self, other: Demand) -> Demand:
        """Return what is left of this when `other` is taken."""
        return Demand(self.gpus - other.gpus, self.memory - other.memory, self.cpus - other.cpus)

    def more(self) -> Demand:
        """Return the next larger demand, for a worker that ran out of memory."""
        return replace(self, gpus=2 * self.gpus if self.gpus else 0.0, memory=2 * self.memory)

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus} CPU{gpus}, {self.memory / GIB:.1f} GiB"


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Attributes:
        total: what it has in all.
        gpu_gb: memory of one of its GPUs in GiB.
    """

    total: Demand
    gpu_gb: float = UNKNOWN_GPU_GB


def demand(
    model: Model,
    default: Resources,
    nodes: Sequence[Node] = (),
    measured: Peaks | None = None,
    *,
    twin: bool = False,
) -> Demand:
    """Return what a worker for `model` asks for: what the config says, else what was measured, else an estimate.

    With controls the model's `twin` stands beside it, so that its weights count twice.
    Fractions of a GPU and memory are powers of two, so that models of like size can take each other's workers and
    fractions fill a GPU without gaps; where no node has room for that, they are no more than is needed.
    """
    own = model.resources or Resources()
    measured = measured or Peaks()
    given = own.gpus if own.gpus is not None else default.gpus
    with_gpus = [node for node in nodes if node.total.gpus]
    given_gb = own.memory_gb or default.memory_gb
    states_gb = own.states_gb or default.states_gb

    def rounded(step: Callable[[float], float]) -> Demand:
        gpus = (_gpus(model, with_gpus, measured, step, twin) if with_gpus else 0.0) if given is None else given
        estimated = main_memory_gb(model, gpus, states_gb, twin=twin)
        needed = MEASURED * measured.main_gb if measured.main_gb and not gpus else estimated
        return Demand(gpus, int((given_gb or step(needed)) * GIB), own.cpus or default.cpus or 1)

    usual, tight = rounded(_power_of_two), rounded(lambda value: value)
    return tight if misfits(usual, nodes) and not misfits(tight, nodes) else usual


def weights_gb(model: Model, *, on_gpu: bool) -> float:
    """Return the size of the weights in GiB; 0 where the number of parameters is not known."""
    size = BYTES.get(model.dtype, 2.0 if on_gpu else 4.0)  # `auto` is float32 on CPU, the checkpoint's own elsewhere
    for bits, quantized in QUANTIZED_BYTES.items():
        if model.quantization is not None and bits in model.quantization.rsplit("-", 1)[-1]:
            size = quantized
    return (count_parameters(model) or 0) * size / GIB


def main_memory_gb(model: Model, gpus: float, states_gb: float | None = None, *, twin: bool = False) -> float:
    """Estimate the main memory in GiB; with a GPU the weights only pass through it, shard by shard."""
    if gpus:
        return PROCESS_GB + (states_gb or DEFAULT_BUDGET.states_gb) + min(10.0, weights_gb(model, on_gpu=True))
    weights = weights_gb(model, on_gpu=False)
    return (
        PROCESS_GB + (LOADING + twin) * weights + (states_gb or min(DEFAULT_BUDGET.states_gb, weights))
    )  # small models have small states


def gpu_memory_gb(model: Model, *, twin: bool = False) -> float:
    """Estimate the GPU memory in GiB."""
    return CONTEXT_GB + (ACTIVATIONS + twin) * weights_gb(model, on_gpu=True)


def _gpus(model: Model, nodes: Sequence[Node], measured: Peaks, step: Callable[[float], float], twin: bool) -> float:
    """Return the fraction or number of GPUs that holds the model, on the nodes' largest kind of GPU."""
    needed = MEASURED * measured.gpu_gb + CONTEXT_GB if measured.gpu_gb else gpu_memory_gb(model, twin=twin)
    count = step(needed / max(node.gpu_gb for node in nodes))
    return max(SMALLEST_FRACTION, float(math.ceil(count)) if count > 1 else _power_of_two(count))


def _power_of_two(value: float) -> float:
    return float(2.0 ** math.ceil(math.log2(value)))


def place(wanted: Demand, rooms: Mapping[str, Demand]) -> str | None:
    """Return which of `rooms` to put a worker in: the fullest that still has room; None if none has.

    A worker without GPU goes where there are none, if it can.
    """
    fitting = [name for name, room in rooms.items() if wanted.fits(room)]
    return min(fitting, key=lambda name: rooms[name], default=None)


def misfits(wanted: Demand, nodes: Sequence[Node]) -> bool:
    """Whether not even an empty node has room for `wanted`."""
    return not any(wanted.fits(node.total) for node in nodes)
