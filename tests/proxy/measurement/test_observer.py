"""What the predictive observer may know: as much of macro as of micro and controls, and nothing of what it reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from estimators.folds import FOLDS
from estimators.predictive import PENALTIES, TEMPERATURES, Calibration, Lens, cross_calibrated, cross_fitted
from extraction import LanguageModel, Windows, load_model, random_twin, windows
from extraction.states.raw import RawStates
from proxy.measurement import predictive
from proxy.measurement.predictive import PredictiveReader
from proxy.measurement.table import measure


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("gpt2-30k", device="cpu")


@pytest.fixture(scope="module")
def text(model: LanguageModel) -> Windows:
    return windows("python-docs", model.tokenizer, count=300, prefix=model.prefix)


class Fitted:
    """Takes down what is fitted, in order: the lenses of each call, and the calibrations of each call."""

    def __init__(self) -> None:
        self.lenses: list[list[Lens]] = []
        self.calibrations: list[list[Calibration]] = []
        self.choices: list[tuple[int, int]] = []

    def __enter__(self) -> Fitted:
        self._patches = mock.patch.multiple(
            predictive,
            cross_fitted=self._noting(cross_fitted, self.lenses),
            cross_calibrated=self._noting(cross_calibrated, self.calibrations),
        )
        self._patches.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._patches.stop()

    def _noting(self, fit: Callable[..., list[Any]], into: list[list[Any]]) -> Callable[..., list[Any]]:
        def fitted(*args: Any) -> list[Any]:
            into.append(fit(*args))
            if fit is cross_calibrated:
                self.choices.append((len(args[0]), args[-1]))  # temperatures, and parts
            return into[-1]

        return fitted


def test_macro_micro_and_controls_are_read_with_one_capacity(model: LanguageModel, text: Windows) -> None:
    cases = {
        "text": (model, text),
        "twin": (random_twin(model), text),
        "shuffled": (model, text.shuffled(0)),
    }
    blocks, length = len(model.blocks), text.tokens.shape[1]
    for one, read in cases.values():
        with Fitted() as fitted:
            measure(one, read)
        # A lens for macro and one for micro in every block but the last, whose states are what the head reads.
        assert len(fitted.lenses) == 2 * (blocks - 1)
        for lenses in fitted.lenses:
            assert len(lenses) == FOLDS
            for lens in lenses:
                assert lens.weight.shape == (model.width, model.width)
                assert lens.offset.shape == lens.centre.shape == (model.width,)
                assert lens.penalty in PENALTIES
        # A temperature and a share for macro and for micro at every position, chosen from the same.
        assert fitted.choices == [(len(TEMPERATURES), FOLDS)] * (2 * blocks * length)


class Table:
    """States that are a function of the token and of what stands before it, as a store holds them."""

    def __init__(self, tokens: np.ndarray, width: int, blocks: int, vocabulary: int) -> None:
        drawn = torch.randn(blocks, vocabulary, width, generator=torch.Generator().manual_seed(0))
        self._states = drawn[:, torch.from_numpy(tokens)].cumsum(dim=2)  # (blocks, n, T, width)

    def read(self, point: int, position: int) -> Tensor:
        return self._states[point, :, position].contiguous()


def observed(model: LanguageModel, text: Windows) -> tuple[PredictiveReader, Fitted]:
    """Read `text` by states that no batching touches, and return what was fitted."""
    made = (model.width, len(model.blocks), model.vocabulary)
    alone = text.distinct_tokens()[0][:, None]
    states = cast("RawStates", SimpleNamespace(macro=Table(text.tokens, *made), micro=Table(alone, *made)))
    reader = PredictiveReader(model, text, seed=0)
    with Fitted() as fitted:
        list(reader.rows(states))
    return reader, fitted


@settings(max_examples=10, deadline=None)
@given(fold=st.integers(0, FOLDS - 1), seed=st.integers(0, 2**16))
def test_no_text_changes_what_it_is_read_by(model: LanguageModel, text: Windows, fold: int, seed: int) -> None:
    reader, before = observed(model, text)
    assert text.next_tokens is not None
    rng = np.random.default_rng(seed)
    mine = np.zeros(len(text), bool)
    mine[reader._rows[reader._fold.numpy() == fold]] = True
    tokens, following = text.tokens.copy(), text.next_tokens.copy()
    tokens[mine] = rng.integers(0, model.vocabulary, (mine.sum(), text.tokens.shape[1]))
    following[mine] = rng.integers(0, model.vocabulary, mine.sum())
    changed, after = observed(model, replace(text, tokens=tokens, next_tokens=following))
    assert torch.equal(changed._fold, reader._fold)
    assert torch.equal(changed._log_u[fold], reader._log_u[fold])
    for one, other in zip(before.lenses, after.lenses, strict=True):
        for name in ("centre", "weight", "offset"):
            assert torch.equal(getattr(one[fold], name), getattr(other[fold], name))
    # The lenses that read the other folds saw this one; so do temperatures and shares of theirs.
    assert any(not torch.equal(a.weight, b.weight) for a, b in zip(before.lenses[0], after.lenses[0], strict=True))


@settings(max_examples=50, deadline=None)
@given(fold=st.integers(0, FOLDS - 1), seed=st.integers(0, 2**16))
def test_no_window_changes_its_own_calibration(fold: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    part = torch.randint(0, FOLDS, (60,), generator=rng)
    log_u, weights = -5 * torch.rand(60, generator=rng), 1 + 3 * torch.rand(60, generator=rng)
    log_p = -8 * torch.rand(len(TEMPERATURES), 60, generator=rng)
    before = cross_calibrated(log_p, log_u, weights, part, FOLDS)[fold]
    mine = part == fold
    log_p[:, mine], log_u[mine], weights[mine] = -torch.inf, -1e-3, 1e6
    assert cross_calibrated(log_p, log_u, weights, part, FOLDS)[fold] == before
