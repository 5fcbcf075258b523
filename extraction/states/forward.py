"""Running sequences through a model in batches, with access to what passes between its blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.base import EmergenceError
from extraction.models.batches import GROWTH
from extraction.models.blocks import check_beginnings, run_decoder, watch
from extraction.models.load import LanguageModel
from extraction.states.likelihoods import Likelihoods

Reduce = Callable[[int, Tensor], Tensor | None]
HEAD_BYTES = 2**26  # logits looked at at a time


@dataclass(frozen=True)
class Batch:
    """What rows `start` to `stop` gave.

    Attributes:
        start: first row.
        stop: row after the last.
        states: what `reduce` made of (rows, T, width) at each point, unless None.
        likelihoods: what the head said; None unless asked for.
    """

    start: int
    stop: int
    states: list[Tensor]
    likelihoods: Likelihoods | None


def run_batches(
    model: LanguageModel,
    ids: Tensor,
    reduce: Reduce,
    *,
    prefix: tuple[int, ...],
    batch: int,
    start: int = 0,
    likelihoods: bool = False,
) -> Iterator[Batch]:
    """Run `prefix` + each row of `ids` (n, T) from row `start` on, up to `batch` rows at a time, the first few fewer.

    `reduce` may end in `to_host`, since a batch is yielded only when its copies have arrived; on CUDA the next batch
    is under way by then. When memory runs out the batch is halved, for good, and its rows are run again.

    Raises:
        InputError: if a beginning of a row leaves other states when it is run alone.
        EmergenceError: if memory runs out with a single row.
    """
    front = torch.tensor(prefix, dtype=torch.int64)
    pending: tuple[Batch, list[torch.cuda.Event]] | None = None
    some = torch.cat([front.expand(len(ids[:GROWTH]), -1), ids[:GROWTH]], dim=1).to(model.device)
    check_beginnings(model.model, model.blocks, some, model.name)
    size = min(batch, GROWTH)
    while start < len(ids):
        stop = min(start + size, len(ids))
        rows = torch.cat([front.expand(stop - start, -1), ids[start:stop]], dim=1).to(model.device)
        result = None
        try:
            result = _run(model, rows, reduce, len(prefix), start, likelihoods)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if stop - start == 1:
                raise EmergenceError(
                    f"{model.name} runs out of memory on {model.device} with a single sequence of {rows.shape[1]} "
                    "tokens; take a smaller dtype, a quantization, device='spread' or shorter windows."
                ) from error
        if result is None:  # outside the handler, whose traceback holds on to the tensors
            batch = size = (stop - start) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start, size = stop, min(batch, GROWTH * size)
        events = _events(model)
        if not events:  # on a CPU all is there already
            yield result
            continue
        if pending is not None:
            yield _arrived(*pending)
        pending = result, events
    if pending is not None:
        yield _arrived(*pending)


def to_host(tensor: Tensor) -> Tensor:
    """Copy to the CPU; from CUDA without waiting, see `run_batches`."""
    return tensor.to("cpu", non_blocking=tensor.is_cuda)


def _run(model: LanguageModel, rows: Tensor, reduce: Reduce, skip: int, start: int, likelihoods: bool) -> Batch:
    states: list[Tensor] = []

    def receive(point: int, state: Tensor) -> None:
        reduced = reduce(point, state[:, skip:])
        if reduced is not None:
            states.append(reduced)

    with torch.inference_mode(), watch(model.blocks, receive):
        output = run_decoder(model.model, rows, head=likelihoods)
        said = _likelihoods(output.logits, rows, skip, model.tokenizer.all_special_ids) if likelihoods else None
    return Batch(start, start + len(rows), states, said)


def _likelihoods(logits: Tensor, rows: Tensor, skip: int, special: list[int]) -> Likelihoods:
    sequences = max(1, HEAD_BYTES // (4 * logits[0].numel()))  # float32 copies of few rows at a time
    nll, entropy, predicted = [], [], []
    for part, ids in zip(torch.split(logits, sequences), torch.split(rows.to(logits.device), sequences), strict=True):
        said = torch.log_softmax(part.float(), dim=-1)
        given = torch.full(ids.shape, torch.nan, device=said.device)
        given[:, 1:] = said[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        nll.append(-given[:, skip:] / math.log(2))
        entropy.append(torch.special.entr(said.exp())[:, skip:].sum(-1) / math.log(2))
        said[..., [i for i in special if i < said.shape[-1]]] = -torch.inf
        predicted.append(said[:, skip:].argmax(-1))
    return Likelihoods(*(to_host(torch.cat(parts)) for parts in (nll, entropy, predicted)))


def _events(model: LanguageModel) -> list[torch.cuda.Event]:
    """Marks in the streams of all CUDA devices the model is on."""
    devices = {parameter.device for parameter in model.model.parameters() if parameter.is_cuda}
    return [torch.cuda.current_stream(device).record_event() for device in devices]


def _arrived(batch: Batch, events: list[torch.cuda.Event]) -> Batch:
    for event in events:
        event.synchronize()
    return batch


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "DefaultCPUAllocator" in text
        or "out of memory" in text
        or "CUBLAS_STATUS_ALLOC_FAILED" in text  # no room for the workspace of cuBLAS
    )
