"""Attention sinks, built into a model and as a real model has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction import LanguageModel, StateBudget, extract, load_model, windows
from extraction.models.blocks import run_decoder, watch
from extraction.states.raw import raw_states
from extraction.states.sinks import FACTOR, Sinks, sinks_of

END = 0  # the id of the bundled models' special token


@pytest.fixture
def plain() -> LanguageModel:
    return load_model("gpt2-90k", device="cpu")


@pytest.fixture
def sinking() -> LanguageModel:
    """States of the first position are far larger than those of the others, in every block, by the weights alone."""
    model = load_model("gpt2-90k", device="cpu")
    with torch.no_grad():
        model.model.get_decoder().wpe.weight[0] *= 1000
    return model


def both(model: LanguageModel, prefix: tuple[int, ...], **how: Any) -> tuple[Sinks, Sinks]:
    found = windows("python-docs", model.tokenizer, count=150, prefix=prefix)
    with extract(model, found, likelihoods=False, **how) as kept, raw_states(model, found, **how) as raw:
        assert kept.sinks is not None
        assert raw.sinks is not None
        return kept.sinks, raw.sinks


def test_a_model_without_one_has_none(plain: LanguageModel) -> None:
    for sinks in both(plain, ()):
        assert sinks.positions.shape == (4, 8)
        assert float(sinks.positions.max()) < 2
        assert float(sinks.alone.max()) < 2
        assert not any(sinks.at(block, t) for block in range(4) for t in range(1, 9))


def test_a_sink_in_the_weights_is_found_and_stands_under_a_neutral_token(sinking: LanguageModel) -> None:
    for sinks in both(sinking, ()):
        assert float(sinks.positions[:, 0].min()) > 10 * FACTOR
        assert float(sinks.alone.min()) > 10 * FACTOR
        assert float(sinks.positions[:, 1:].max()) < 2
        assert all(sinks.at(block, t) for block in range(4) for t in range(1, 9))  # every row holds lone tokens
    for sinks in both(sinking, (END,)):
        assert not any(sinks.at(block, t) for block in range(4) for t in range(1, 9))


def test_ratios_are_those_of_plain_hooks(sinking: LanguageModel) -> None:
    found = windows("python-docs", sinking.tokenizer, count=150, prefix=())
    ids, _ = found.distinct_tokens()
    norms: list[list[torch.Tensor]] = []
    for rows in (torch.from_numpy(found.tokens), torch.from_numpy(ids)[:, None]):
        seen: list[torch.Tensor] = []
        with torch.inference_mode(), watch(sinking.blocks, lambda p, h, seen=seen: seen.append(h.norm(dim=-1))):
            run_decoder(sinking.model, rows)
        norms.append(seen[1:])  # not what enters the first block
    with extract(sinking, found, likelihoods=False, budget=StateBudget(states_gb=1e-3)) as states:
        sinks = states.sinks
    assert sinks is not None
    for block in range(4):
        medians = norms[0][block].quantile(0.5, dim=0, interpolation="lower")
        usual = medians.quantile(0.5, interpolation="lower")
        torch.testing.assert_close(sinks.positions[block], medians / usual, rtol=1e-4, atol=1e-4)
        alone = norms[1][block][:, 0].quantile(0.5, interpolation="lower") / usual
        torch.testing.assert_close(sinks.alone[block], alone, rtol=1e-4, atol=1e-4)


def test_a_sink_amid_a_window_is_of_its_position_alone() -> None:
    norms = torch.ones(2, 4, 9)
    norms[1, 2, :5] = 1.01 * FACTOR  # of most windows
    norms[0, 2, :4] = 100.0  # of less than half
    sinks = sinks_of(norms, torch.ones(2, 3))
    assert [[sinks.at(block, t) for t in range(1, 5)] for block in range(2)] == [
        [False] * 4,
        [False, False, True, False],
    ]


def test_windows_of_two_tokens_are_compared_with_the_smaller() -> None:
    sinks = sinks_of(torch.tensor([[[50.0], [1.0]]]), torch.tensor([[50.0]]))
    assert sinks.at(0, 1)
    assert sinks.at(0, 2)
    assert not sinks_of(torch.tensor([[[50.0]]]), torch.tensor([[50.0]])).at(0, 1)  # nothing to compare with


def test_text_of_others_on_ones_scale_is_not_looked_at(plain: LanguageModel) -> None:
    found = windows("python-docs", plain.tokenizer, count=150, prefix=())
    with extract(plain, found, likelihoods=False) as states:
        statistics = states.statistics
    with extract(plain, found, likelihoods=False, statistics=statistics) as states:
        assert states.sinks is None


@pytest.mark.real
@pytest.mark.skipif(not os.environ.get("EMERGENCE_REAL_MODELS"), reason="EMERGENCE_REAL_MODELS names no folder")
def test_a_real_model_with_and_without_a_neutral_token() -> None:
    real = load_model(Path(os.environ["EMERGENCE_REAL_MODELS"]) / "SmolLM2-135M-Instruct.gguf", device="cpu")
    told = {}
    for prefix in ((), (END,)):
        found = windows("python-docs", real.tokenizer, count=40, prefix=prefix)
        with raw_states(real, found) as states:
            told[prefix] = states.sinks
    bare, behind = told[()], told[(END,)]
    assert bare is not None
    assert behind is not None
    # 38 to 166 times as large in blocks 11 to 27 and 13 times in block 28 were measured, and at most 1.1 times behind
    # the separator.
    assert float(bare.positions[11:28, 0].min()) > 20
    assert float(bare.alone[11:28].min()) > 20
    assert bare.at(28, 8)
    assert float(behind.positions.max()) < 2
    assert float(behind.alone.max()) < 2
