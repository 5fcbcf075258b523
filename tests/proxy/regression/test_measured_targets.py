"""What `fit` says of a target that failed its controls, or was not measured in the same way for all references."""

import pandas as pd
import pytest

from proxy.regression.references import read_references


def remarks(**target: list[object]) -> str:
    """The remarks on ten references whose target was measured so."""
    frame = pd.DataFrame({"model": [f"m{number}" for number in range(10)], "family": ["f", "g"] * 5})
    frame = frame.assign(**{"small.reader.x": range(10), "meta.log_parameters": range(10)})
    frame = frame.assign(emergence_bits=[float(number) for number in range(10)])
    frame = frame.assign(**{f"emergence_bits_{name}": values for name, values in target.items()})
    return "\n".join(read_references(frame, target="emergence_bits", groups="family", mode="outputs").remarks)


@pytest.mark.parametrize(("failed", "said"), [(1, False), (2, True)])
def test_a_target_that_fails_its_controls_for_more_than_a_tenth_is_said(failed: int, said: bool) -> None:
    verdicts: list[object] = ["learned"] * (10 - failed) + ["control failed", "not shown"][:failed]
    found = remarks(verdict=verdicts)
    assert ("emergence_bits is not above its controls for 2 of 10 references" in found) is said
    assert ("m8, m9" in found) is said


def test_controls_that_were_not_run_are_said() -> None:
    found = remarks(verdict=["learned"] * 7 + ["no controls"] * 3)
    assert "no controls were run of emergence_bits for 3 of 10 references" in found


def test_targets_that_were_not_measured_alike_are_said() -> None:
    alike = {"corpus_hash": ["a"] * 10, "windows": [600] * 10, "prefix": [""] * 10, "estimator": ["predictive"] * 10}
    assert "alike" not in remarks(**alike)
    assert "windows are of 2 kinds" in remarks(**{**alike, "corpus_hash": ["a", "b"] * 5})
    assert "numbers of windows differ (136 to 600)" in remarks(**{**alike, "windows": [600] * 9 + [136]})
    assert "first tokens differ (none, <s>)" in remarks(**{**alike, "prefix": ["", "<s>"] * 5})
    mixed = remarks(**{**alike, "estimator": ["mine"] + ["predictive"] * 9})
    assert "observers differ (mine, predictive), whose bits do not compare" in mixed
