"""States as a model makes them, neither normalised nor projected, batch by batch: what a lens reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from estimators.base import InputError
from extraction.models.load import LanguageModel
from extraction.states.batches import rows_at_once
from extraction.states.forward import run_batches


@dataclass(frozen=True)
class RawBatch:
    """The states of some sequences.

    Attributes:
        start: first row.
        stop: row after the last.
        states: per block what leaves it, (rows, T, width), where the model runs; valid until the next batch.
    """

    start: int
    stop: int
    states: list[Tensor]


def raw_states(model: LanguageModel, ids: Tensor, prefix: tuple[int, ...]) -> Iterator[RawBatch]:
    """Run `prefix` + each row of `ids` (n, T) and yield what leaves every block, prefix positions left out.

    Raises:
        InputError: if the sequences are longer than the model's context.
        EmergenceError: if memory runs out even with single sequences.
    """
    length = len(prefix) + ids.shape[1]
    if length > model.context:
        raise InputError(
            f"A sequence is {length} tokens with what stands before it, but the context of {model.name} is "
            f"{model.context}; take fewer tokens."
        )
    if not len(ids):
        return
    batches = run_batches(
        model,
        ids,
        lambda point, state: state.clone() if point else None,  # the next block may change it in place
        prefix=prefix,
        batch=rows_at_once(model, length, held=4 * len(model.blocks) * model.width * length),
    )
    for batch in batches:
        yield RawBatch(batch.start, batch.stop, batch.states)


def token_bytes(tokenizer: object, ids: Tensor) -> Tensor:
    """Return how many bytes of UTF-8 each token (m,) stands for, float64; of byte-level tokens, their bytes."""
    names = tokenizer.convert_ids_to_tokens(ids.tolist())  # type: ignore[attr-defined]
    byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)  # type: ignore[attr-defined]
    return torch.tensor([_bytes(str(name), byte_level) for name in names], dtype=torch.float64)


def _bytes(name: str, byte_level: bool) -> int:
    if name.startswith("<0x") and name.endswith(">"):
        return 1
    # A byte-level vocabulary writes one character for each byte, others a special one for the space.
    return len(name) if byte_level else len(name.replace("\u2581", " ").encode())
