"""The rows of the emergence table by the predictive observer: what each block tells about the next token."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from estimators.base import InputError, Progress
from estimators.folds import FOLDS, assign_folds
from estimators.information_emergence import Emergence, emergence
from estimators.predictive import (
    TEMPERATURES,
    Lens,
    NormalEquations,
    check_finite,
    clustered_error,
    cross_calibrated,
    cross_fitted,
    gain_bits,
    token_log_probabilities,
    unigram,
)
from extraction.corpora.token_windows import Windows
from extraction.models.head import find_head
from extraction.models.load import LanguageModel
from extraction.states.raw import RawStates, token_bytes
from proxy.measurement.costs import LOGIT, plan_reading
from proxy.measurement.documents import FEW_DOCUMENTS, few_documents

WINDOWS_NEEDED = 100
EARLIER = 500  # windows read at positions before the last: a curve needs less than the number that is reported
DOUBLE = 1.5  # the same for an operation in float64
HEAD_BYTES = 2**24  # of float32 logits held at a time; larger tensors are slower on a CPU, see `WIDEST_BYTES`
HEAD_ROWS = 256  # states that the head reads at once at least: of fewer each takes up to a third longer

Share = Callable[[float], None]


class PredictiveReader:
    """Reads blocks one after another, for one model and one set of windows.

    macro(l, t): bits that token t + 1 costs less under the calibrated lens of block l on the state at t than under the
    unigram distribution; micro(l, t): the mean over s <= t of the same for token s + 1 and the state of token s run
    alone. A lens per block and variable serves all positions; temperature and share are fitted per block and position,
    apart for macro and micro: in a list the one knows where a comma must follow, so must the other. Windows are split
    into folds, whole documents together, and each is read by what was fitted on the other folds.

    Args:
        model: the language model.
        windows: with their `next_tokens`.
        seed: assigns documents to the folds.
        full: read every position, see `plan_reading`.

    Attributes:
        positions: those that are read, from 1, ascending; the last is that of E.
        windows: how many are read at the last position, of which the others are at most 500.
        flops: of lenses and heads, as many as a matrix product has that takes as long.
        head: of the model.

    Raises:
        InputError: if the windows or the model cannot be read so; the sentence says why.
    """

    def __init__(self, model: LanguageModel, windows: Windows, *, seed: int, full: bool = False) -> None:
        if windows.next_tokens is None:
            raise InputError(
                f"The windows of {windows.corpus} do not say which token follows, which the predictive observer reads; "
                "make them by `windows` or `text_windows`, or measure by sample-propagation."
            )
        self._rows = known = np.flatnonzero(windows.next_tokens >= 0)
        if not len(known):
            raise InputError(
                f"Every window of {windows.corpus} ends with its text, so no next token is left to predict; give "
                "longer texts or fewer tokens."
            )
        if len(known) < WINDOWS_NEEDED:
            raise InputError(
                f"The predictive observer is fitted on some documents and read on others, which takes at least "
                f"{WINDOWS_NEEDED} different windows that a token follows; {windows.corpus} gave {len(known)}. Ask for "
                f"more windows, or give at least {math.ceil(10 * WINDOWS_NEEDED / len(known)) / 10:g} times as much "
                "text."
            )
        if int(windows.next_tokens.max()) >= model.vocabulary:
            raise InputError(
                f"A window of {windows.corpus} is followed by token {int(windows.next_tokens.max())}, but {model.name} "
                f"knows {model.vocabulary}; make them with the tokenizer of this model."
            )
        self._model = model
        self.head = find_head(model)
        self._tokens = np.column_stack([windows.tokens[known], windows.next_tokens[known]])  # (n, T + 1)
        self._weights = windows.weights[known]  # (n,)
        documents = None if windows.documents is None else windows.documents[known]
        fold, self._clusters = assign_folds(len(known), documents, seed)
        self._flags = FEW_DOCUMENTS if few_documents(windows, self._clusters) else ""
        self._fold = torch.from_numpy(fold)  # (n,)
        alone, token_of = windows.distinct_tokens()
        self._token_of = token_of[known]  # (n, T)
        times = [
            np.bincount(self._token_of[fold == k].ravel(), np.repeat(self._weights[fold == k], token_of.shape[1]),
                        len(alone))
            for k in range(FOLDS)
        ]  # fmt: skip
        self._times = torch.from_numpy(np.stack(times))  # (K, V) how often each token comes in each fold
        self._log_u = torch.stack(
            [
                unigram(self._tokens[fold != k, 1:], self._weights[fold != k], model.vocabulary).float()
                for k in range(FOLDS)
            ]
        )  # (K, vocabulary) natural logarithms, each of the other folds
        self._device = model.device if model.device.type == "cuda" else torch.device("cpu")  # others lack float64
        count, length = self._token_of.shape
        self.positions, self.windows, self.flops = plan_reading(self._cost, length, count, full=full)

    def _cost(self, positions: tuple[int, ...], read: int) -> float:
        """Return the operations of lenses and heads, and set how many states the head then reads in a block."""
        width, vocabulary = self._model.width, self._model.vocabulary
        fold = self._fold[:read].numpy()
        alone = sum(len(np.unique(self._token_of[:read][fold == k])) for k in range(FOLDS))
        self._head_rows = read + min(EARLIER, read) * (len(positions) - 1) + alone
        head = self._head_rows * vocabulary * (2.0 * width + LOGIT)
        sums = 4.0 * width**2 * (self._token_of.size + int((self._times > 0).sum()))
        solved = 2 * FOLDS * 40.0 * width**3
        return float(len(self._model.blocks) * (head + DOUBLE * (sums + solved)))

    def rows(
        self,
        states: RawStates,
        progress: Progress | None = None,
        on_windows: Callable[[pd.DataFrame], None] | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Yield a frame per block, a row per position.

        Args:
            states: of the windows.
            progress: called with thousandths of blocks done.
            on_windows: given the emergence of each window read, at the last position.
        """
        blocks = len(self._model.blocks)
        for block in range(blocks):

            def share(done: float, block: int = block) -> None:
                if progress is not None:
                    progress(round(1000 * (block + done)), 1000 * blocks)

            frame, values = self._block(states, block, share)
            if on_windows is not None:
                on_windows(values)
            share(1.0)
            yield frame

    def _block(self, raw: RawStates, block: int, share: Share) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of a block and the emergence of each window read; `share` is called with the progress."""
        started = time.perf_counter()
        self._read = 0  # states that the head has read
        macro_lens, micro_lens = self._lenses(raw, block)
        each = self._micro(raw, block, micro_lens, share)  # (R, T) bits
        records: list[dict[str, Any]] = []
        last = pd.DataFrame()
        for position in self.positions:
            final = position == self.positions[-1]
            count = self.windows if final else min(EARLIER, self.windows)
            macro = self._macro(raw, block, position, count, macro_lens, share)  # (count,) bits
            weights = torch.from_numpy(self._weights[:count])
            micro = torch.from_numpy(each[:count, :position].copy())  # (count, t)
            value = emergence(torch.from_numpy(macro), micro, weights)
            records.append(self._row(block, position, value))
            if final:
                last = self._of_windows(block, value.pointwise_bits.numpy())
        frame = pd.DataFrame(records)
        frame["seconds"] = (time.perf_counter() - started) / len(frame)
        return frame, last

    def _lenses(self, raw: RawStates, block: int) -> tuple[list[Lens | None], list[Lens | None]]:
        """Fit a lens per fold for windows and for tokens run alone; the last block's states are what the head reads."""
        final = len(self._model.blocks) - 1
        if block == final:
            return [None] * FOLDS, [None] * FOLDS
        folds = [(self._fold == k).nonzero()[:, 0] for k in range(FOLDS)]
        width = self._model.width
        macro = [NormalEquations(width, width, self._device) for _ in range(FOLDS)]
        weights = torch.from_numpy(self._weights)
        for place in range(self._token_of.shape[1]):
            x, y = raw.macro.read(block, place)[self._rows], raw.macro.read(final, place)[self._rows]  # (n, d)
            for k, rows in enumerate(folds):
                macro[k].add(x[rows].to(self._device), y[rows].to(self._device), weights[rows])
        micro = [NormalEquations(width, width, self._device) for _ in range(FOLDS)]
        x, y = raw.micro.read(block, 0), raw.micro.read(final, 0)  # (V, d)
        for k in range(FOLDS):
            some = self._times[k] > 0
            micro[k].add(x[some].to(self._device), y[some].to(self._device), self._times[k][some])
        return [*cross_fitted(macro)], [*cross_fitted(micro)]

    def _macro(
        self, raw: RawStates, block: int, position: int, count: int, lenses: list[Lens | None], share: Share
    ) -> np.ndarray:
        """Return the gain in bits of the first windows at a position, (count,)."""
        states = raw.macro.read(block, position - 1)[self._rows[:count]]  # (count, d)
        token, fold = torch.from_numpy(self._tokens[:count, position]), self._fold[:count]
        log_p = torch.empty(len(TEMPERATURES), count)
        for k, lens in enumerate(lenses):
            mine = (fold == k).nonzero()[:, 0]
            log_p[:, mine] = self._log_p(lens, states[mine], torch.arange(len(mine)), token[mine], share)
        return self._gain(log_p, token, fold, torch.from_numpy(self._weights[:count]))

    def _micro(self, raw: RawStates, block: int, lenses: list[Lens | None], share: Share) -> np.ndarray:
        """Return the gain in bits that each token of a window read, run alone, gives on the one after it, (R, T)."""
        states = raw.micro.read(block, 0)  # (V, d)
        length = self._token_of.shape[1]
        token = torch.from_numpy(self._tokens[: self.windows, 1:].ravel())  # (R T,)
        alone = torch.from_numpy(self._token_of[: self.windows].ravel())  # (R T,)
        fold = self._fold[: self.windows].repeat_interleave(length)
        log_p = torch.empty(len(TEMPERATURES), len(token))
        for k, lens in enumerate(lenses):
            mine = (fold == k).nonzero()[:, 0]
            present, place = torch.unique(alone[mine], return_inverse=True)
            log_p[:, mine] = self._log_p(lens, states[present], place, token[mine], share)
        weights = torch.from_numpy(self._weights[: self.windows])
        gains = [
            self._gain(log_p[:, place::length], token[place::length], fold[place::length], weights)
            for place in range(length)
        ]
        return np.stack(gains, axis=1)

    def _log_p(self, lens: Lens | None, states: Tensor, row: Tensor, token: Tensor, share: Share) -> Tensor:
        """Return (temperatures, m) natural logarithms of the tokens' probabilities; few logits are held at a time."""
        found = torch.empty(len(TEMPERATURES), len(token))
        order = torch.argsort(row, stable=True)
        edges = torch.searchsorted(row[order], torch.arange(len(states) + 1))
        step = max(HEAD_ROWS, HEAD_BYTES // (4 * self._model.vocabulary))
        with torch.inference_mode():
            for start in range(0, len(states), step):
                part = check_finite(states[start : start + step]).to(self._device)
                logits = self.head.logits(part if lens is None else lens(part))
                mine = order[edges[start] : edges[min(start + step, len(states))]]
                at = logits.device
                found[:, mine] = token_log_probabilities(
                    logits, (row[mine] - start).to(at), token[mine].to(at), TEMPERATURES
                ).cpu()
                self._read += len(part)
                share(self._read / self._head_rows)
        return found

    def _gain(self, log_p: Tensor, token: Tensor, fold: Tensor, weights: Tensor) -> np.ndarray:
        """Calibrate on the other folds and return the gain over the unigram distribution in bits, (m,) float64."""
        log_u = self._log_u[fold, token]  # (m,)
        chosen = cross_calibrated(log_p, log_u, weights, fold, FOLDS)
        gains = torch.empty(len(token), dtype=torch.float64)
        for k, calibration in enumerate(chosen):
            mine = fold == k
            at = TEMPERATURES.index(calibration.temperature)
            gains[mine] = gain_bits(log_p[at, mine].double(), log_u[mine].double(), calibration.share)
        found: np.ndarray = gains.numpy()
        return found

    def _row(self, block: int, position: int, value: Emergence) -> dict[str, Any]:
        rows = np.arange(len(value.pointwise_bits))
        weights = self._weights[rows]
        share = weights / weights.sum()  # (rows,)
        predicted = torch.from_numpy(self._tokens[rows, 1 : position + 1])  # (rows, t)
        costs = -self._log_u[self._fold[rows][:, None], predicted].double().numpy() / np.log(2)  # (rows, t)
        ceilings = share @ costs  # (t,) unigram cross-entropy
        ids, place = torch.unique(predicted[:, -1], return_inverse=True)
        size = float(share @ token_bytes(self._model.tokenizer, ids)[place].numpy())  # bytes of the predicted token
        clusters = None if self._clusters is None else self._clusters[rows]
        return {
            "layer": block,
            "position": position,
            "resolution": pd.NA,
            "macro_bits": value.macro_bits,
            "micro_bits": value.micro_bits,
            "ie_bits": value.ie_bits,
            "ie_std_error": clustered_error(value.pointwise_bits.numpy(), share, clusters),
            "ie_sample_std": value.sample_std,
            "macro_ceiling_bits": ceilings[-1],
            "micro_ceiling_bits": ceilings.mean(),
            "bytes_per_token": size,
            "ie_bits_per_byte": value.ie_bits / size,
            "windows_read": len(rows),
            "documents": pd.NA if clusters is None else len(np.unique(clusters)),
            "flags": self._flags,
        }

    def _of_windows(self, block: int, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "layer": block,
                "resolution": pd.NA,
                "window": self._rows[: self.windows],
                "share": self._weights[: self.windows] / self._weights[: self.windows].sum(),
                "ie_bits": values.astype(np.float32),
                "document": pd.NA if self._clusters is None else self._clusters[: self.windows],
            }
        )
