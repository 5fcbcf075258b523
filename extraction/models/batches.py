"""How many sequences run through a model at once: as many as memory holds, by what one of them takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import nn

from extraction.models.blocks import run_decoder
from extraction.models.load import LanguageModel

BATCH_TOKENS = 4096
# On a CPU the widest tensors of a batch stay below what glibc requests from the system each time (32 MB): with larger
# ones a GPT-2 of 124 million parameters spends a quarter of its time on page faults.
WIDEST_BYTES = 2**24
CPU_BYTES = 2**30  # that a batch may take in main memory, besides the model and what is kept of its states
GPU_SHARE = 0.5  # of the memory free on a GPU
MARGIN = 1.25  # on what one sequence took, for what does not grow evenly
GROWTH = 4  # sequences of the first batch, and how many times as many a batch holds as the one before

_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[int, bool], int]] = WeakKeyDictionary()


def rows_at_once(model: LanguageModel, length: int, *, head: bool = False, held: int = 0) -> int:
    """Return how many sequences of `length` tokens run at once, at least 1.

    State-space and linear-attention models fill each sequence up to a chunk of 64 to 256 tokens on a CPU, so that a
    lone token may take 200 MB: what one sequence takes is measured, not taken from its length.

    Args:
        model: what they run through.
        length: tokens of each, with what stands before them.
        head: whether logits are made too.
        held: bytes of each that are kept besides while the batch runs.
    """
    return max(1, min(batch_tokens(model) // length, rows_in_memory(model, length, head=head, held=held)))


def rows_in_memory(model: LanguageModel, length: int, *, head: bool = False, held: int = 0) -> int:
    """Return how many sequences of `length` tokens memory holds at once, at least 1; see `rows_at_once`."""
    each = MARGIN * (sequence_bytes(model, length, head=head) + held)
    return max(1, int(_room(model.device) / max(each, 1)))


def batch_tokens(model: LanguageModel) -> int:
    """Return how many tokens run at once where memory allows; the widest tensor is taken to be 4 widths of float32."""
    return BATCH_TOKENS if model.device.type != "cpu" else min(BATCH_TOKENS, max(1, WIDEST_BYTES // (16 * model.width)))


def sequence_bytes(model: LanguageModel, length: int, *, head: bool = False) -> int:
    """Return the most memory in bytes that one sequence of `length` tokens takes while it runs, measured once.

    Where nothing can be measured (another device than a CPU or CUDA, a profiler at work) it is 0.
    """
    if model.device.type == "cpu" and torch._C._autograd._profiler_enabled():
        return 0  # for now: it is measured once the profiler is done
    known = _MEASURED.setdefault(model.model, {})
    if (length, head) not in known:
        known[length, head] = _measured(model, length, head)
    return known[length, head]


def _measured(model: LanguageModel, length: int, head: bool) -> int:
    ids = torch.ones(1, length, dtype=torch.int64, device=model.device)
    try:
        with torch.inference_mode():
            if model.device.type == "cuda":
                return _peak_on_gpu(lambda: run_decoder(model.model, ids, head=head), model.device)
            if model.device.type == "cpu":
                return _peak_on_cpu(lambda: run_decoder(model.model, ids, head=head))
    except Exception:  # the first batch says what is wrong
        return 0
    return 0


def _peak_on_cpu(run: Callable[[], object]) -> int:
    with _silent(), torch.autograd.profiler.profile(profile_memory=True) as seen:
        run()
    now = peak = 0
    for event in seen.kineto_results.events():
        now += event.nbytes() if event.name() == "[memory]" else 0
        peak = max(peak, now)
    return peak


def _peak_on_gpu(run: Callable[[], object], device: torch.device) -> int:
    run()  # what cuBLAS takes once is taken
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the profiler from writing to stderr that it starts; it reads the variable the first time it is used."""
    name = "KINETO_LOG_LEVEL"
    given = os.environ.get(name)
    os.environ[name] = given or "99"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _room(device: torch.device) -> float:
    return GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES
