"""Extracted states against states hooked, normalised and projected by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from estimators.base import InputError
from extraction.corpora.loading import text_windows, windows
from extraction.corpora.token_windows import Windows
from extraction.models.load import LanguageModel, load_model
from extraction.states.budget import PILOT_WINDOWS, StateBudget
from extraction.states.extracting import Projection, extract
from extraction.states.statistics import Statistics, projection
from tests.extraction.states.state_checks import CLOSE, TEXT, everything


def by_hand(model: LanguageModel, rows: Tensor) -> list[Tensor]:
    """Every point's states (n, T, width) of all rows in one plain forward pass."""
    points: list[Tensor] = []
    handles = [model.blocks[0].register_forward_pre_hook(lambda m, a: points.append(a[0].double().clone()))]
    for block in model.blocks:
        handles.append(
            block.register_forward_hook(
                lambda m, a, o: points.append((o[0] if isinstance(o, tuple) else o).double().clone())
            )
        )
    with torch.no_grad():
        model.model(rows)
    for handle in handles:
        handle.remove()
    return points


def pooled_by_hand(macro: Tensor, micro: Tensor, found: Windows) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each occurrence written out, half the mass on either side."""
    rows = np.repeat(np.arange(len(found)), found.weights.astype(int))
    _, index = found.distinct_tokens()
    macro_all = macro[rows].reshape(-1, macro.shape[-1])
    micro_all = micro[index[rows].reshape(-1), 0]
    mean = (macro_all.mean(0) + micro_all.mean(0)) / 2
    variance = ((macro_all - mean).square().mean(0) + (micro_all - mean).square().mean(0)) / 2
    return mean, variance.sqrt()


@pytest.mark.parametrize("project", [None, 8])
def test_states_are_z_scored_on_one_scale_and_projected(
    gpt2: LanguageModel, found: Windows, project: int | None
) -> None:
    ids, _ = found.distinct_tokens()
    macro = by_hand(gpt2, torch.from_numpy(found.tokens))
    micro = by_hand(gpt2, torch.from_numpy(ids)[:, None])
    basis = torch.eye(32).double() if project is None else projection(32, project, 3).double()
    with extract(gpt2, found, projection=Projection(project, 3), entering=True) as states:
        assert (states.blocks, states.positions, states.features) == (3, 5, project or 32)
        assert states.statistics.windows == len(found)
        for block in range(3):
            mean, std = pooled_by_hand(macro[block + 1], micro[block + 1], found)
            y, z = ((h - mean) / std @ basis for h in (macro[block + 1], micro[block + 1]))
            for t in range(1, 6):
                torch.testing.assert_close(states.leaving(block, t).double(), y[:, t - 1], **CLOSE)
            torch.testing.assert_close(states.micro_leaving(block).double(), z[:, 0], **CLOSE)
            # The scale is the RMS norm of what is there, centred and pooled alike.
            _, spread = pooled_by_hand(y, z, found)
            assert states.scale(block) == pytest.approx(float(spread.norm()), rel=1e-4)
            if project is None:
                assert states.scale(block) == pytest.approx(np.sqrt(32), rel=1e-4)
        mean, std = pooled_by_hand(macro[0], micro[0], found)
        torch.testing.assert_close(states.entering(0, 2).double(), ((macro[0] - mean) / std @ basis)[:, 1], **CLOSE)
        for block in (1, 2):
            assert torch.equal(states.entering(block, 3), states.leaving(block - 1, 3))
            assert torch.equal(states.micro_entering(block), states.micro_leaving(block - 1))


def test_a_first_token_is_the_same_alone(gpt2: LanguageModel, found: Windows) -> None:
    _, index = found.distinct_tokens()
    with extract(gpt2, found) as states:
        for block in range(3):
            alone = states.micro_leaving(block)[index[:, 0]]
            torch.testing.assert_close(states.leaving(block, 1), alone, **CLOSE)
            assert not torch.allclose(states.leaving(block, 2), states.micro_leaving(block)[index[:, 1]], atol=0.1)


def test_what_the_tokenizer_adds_stands_before_macro_and_micro(
    save_gpt2: Callable[..., Path], bos_tokenizer: Any, tmp_path: Path
) -> None:
    model = load_model(str(save_gpt2(tmp_path / "bos", bos_tokenizer)))
    found = text_windows([TEXT], bos_tokenizer, tokens=5, count=None, at="anywhere")
    assert found.prefix == model.prefix != ()
    start = torch.tensor([found.prefix])
    with extract(model, found, entering=True) as states:
        raw = states.statistics
        ids, _ = found.distinct_tokens()
        for sequences, taken in (
            (found.tokens, lambda block: states.leaving(block, 3)),
            (ids[:, None], states.micro_leaving),
        ):
            hooked = by_hand(model, torch.cat([start.expand(len(sequences), -1), torch.from_numpy(sequences)], dim=1))
            place = 3 if sequences is found.tokens else 1
            for block in range(3):
                wanted = (hooked[block + 1][:, place] - raw.mean[block + 1]) / raw.std[block + 1]
                torch.testing.assert_close(taken(block).double(), wanted, **CLOSE)
        assert states.nll_bits is not None
        assert not states.nll_bits.isnan().any()  # the prefix gives the first token its likelihood


def test_a_constant_feature_stays_zero(gpt2: LanguageModel, found: Windows) -> None:
    same = found.select(np.array([0]))
    same = Windows("x", "text", same.tokens[:, :1], same.weights)
    with extract(gpt2, same) as states:
        assert states.leaving(2, 1).abs().max() < 1e-4
        assert torch.isfinite(states.micro_leaving(0)).all()


def test_the_seed_governs_the_projection_only(gpt2: LanguageModel, found: Windows) -> None:
    with (
        extract(gpt2, found, projection=Projection(8)) as first,
        extract(gpt2, found, projection=Projection(8)) as again,
        extract(gpt2, found, projection=Projection(8, 1)) as other,
    ):
        assert torch.equal(everything(first), everything(again))
        assert not torch.allclose(everything(first), everything(other))
        assert torch.equal(first.statistics.mean, other.statistics.mean)


def test_a_projection_is_orthonormal() -> None:
    basis = projection(64, 16, 0).double()
    torch.testing.assert_close(basis.T @ basis, torch.eye(16).double(), rtol=0, atol=1e-6)


def test_statistics_of_another_run_put_text_on_its_scale(gpt2: LanguageModel, found: Windows, tmp_path: Path) -> None:
    few = found.select(np.arange(7))
    with extract(gpt2, found, projection=Projection(8)) as reference:
        reference.statistics.save(tmp_path / "statistics.safetensors")
        saved = Statistics.load(tmp_path / "statistics.safetensors")
        assert (saved.features, saved.seed, saved.entering, saved.windows) == (8, 0, False, len(found))
        with extract(gpt2, few, projection=Projection(8), statistics=saved) as states:
            torch.testing.assert_close(states.leaving(1, 4), reference.leaving(1, 4)[:7], **CLOSE)
            assert states.scale(1) == reference.scale(1)
    with pytest.raises(InputError, match=r"hold 3 points of 32 features projected to 8, but .* projected to 16"):
        extract(gpt2, few, projection=Projection(16), statistics=saved)
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="No statistics of states could be read"):
        Statistics.load(tmp_path / "other.safetensors")


def test_many_windows_take_their_statistics_from_the_first(gpt2: LanguageModel) -> None:
    many = windows("animal", gpt2.tokenizer, tokens=6, count=PILOT_WINDOWS + 500)
    pilot = many.select(np.arange(PILOT_WINDOWS))
    with (
        extract(gpt2, many, projection=Projection(None)) as states,
        extract(gpt2, pilot, projection=Projection(None)) as first,
    ):
        assert states.statistics.windows == PILOT_WINDOWS
        # The tokens alone weigh in by their frequency among all windows, so the two differ slightly.
        torch.testing.assert_close(states.statistics.std, first.statistics.std, rtol=0.02, atol=0)
        ids = many.distinct_tokens()[0]
        raw = by_hand(gpt2, torch.from_numpy(many.tokens))
        for block in range(3):  # every row is written, those of the pilot as the rest
            wanted = (raw[block + 1][:, 5] - states.statistics.mean[block]) / states.statistics.std[block]
            torch.testing.assert_close(states.leaving(block, 6).double(), wanted, **CLOSE)
        assert len(states.micro_leaving(0)) == len(ids) == 17


def test_micro_cost_goes_with_distinct_tokens(gpt2: LanguageModel) -> None:
    rows: list[tuple[int, ...]] = []
    many = windows("animal", gpt2.tokenizer, count=3000)
    with extract(gpt2, many):
        pass  # what one sequence of each kind takes has been measured, once
    handle = gpt2.blocks[0].register_forward_pre_hook(lambda m, a: rows.append(tuple(a[0].shape[:2])))
    with extract(gpt2, many):
        pass
    handle.remove()
    assert sum(n for n, tokens in rows if tokens == 1) == 17  # 16 animals and the comma
    assert sum(n for n, tokens in rows if tokens == 10) == 3000  # and each window once


def test_progress_counts_every_sequence(gpt2: LanguageModel, found: Windows) -> None:
    told: list[tuple[int, int]] = []
    for memory_gb in (2.0, 1e-4):  # with room to keep the pilot's states, and without
        told.clear()
        with extract(
            gpt2,
            found,
            budget=StateBudget(states_gb=memory_gb),
            progress=lambda done, total: told.append((done, total)),
        ):
            pass
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] == told[0][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projection": Projection(0)}, "at least 1; got 0"),
    ],
)
def test_options_that_make_no_sense(gpt2: LanguageModel, found: Windows, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        extract(gpt2, found, **change)


def test_windows_that_do_not_fit_the_model(gpt2: LanguageModel) -> None:
    long = Windows("x", "text", np.arange(65)[None], np.ones(1))
    with pytest.raises(InputError, match=r"is 65 tokens with what the tokenizer adds, but the context .* is 64"):
        extract(gpt2, long)
    foreign = Windows("x", "text", np.array([[0, 10**6]]), np.ones(1))
    with pytest.raises(InputError, match=r"hold token 1000000, but .* knows 472; make them with the tokenizer"):
        extract(gpt2, foreign)


def test_blocks_and_positions_that_are_not_there(gpt2: LanguageModel, found: Windows) -> None:
    with extract(gpt2, found) as states:
        with pytest.raises(InputError, match="numbered 0 to 2; got 3"):
            states.leaving(3, 1)
        with pytest.raises(InputError, match="numbered 1 to 5; got 0"):
            states.leaving(0, 0)
        with pytest.raises(InputError, match="pass entering=True"):
            states.entering(0, 1)
        assert states.entering(1, 1).shape == (len(found), 32)


def test_half_precision_and_device_maps_give_about_the_same(
    gpt2_folder: Path, gpt2: LanguageModel, found: Windows
) -> None:
    half = load_model(str(gpt2_folder), dtype="bfloat16", device="spread")
    with extract(half, found) as rough, extract(gpt2, found) as fine:
        assert rough.leaving(2, 5).dtype == torch.float32
        error = (rough.leaving(2, 5) - fine.leaving(2, 5)).norm() / fine.leaving(2, 5).norm()
        assert error < 0.05  # bfloat16 keeps 8 bits: 0.4 % a rounding, some tens of them in three blocks


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"states_gb": 0}, "states_gb takes a number above 0 and up to 1000000000, got 0"),
        ({"states_gb": float("nan")}, "above 0 .*got nan"),
        ({"spill_gb": -1}, "spill_gb takes a number from 0 to 1000000000, got -1"),
        ({"states_gb": 1e308}, "states_gb takes .*1000000000, got"),
        ({"spill_gb": float("inf")}, "spill_gb takes .*got inf"),
    ],
)
def test_a_budget_of_nothing_is_refused(sizes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StateBudget(**sizes)
