"""The rows of the emergence table by the predictive observer: what each block tells about the next token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from estimators.base import InputError, Progress
from estimators.information_emergence import emergence
from estimators.predictive import (
    TEMPERATURES,
    Calibration,
    Lens,
    LensFit,
    Parts,
    calibrate,
    clustered_error,
    gain_bits,
    split_windows,
    token_log_probabilities,
    unigram,
)
from extraction.corpora.token_windows import Windows
from extraction.models.head import Head, find_head
from extraction.models.load import LanguageModel
from extraction.states.budget import StateBudget
from extraction.states.raw import raw_states, token_bytes
from extraction.states.spill import StateStore, folder_for

CALIBRATED = 256  # windows that choose temperature and share, two numbers: more would cost time for nothing
READ = 1_250  # windows read at most; the error falls as one over the square root of their number
HEAD_BYTES = 2**26  # of float32 logits held at a time


@dataclass(frozen=True)
class _Text:
    """Windows with what follows them, split into parts.

    Attributes:
        tokens: (N, T + 1) ids; the last column follows the window.
        weights: (N,) how often each window counts.
        parts: which rows are fitted, calibrated and read on.
        rows: (N,) the row of each window in the corpus.
        alone: (V,) distinct ids of the first T columns.
        token_of: (N, T) place of each token in `alone`.
    """

    tokens: np.ndarray
    weights: np.ndarray
    parts: Parts
    rows: np.ndarray
    alone: np.ndarray
    token_of: np.ndarray


def predictive_rows(
    model: LanguageModel,
    windows: Windows,
    *,
    seed: int,
    budget: StateBudget,
    progress: Progress | None = None,
    on_windows: Callable[[pd.DataFrame], None] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield a frame per block, a row per position, by the predictive observer.

    macro(l, t): bits that token t + 1 costs less under the calibrated lens of block l on the state at t than under the
    unigram distribution; micro(l, t): the mean over s <= t of the same for token s + 1 and the state of token s run
    alone. A lens per block and variable serves all positions; temperature and share are fitted per block, of macro per
    position too. All of it is fitted on windows of other documents than it is read on.

    Args:
        model: the language model.
        windows: with their `next_tokens`.
        seed: deals documents to the parts.
        budget: states of more than half of its memory are spilled to disk.
        progress: called with the steps done: sequences run, then blocks read.
        on_windows: given the emergence of each window read, at the last position.

    Raises:
        InputError: if the windows or the model cannot be read so; the sentence says why.
    """
    head = find_head(model)
    text = _text(windows, seed)
    log_u = unigram(
        text.tokens[text.parts.fit, 1:], text.weights[text.parts.fit], model.vocabulary
    ).float()  # (V,) natural logarithms
    held = len(text.parts.calibrate) + len(text.parts.read)
    width, length, blocks = model.width, windows.tokens.shape[1], len(model.blocks)
    shapes = [(blocks, length, held, width), (blocks, 1, len(text.alone), width)]
    size = sum(4 * int(np.prod(shape, dtype=np.int64)) for shape in shapes)
    folder = folder_for(size, budget)
    steps = len(text.tokens) + len(text.alone)
    per_block = max(1, steps // blocks)  # a block takes about as long as its share of the passes
    total = steps + per_block * blocks
    with ExitStack() as undo:
        macro_store, micro_store = (undo.enter_context(closing(StateStore(shape, folder))) for shape in shapes)
        fits = [(LensFit(width, width), LensFit(width, width)) for _ in range(blocks - 1)]
        done = 0
        for count in _fill(model, windows.prefix, text, macro_store, micro_store, fits):
            done += count
            if progress is not None:
                progress(done, total)
        for block in range(blocks):
            started = time.perf_counter()
            lenses: tuple[Lens | None, Lens | None] = (None, None)
            if block < blocks - 1:  # the last block's states are what the head reads
                lenses = fits[block][0].solve(), fits[block][1].solve()
            macro = _macro_gain(head, lenses[0], macro_store, block, text, log_u)  # (T, q)
            micro = _micro_gain(head, lenses[1], micro_store.read(block, 0), text, log_u)  # (T, q)
            frame = _rows(block, macro, micro, text, log_u, model.tokenizer)
            frame["seconds"] = (time.perf_counter() - started) / length
            if on_windows is not None:
                on_windows(_of_windows(block, macro, micro, text))
            if progress is not None:
                progress(steps + per_block * (block + 1), total)
            yield frame


def _text(windows: Windows, seed: int) -> _Text:
    if windows.next_tokens is None:
        raise InputError(f"The windows of {windows.corpus} do not say which token follows; make them by `windows`.")
    known = np.flatnonzero(windows.next_tokens >= 0)
    if not len(known):
        raise InputError(
            f"Every window of {windows.corpus} ends with its text, so no next token is left to predict; give longer "
            "texts or fewer tokens."
        )
    tokens = np.column_stack([windows.tokens[known], windows.next_tokens[known]])  # (N, T + 1)
    documents = None if windows.documents is None else windows.documents[known]
    parts = split_windows(len(known), documents, seed)
    read = parts.read[:READ]
    clusters = None if parts.clusters is None else parts.clusters[:READ]
    parts = Parts(parts.fit, parts.calibrate[:CALIBRATED], read, clusters)
    used = np.concatenate([parts.fit, parts.calibrate, parts.read])
    first, second = len(parts.fit), len(parts.fit) + len(parts.calibrate)
    place = np.arange(len(used))
    parts = Parts(place[:first], place[first:second], place[second:], clusters)
    tokens = tokens[used]
    alone, token_of = np.unique(tokens[:, :-1], return_inverse=True)
    return _Text(tokens, windows.weights[known][used], parts, known[used], alone, token_of.reshape(len(tokens), -1))


def _fill(
    model: LanguageModel,
    prefix: tuple[int, ...],
    text: _Text,
    macro_store: StateStore,
    micro_store: StateStore,
    fits: list[tuple[LensFit, LensFit]],
) -> Iterator[int]:
    """Run the windows and their tokens once: sums for the lenses, and the states that are read; yields counts."""
    weights = torch.from_numpy(text.weights)
    length = text.token_of.shape[1]
    last_fit = len(text.parts.fit)
    calibrated = last_fit + len(text.parts.calibrate)
    for batch in raw_states(model, torch.from_numpy(text.tokens[:, :-1]), prefix):
        rows = torch.arange(batch.start, batch.stop)
        last = batch.states[-1]
        for block, states in enumerate(batch.states):
            for part, held_out in ((rows < last_fit, False), ((rows >= last_fit) & (rows < calibrated), True)):
                if block < len(fits) and bool(part.any()):
                    place = part.to(states.device)
                    fits[block][0].add(
                        states[place].flatten(0, 1).cpu(),
                        last[place].flatten(0, 1).cpu(),
                        weights[rows[part]].repeat_interleave(length),
                        held_out=held_out,
                    )
            kept = rows >= last_fit
            if bool(kept.any()):
                start = int(rows[kept][0]) - last_fit
                macro_store.write(block, start, states[kept.to(states.device)].float().cpu().transpose(0, 1))
        yield batch.stop - batch.start
    times = [
        np.bincount(text.token_of[part].ravel(), np.repeat(text.weights[part], length), len(text.alone))
        for part in (text.parts.fit, text.parts.calibrate)
    ]
    for batch in raw_states(model, torch.from_numpy(text.alone)[:, None], prefix):
        last = batch.states[-1]
        for block, states in enumerate(batch.states):
            for counted, held_out in zip(times, (False, True), strict=True):
                if block < len(fits):
                    counts = torch.from_numpy(counted[batch.start : batch.stop])
                    fits[block][1].add(states[:, 0].cpu(), last[:, 0].cpu(), counts, held_out=held_out)
            micro_store.write(block, batch.start, states.float().cpu().transpose(0, 1))
        yield batch.stop - batch.start


def _macro_gain(head: Head, lens: Lens | None, store: StateStore, block: int, text: _Text, log_u: Tensor) -> np.ndarray:
    """Return the gain in bits (T, q) of the windows read, position by position."""
    calibrated = len(text.parts.calibrate)
    gains = []
    for position in range(text.token_of.shape[1]):
        states = store.read(block, position)  # (held, d)
        chosen: Calibration | None = None
        for rows, part in ((slice(0, calibrated), text.parts.calibrate), (slice(calibrated, None), text.parts.read)):
            token = torch.from_numpy(text.tokens[part, position + 1])
            temperatures = TEMPERATURES if chosen is None else (chosen.temperature,)
            place = torch.arange(len(token))
            log_p = _log_probabilities(head, lens, states[rows], place, token, temperatures)
            if chosen is None:
                chosen = calibrate(log_p, log_u[token], torch.from_numpy(text.weights[part]))
            else:
                gains.append(gain_bits(log_p[0].double(), log_u[token].double(), chosen.share).numpy())
    return np.stack(gains)


def _micro_gain(head: Head, lens: Lens | None, states: Tensor, text: _Text, log_u: Tensor) -> np.ndarray:
    """Return the gain in bits (T, q) that each token of a window read, run alone, gives on the one behind it."""
    chosen: Calibration | None = None
    gains = np.empty(0)
    for part in (text.parts.calibrate, text.parts.read):
        present, place = np.unique(text.token_of[part].ravel(), return_inverse=True)
        token = torch.from_numpy(text.tokens[part, 1:].ravel())
        temperatures = TEMPERATURES if chosen is None else (chosen.temperature,)
        log_p = _log_probabilities(head, lens, states[present], torch.from_numpy(place), token, temperatures)
        if chosen is None:
            weights = torch.from_numpy(np.repeat(text.weights[part], text.token_of.shape[1]))
            chosen = calibrate(log_p, log_u[token], weights)
        else:
            gains = gain_bits(log_p[0].double(), log_u[token].double(), chosen.share).numpy()
    return gains.reshape(len(text.parts.read), -1).T


def _log_probabilities(
    head: Head, lens: Lens | None, states: Tensor, row: Tensor, token: Tensor, temperatures: tuple[float, ...]
) -> Tensor:
    """Return (temperatures, m) natural logarithms; logits are held for a few states at a time."""
    found = torch.empty(len(temperatures), len(token))
    order = torch.argsort(row, stable=True)
    edges = torch.searchsorted(row[order], torch.arange(len(states) + 1))
    vocabulary = next(head.output.parameters()).shape[0]
    step = max(1, HEAD_BYTES // (4 * vocabulary))
    with torch.inference_mode():
        for start in range(0, len(states), step):
            part = states[start : start + step]
            logits = head.logits(part if lens is None else lens(part))
            mine = order[edges[start] : edges[min(start + step, len(states))]]
            at = logits.device
            found[:, mine] = token_log_probabilities(
                logits, (row[mine] - start).to(at), token[mine].to(at), temperatures
            ).cpu()
    return found


def _rows(
    block: int, macro: np.ndarray, micro: np.ndarray, text: _Text, log_u: Tensor, tokenizer: object
) -> pd.DataFrame:
    part = text.parts.read
    share = text.weights[part] / text.weights[part].sum()  # (q,)
    predicted = torch.from_numpy(text.tokens[part, 1:])  # (q, T)
    ceiling = share @ (-log_u[predicted].double().numpy() / np.log(2))  # (T,) unigram cross-entropy
    ids, place = torch.unique(predicted, return_inverse=True)
    size = share @ token_bytes(tokenizer, ids)[place].numpy()  # (T,) bytes of the predicted token
    records: list[dict[str, Any]] = []
    for position in range(1, len(macro) + 1):
        value = emergence(
            torch.from_numpy(macro[position - 1]),
            torch.from_numpy(micro[:position].T.copy()),
            torch.from_numpy(text.weights[part]),
        )
        records.append(
            {
                "layer": block,
                "position": position,
                "resolution": pd.NA,
                "macro_bits": value.macro_bits,
                "micro_bits": value.micro_bits,
                "ie_bits": value.ie_bits,
                "ie_std_error": clustered_error(value.pointwise_bits.numpy(), share, text.parts.clusters),
                "ie_sample_std": value.sample_std,
                "macro_ceiling_bits": ceiling[position - 1],
                "micro_ceiling_bits": ceiling[:position].mean(),
                "bytes_per_token": size[position - 1],
                "ie_bits_per_byte": value.ie_bits / size[position - 1],
                "documents": pd.NA if text.parts.clusters is None else len(np.unique(text.parts.clusters)),
                "flags": "",
            }
        )
    return pd.DataFrame(records)


def _of_windows(block: int, macro: np.ndarray, micro: np.ndarray, text: _Text) -> pd.DataFrame:
    weights = text.weights[text.parts.read]
    return pd.DataFrame(
        {
            "layer": block,
            "resolution": pd.NA,
            "window": text.rows[text.parts.read],
            "share": weights / weights.sum(),
            "ie_bits": (macro[-1] - micro.mean(axis=0)).astype(np.float32),
        }
    )
