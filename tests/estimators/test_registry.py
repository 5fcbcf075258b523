"""The one call: names, options, batches."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from estimators import InputError, estimate, estimate_many, methods, shuffled_pairs


def test_unknown_names_are_told_the_known_ones():
    x = torch.randn(20, 2)
    with pytest.raises(InputError, match=r"did you mean 'mine'.*known: sample-propagation"):
        estimate(x, x, "mime")
    with pytest.raises(InputError, match=r"did you mean 'resolution'.*resolution, scale, queries, draws"):
        estimate(x, x, resolutoin=0.1)


def test_several_resolutions_give_a_list():
    tokens, states = torch.arange(8), torch.eye(8)
    assert [one.resolution for one in estimate(tokens, states, resolution=(0.1, 0.2))] == [0.1, 0.2]
    assert estimate(tokens, states, resolution=0.1).resolution == 0.1


def test_many_problems_equal_one_after_another():
    generator = torch.Generator().manual_seed(0)
    problems = [(torch.arange(50), torch.randn(50, 4, generator=generator)) for _ in range(3)]
    together = estimate_many(problems, "sample-propagation", resolution=0.2)
    assert [one.bits for one in together] == [estimate(x, y, resolution=0.2).bits for x, y in problems]
    with pytest.raises(InputError, match="got none"):
        estimate_many([])


@pytest.mark.parametrize("method", sorted(set(methods()) - {"sample-propagation", "entropy"}))
class TestBadInput:
    def test_rows_differ(self, method):
        with pytest.raises(InputError, match="got 5 and 6 rows"):
            estimate(torch.randn(5, 2), torch.randn(6, 2), method)

    def test_one_sample(self, method):
        with pytest.raises(InputError, match="at least 2 samples; got 1"):
            estimate(torch.randn(1, 2), torch.randn(1, 2), method)

    def test_not_finite(self, method):
        x = torch.randn(9, 2)
        x[3, 1] = torch.inf
        x[5, 0] = torch.nan
        with pytest.raises(InputError, match="x has NaN or infinite values in 2 of 9 samples, first in row 3"):
            estimate(x, torch.randn(9, 2), method)

    def test_devices_differ(self, method):
        with pytest.raises(InputError, match=r"x is on cpu and y on meta; move one with \.to\('cpu'\)"):
            estimate(torch.randn(50, 2), torch.randn(50, 2, device="meta"), method)

    def test_integers(self, method):
        with pytest.raises(InputError, match="y must be floating point"):
            estimate(torch.randn(9, 2), torch.arange(9), method)


def test_progress_is_told_of_every_problem():
    seen = []
    problems = [(torch.arange(20), torch.randn(20, 2))] * 3
    estimate_many(problems, "sample-propagation", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_exceeds_memory_is_refused_before_it_starts(monkeypatch):
    for module in ("checks", "training", "gaussian", "mine", "mixture"):
        monkeypatch.setattr(f"estimators.{module}.memory_bytes", lambda device=None: 1e5)
    x = torch.randn(1000, 3)
    with pytest.raises(InputError, match=r"3 problems of 1000 samples x 6 features.*at most 1 at once"):
        estimate_many([(x, x)] * 3, "infonce")
    with pytest.raises(InputError, match=r"1000 samples of 6 features would need 0\.0 GB.*project to 4 features"):
        estimate(x, x, "gaussian")
    with pytest.raises(
        InputError, match=r"1 problems of 1000 samples would need.*at most 0 at once, or at most 4 samp"
    ):
        estimate(x, x, "mine", preset="paper")
    with pytest.raises(InputError, match=r"1000 states of 3 features with 1000 queries of 3 draws.*at most 0 states"):
        estimate(torch.arange(1000), x)


OPTIONS = {
    "infonce": {"steps": "5", "batch": 1.5, "rate": "fast", "folds": True, "halves": 1},
    "smile": {"clip": "5", "steps": 1.5},
    "mine": {"steps": 2.0},
    "sample-propagation": {"queries": 4.0, "draws": 1.5, "resolution": "fine", "scale": "large", "seed": "0"},
}


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [(method, option, value) for method, options in OPTIONS.items() for option, value in options.items()],
)
def test_options_of_another_type_are_refused_by_name(method, option, value):
    tokens = torch.arange(50)
    x = tokens if method == "sample-propagation" else torch.randn(50, 2)
    with pytest.raises(InputError, match=rf"^{option}s? must be .*; got {value!r}"):
        estimate(x, torch.randn(50, 2), method, **{option: value})


@pytest.mark.parametrize("value", [5.0, "many", True])
def test_options_of_the_preset_are_refused_by_name(value):
    with pytest.raises(InputError, match="epochs must be a whole number"):
        estimate(torch.randn(50, 2), torch.randn(50, 2), "mine", preset="paper", epochs=value)


def test_numbers_of_numpy_are_numbers():
    found = estimate(torch.arange(8), torch.eye(8), queries=np.int64(4), resolution=np.float32(0.1), seed=np.int64(1))
    assert found.queries.shape == (4,)


def test_control_stands_beside_the_value():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 2, generator=generator)
    y = x + 0.5 * torch.randn(500, 2, generator=generator)
    found = estimate(x, y, "gaussian", control=True)
    assert found.bits > 1
    assert found.control == shuffled_pairs(x, y, "gaussian")
    assert abs(found.control.bits) < 4 * found.control.std_error
    assert estimate(x, y, "gaussian").control is None
    with pytest.raises(InputError, match="not a control for it"):
        estimate(torch.arange(4), torch.eye(4), control=True)


def test_half_precision_of_numpy_is_said():
    y = np.eye(4, dtype=np.float16)
    assert "half-precision" in estimate(np.arange(4), y).flags


def test_package_needs_torch_and_numpy_only():
    """Asked of a fresh interpreter, because the tests themselves import more."""
    heavy = "ray mlflow openai transformers pandas sklearn scipy pyarrow matplotlib proxy extraction tracking"
    code = f"import sys, estimators; print(sorted(set('{heavy}'.split()) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
