"""The rows of the emergence table by the predictive observer: what each block tells about the next token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from estimators.base import InputError, Progress
from estimators.information_emergence import emergence
from estimators.predictive import (
    FOLDS,
    TEMPERATURES,
    Calibration,
    Folds,
    Lens,
    NormalEquations,
    calibrate,
    clustered_error,
    gain_bits,
    ridge_lens,
    split_folds,
    token_log_probabilities,
    unigram,
)
from extraction.corpora.token_windows import Windows
from extraction.models.head import Head, find_head
from extraction.models.load import LanguageModel
from extraction.states.raw import RawStates, token_bytes
from extraction.states.spill import StateStore

CALIBRATED = 128  # windows of each fold that choose temperature and share, two numbers: more cost time for nothing
READ = (4000, 2000, 1000, 600)  # windows that may be read; the error falls as one over the square root of their number
# Work of reading by default, and at most: a 135 M model takes 3 minutes on 2 cores, with --full about 8.
DEFAULT_FLOPS, FULL_FLOPS = 8e12, 3e13
HEAD_BYTES = 2**26  # of float32 logits held at a time


@dataclass(frozen=True)
class _Text:
    """Windows with what follows them, dealt into folds.

    Attributes:
        tokens: (N, T + 1) ids; the last column follows the window.
        weights: (N,) how often each window counts.
        folds: of the windows.
        rows: (N,) the row of each window in the corpus.
        token_of: (N, T) number of each token among the distinct ones of the corpus.
        read: (R,) rows of this text that information is read of.
    """

    tokens: np.ndarray
    weights: np.ndarray
    folds: Folds
    rows: np.ndarray
    token_of: np.ndarray
    read: np.ndarray


@dataclass(frozen=True)
class Work:
    """What will be read, and how much work that is.

    Attributes:
        positions: counted from 1, ascending; the last is that of E.
        windows: R windows that information is read of.
        flops: floating-point operations of lenses and heads; those in double precision count four times.
    """

    positions: tuple[int, ...]
    windows: int
    flops: float


def predictive_rows(
    model: LanguageModel,
    windows: Windows,
    states: RawStates,
    *,
    seed: int,
    full: bool = False,
    progress: Progress | None = None,
    on_windows: Callable[[pd.DataFrame], None] | None = None,
) -> Iterator[pd.DataFrame]:
    """Yield a frame per block, a row per position, by the predictive observer.

    macro(l, t): bits that token t + 1 costs less under the calibrated lens of block l on the state at t than under the
    unigram distribution; micro(l, t): the mean over s <= t of the same for token s + 1 and the state of token s run
    alone. A lens per block and variable serves all positions; temperature and share are fitted per block, of macro per
    position too. The windows are dealt into five folds by documents, and each is read by what was fitted on the others.

    Args:
        model: the language model.
        windows: with their `next_tokens`.
        states: of these windows.
        seed: deals documents to the folds.
        full: read every position, and as many windows as `FULL_FLOPS` allow; else those of `planned_work`.
        progress: called with the blocks done.
        on_windows: given the emergence of each window read, at the last position.

    Raises:
        InputError: if the windows or the model cannot be read so; the sentence says why.
    """
    head = find_head(model)
    text = _text(windows, seed)
    work = _work(model, text, full=full)
    text = _Text(text.tokens, text.weights, text.folds, text.rows, text.token_of, np.arange(work.windows))
    log_u = torch.stack(
        [
            unigram(text.tokens[rows, 1:], text.weights[rows], model.vocabulary).float()
            for rows in (text.folds.fitting(fold) for fold in range(FOLDS))
        ]
    )  # (folds, V) natural logarithms
    blocks = len(model.blocks)
    device = model.device if model.device.type == "cuda" else torch.device("cpu")  # others lack double precision
    for block in range(blocks):
        started = time.perf_counter()
        lenses: list[tuple[Lens | None, Lens | None]] = [(None, None)] * FOLDS
        if block < blocks - 1:  # the last block's states are what the head reads
            macro_lenses = _lenses(_macro_sums(states.macro, block, text, device))
            lenses = list(zip(macro_lenses, _lenses(_micro_sums(states.micro, block, text, device)), strict=True))
        macro = {
            position: _macro_gain(
                head, [lens for lens, _ in lenses], states.macro.read(block, position - 1), position, text, log_u
            )
            for position in work.positions
        }  # of (R,)
        micro = _micro_gain(head, [lens for _, lens in lenses], states.micro.read(block, 0), text, log_u)  # (R, T)
        frame = _rows(block, macro, micro, text, log_u, model.tokenizer)
        frame["seconds"] = (time.perf_counter() - started) / len(frame)
        if on_windows is not None:
            on_windows(_of_windows(block, macro[work.positions[-1]], micro, text))
        if progress is not None:
            progress(block + 1, blocks)
        yield frame


def planned_work(model: LanguageModel, windows: Windows, *, seed: int = 0, full: bool = False) -> Work:
    """Return which positions and how many windows the predictive observer will read of a model of this size.

    Small models are read at every position. What a large head costs decides of the others: the last position alone
    gives E(l) = IE(l, T).

    >>> from extraction import load_model, windows
    >>> model = load_model("gpt2-30k", device="cpu")
    >>> planned_work(model, windows("animal", model.tokenizer, count=500)).positions
    (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """
    return _work(model, _text(windows, seed), full=full)


def _work(model: LanguageModel, text: _Text, *, full: bool) -> Work:
    length, count = text.token_of.shape[1], len(text.tokens)
    every = tuple(range(1, length + 1))
    choices = [every] if full else [every, tuple(sorted({(length + 1) // 2, length})), (length,)]
    allowed = FULL_FLOPS if full else DEFAULT_FLOPS
    work = Work(every, count, 0.0)
    for positions in choices:
        for most in READ[:-1] if len(positions) > 1 else READ:
            work = Work(positions, min(most, count), _flops(model, text, len(positions), min(most, count)))
            if work.flops <= allowed:
                return work
    return work


def _flops(model: LanguageModel, text: _Text, positions: int, read: int) -> float:
    width, blocks, vocabulary = model.width, len(model.blocks), model.vocabulary
    count, length = text.token_of.shape
    alone = sum(len(np.unique(text.token_of[:read][text.folds.of[:read] == fold])) for fold in range(FOLDS))
    rows = positions * (read + FOLDS * CALIBRATED) + alone + FOLDS * CALIBRATED  # of the head
    sums = 4 * width**2 * (count * length + FOLDS * len(np.unique(text.token_of)))
    solved = 2 * FOLDS * 40 * width**3
    return float(blocks * (2 * width * vocabulary * rows + 4 * (sums + solved)))


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
    folds = split_folds(len(known), documents, seed)
    _, token_of = windows.distinct_tokens()
    return _Text(tokens, windows.weights[known], folds, known, token_of[known], np.arange(len(known)))


def _macro_sums(store: StateStore, block: int, text: _Text, device: torch.device) -> list[NormalEquations]:
    """Return the sums of each fold over all positions, from what leaves `block` to what leaves the last one."""
    _, length, _, width = store.shape
    folds = [NormalEquations(width, width, device) for _ in range(FOLDS)]
    weights = torch.from_numpy(text.weights)
    for position in range(length):
        x, y = store.read(block, position), store.read(store.shape[0] - 1, position)  # (rows of the corpus, d)
        for fold, sums in enumerate(folds):
            rows = np.flatnonzero(text.folds.of == fold)
            mine = torch.from_numpy(text.rows[rows])
            sums.add(x[mine].to(device), y[mine].to(device), weights[rows].to(device))
    return folds


def _micro_sums(store: StateStore, block: int, text: _Text, device: torch.device) -> list[NormalEquations]:
    """Return the same of the tokens alone, each as often as it occurs in the windows of a fold."""
    _, _, distinct, width = store.shape
    x, y = store.read(block, 0).to(device), store.read(store.shape[0] - 1, 0).to(device)  # (V, d)
    folds = []
    for fold in range(FOLDS):
        mine = text.folds.of == fold
        times = np.bincount(
            text.token_of[mine].ravel(), np.repeat(text.weights[mine], text.token_of.shape[1]), distinct
        )
        there = torch.from_numpy(np.flatnonzero(times))
        sums = NormalEquations(width, width, device)
        sums.add(x[there], y[there], torch.from_numpy(times)[there].to(device))
        folds.append(sums)
    return folds


def _lenses(folds: Sequence[NormalEquations]) -> list[Lens]:
    """Return the lens by which each fold is read, fitted on three others, its penalty chosen on the next."""
    lenses = []
    for fold in range(FOLDS):
        total: NormalEquations | None = None
        for other, sums in enumerate(folds):
            if other not in (fold, Folds.next(fold)):
                total = sums if total is None else total.plus(sums)
        assert total is not None  # noqa: S101  # there are five folds
        lenses.append(ridge_lens(total, folds[Folds.next(fold)]))
    return lenses


def _macro_gain(
    head: Head, lenses: Sequence[Lens | None], states: Tensor, position: int, text: _Text, log_u: Tensor
) -> np.ndarray:
    """Return the gain in bits (R,) of the windows read, from `states` of all windows of the corpus at `position`."""
    gains = np.empty(len(text.read))
    for fold, lens in enumerate(lenses):
        choosing = text.folds.choosing(fold)[:CALIBRATED]
        mine = np.flatnonzero(text.folds.of[text.read] == fold)
        chosen: Calibration | None = None
        for rows in (choosing, text.read[mine]):
            token = torch.from_numpy(text.tokens[rows, position])
            temperatures = TEMPERATURES if chosen is None else (chosen.temperature,)
            state = states[torch.from_numpy(text.rows[rows])]  # (rows, d)
            log_p = _log_probabilities(head, lens, state, torch.arange(len(rows)), token, temperatures)
            if chosen is None:
                chosen = calibrate(log_p, log_u[fold, token], torch.from_numpy(text.weights[rows]))
            else:
                gains[mine] = gain_bits(log_p[0].double(), log_u[fold, token].double(), chosen.share).numpy()
    return gains


def _micro_gain(head: Head, lenses: Sequence[Lens | None], states: Tensor, text: _Text, log_u: Tensor) -> np.ndarray:
    """Return the gain in bits (R, T) that each token of a window read, run alone, gives on the one behind it."""
    length = text.token_of.shape[1]
    gains = np.empty((len(text.read), length))
    enough = max(1, CALIBRATED // length)  # windows that hold as many pairs
    for fold, lens in enumerate(lenses):
        choosing = text.folds.choosing(fold)[:enough]
        mine = np.flatnonzero(text.folds.of[text.read] == fold)
        chosen: Calibration | None = None
        for rows in (choosing, text.read[mine]):
            present, place = np.unique(text.token_of[rows].ravel(), return_inverse=True)
            token = torch.from_numpy(text.tokens[rows, 1:].ravel())
            temperatures = TEMPERATURES if chosen is None else (chosen.temperature,)
            log_p = _log_probabilities(head, lens, states[present], torch.from_numpy(place), token, temperatures)
            if chosen is None:
                weights = torch.from_numpy(np.repeat(text.weights[rows], length))
                chosen = calibrate(log_p, log_u[fold, token], weights)
            else:
                found = gain_bits(log_p[0].double(), log_u[fold, token].double(), chosen.share)
                gains[mine] = found.numpy().reshape(-1, length)
    return gains


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
    block: int,
    macro: dict[int, np.ndarray],
    micro: np.ndarray,
    text: _Text,
    log_u: Tensor,
    tokenizer: object,
) -> pd.DataFrame:
    weights = text.weights[text.read]
    share = weights / weights.sum()  # (R,)
    fold = torch.from_numpy(text.folds.of[text.read])  # (R,)
    clusters = None if text.folds.clusters is None else text.folds.clusters[text.read]
    predicted = torch.from_numpy(text.tokens[text.read, 1:])  # (R, T)
    ceiling = share @ (-log_u[fold[:, None], predicted].double().numpy() / np.log(2))  # (T,) unigram cross-entropy
    ids, place = torch.unique(predicted, return_inverse=True)
    size = share @ token_bytes(tokenizer, ids)[place].numpy()  # (T,) bytes of the predicted token
    records: list[dict[str, Any]] = []
    for position, gains in macro.items():
        value = emergence(
            torch.from_numpy(gains), torch.from_numpy(micro[:, :position].copy()), torch.from_numpy(weights)
        )
        records.append(
            {
                "layer": block,
                "position": position,
                "resolution": pd.NA,
                "macro_bits": value.macro_bits,
                "micro_bits": value.micro_bits,
                "ie_bits": value.ie_bits,
                "ie_std_error": clustered_error(value.pointwise_bits.numpy(), share, clusters),
                "ie_sample_std": value.sample_std,
                "macro_ceiling_bits": ceiling[position - 1],
                "micro_ceiling_bits": ceiling[:position].mean(),
                "bytes_per_token": size[position - 1],
                "ie_bits_per_byte": value.ie_bits / size[position - 1],
                "documents": pd.NA if clusters is None else len(np.unique(clusters)),
                "flags": "",
            }
        )
    return pd.DataFrame(records)


def _of_windows(block: int, macro: np.ndarray, micro: np.ndarray, text: _Text) -> pd.DataFrame:
    weights = text.weights[text.read]
    return pd.DataFrame(
        {
            "layer": block,
            "resolution": pd.NA,
            "window": text.rows[text.read],
            "share": weights / weights.sum(),
            "ie_bits": (macro - micro.mean(axis=1)).astype(np.float32),
        }
    )
