"""Running sequences through a model in batches, handing on what passes between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from estimators.base import EmergenceError
from extraction.blocks import run_decoder, watch
from extraction.models import LanguageModel

Reduce = Callable[[int, Tensor], Tensor | None]
LN2 = 0.6931471805599453


@dataclass(frozen=True)
class Batch:
    """What rows `start` to `stop` gave.

    Attributes:
        start: first row.
        stop: row after the last.
        states: one per point, what `reduce` made of (rows, T, width) there, unless None.
        behaviour: see `Behaviour`; None unless asked for.
    """

    start: int
    stop: int
    states: list[Tensor]
    behaviour: Behaviour | None


@dataclass(frozen=True)
class Behaviour:
    """What the model's head says along windows.

    Attributes:
        nll_bits: (N, T) negative log2 likelihood of each token given those before; NaN where nothing is before.
        entropy_bits: (N, T) entropy of the distribution over the token that follows the first t.
        predicted: (N, T) the likeliest token to follow the first t, int64.
    """

    nll_bits: Tensor
    entropy_bits: Tensor
    predicted: Tensor

    @classmethod
    def concatenated(cls, parts: Sequence[Self]) -> Self:
        """Put the behaviours of consecutive rows together."""
        return cls(*(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(cls)))


def run_batches(
    model: LanguageModel,
    ids: Tensor,
    reduce: Reduce,
    *,
    prefix: tuple[int, ...],
    batch: int,
    start: int = 0,
    behaviour: bool = False,
) -> Iterator[Batch]:
    """Run `prefix` + each row of `ids` (n, T) from row `start` on, `batch` rows at a time.

    When memory runs out the batch is halved, for good, and its rows are run again.

    Raises:
        EmergenceError: if memory runs out with a single row.
    """
    front = torch.tensor(prefix, dtype=torch.int64)
    while start < len(ids):
        stop = min(start + batch, len(ids))
        rows = torch.cat([front.expand(stop - start, -1), ids[start:stop]], dim=1).to(model.device)
        try:
            result = _run(model, rows, reduce, len(prefix), start, behaviour)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if stop - start == 1:
                raise EmergenceError(
                    f"{model.name} runs out of memory on {model.device} with a single sequence of {rows.shape[1]} "
                    "tokens; take a smaller dtype, a quantization, device_map='auto' or shorter windows."
                ) from error
            result = None
        if result is None:  # outside the handler, whose traceback holds on to the tensors
            batch = (stop - start) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield result
        start = stop


def _run(model: LanguageModel, rows: Tensor, reduce: Reduce, skip: int, start: int, behaviour: bool) -> Batch:
    states: list[Tensor] = []

    def receive(point: int, state: Tensor) -> None:
        reduced = reduce(point, state[:, skip:])
        if reduced is not None:
            states.append(reduced)

    with torch.inference_mode(), watch(model.blocks, receive):
        output = run_decoder(model.model, rows, head=behaviour)
        said = _behaviour(output.logits, rows, skip) if behaviour else None
    return Batch(start, start + len(rows), states, said)


def _behaviour(logits: Tensor, rows: Tensor, skip: int) -> Behaviour:
    said = torch.log_softmax(logits.float(), dim=-1)
    entropy = -(said.exp() * said.clamp_min(torch.finfo(said.dtype).min)).sum(-1)[:, skip:] / LN2
    nll = torch.full(rows.shape, torch.nan)
    following = rows[:, 1:, None].to(said.device)
    nll[:, 1:] = (-said[:, :-1].gather(-1, following)[..., 0] / LN2).cpu()
    return Behaviour(nll[:, skip:], entropy.cpu(), said[:, skip:].argmax(-1).cpu())


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "DefaultCPUAllocator" in text or "out of memory" in text
