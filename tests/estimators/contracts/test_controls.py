"""Controls are columns of the models they belong to, however they were measured."""

import numpy as np
import pandas as pd
import pytest

from estimators.contracts.controls import FAILED, controls_as_columns, summary, varying, verdicts, with_controls
from estimators.contracts.conventions import SHUFFLED, TWIN


def rows(model: str, corpus: str = "animal", *, scale: float = 1.0, **more: object) -> pd.DataFrame:
    """Two blocks at two positions and two resolutions; the second block is the highest."""
    layer, position, resolution = (grid.ravel() for grid in np.meshgrid([0, 1], [1, 2], [0.18, 0.5], indexing="ij"))
    ie = scale * (1.0 + layer) * position * (1 - resolution)
    found = {"layer": layer, "position": position, "resolution": resolution, "ie_bits": ie, "ie_std_error": 0.01}
    return pd.DataFrame(
        found | {"model": model, "corpus": corpus, "estimator": "e", "flags": "", "windows": 100} | more
    )


def test_controls_measured_apart_give_the_table_of_controls_measured_together() -> None:
    trained, twin, shuffled = rows("m"), rows(f"m{TWIN}", scale=0.1), rows("m", f"animal{SHUFFLED}", scale=0.2)
    both = rows(f"m{TWIN}", f"animal{SHUFFLED}")
    other = rows("n", scale=2.0)
    apart = controls_as_columns(pd.concat([shuffled, trained, twin, both, other], ignore_index=True))
    assert apart[["model", "corpus"]].drop_duplicates().to_numpy().tolist() == [["m", "animal"], ["n", "animal"]]
    together = with_controls(trained, twin=twin, shuffled=shuffled)
    of_m = apart[apart["model"] == "m"].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_m[together.columns], together)
    assert apart.loc[apart["model"] == "n", "twin_ie_bits"].isna().all()  # that of another model is not its own
    pd.testing.assert_frame_equal(controls_as_columns(apart), apart)  # nothing changes a second time


def test_the_twin_is_read_where_the_trained_model_is_highest() -> None:
    twin = rows(f"m{TWIN}", scale=0.1).assign(ie_bits=lambda table: np.where(table["layer"] == 0, 9.0, 0.3))
    found = summary(pd.concat([rows("m"), twin]))
    assert found[["model", "block"]].to_numpy().tolist() == [["m", 1]]
    assert found["E"].tolist() == pytest.approx([2 * 2 * 0.82])
    assert found["twin"].tolist() == [0.3]
    assert found["verdict"].tolist() == ["learned"]


@pytest.mark.parametrize(
    ("control", "error", "verdict"),
    [
        (0.1, 0.01, "learned"),
        (1.0, 0.01, "control failed"),  # random order shows as much as the text
        (2.0, 0.01, "control failed"),
        (0.0, 1.0, "not shown"),  # the control is about 0, but E is 3.28 +- 1
        (0.1, np.nan, "not shown"),  # an error that is not known is no evidence
    ],
)
def test_verdicts(control: float, error: float, verdict: str) -> None:
    shuffled = rows("m", f"animal{SHUFFLED}", scale=control)
    found = summary(pd.concat([rows("m", ie_std_error=error), shuffled]))
    assert found["verdict"].tolist() == [verdict]
    assert "twin" not in varying(found)[0]  # it was not run


@pytest.mark.parametrize(("value", "verdict"), [(0.0004, "not shown"), (0.1, "control failed")])
def test_a_control_of_less_than_is_printed_is_about_0(value: float, verdict: str) -> None:
    """On lists a control of 0.0004 bits may have an error of 0.00007, which is above 0 by six of them."""
    row = {"estimator": "predictive", "ie_bits": value, "ie_std_error": 7e-5, "flags": FAILED}
    assert verdicts(pd.DataFrame([row | {"twin_ie_bits": value, "twin_ie_std_error": 7e-5}])).tolist() == [verdict]


def test_a_row_is_flagged_once() -> None:
    flagged = with_controls(rows("m"), twin=rows(f"m{TWIN}"))
    assert flagged["flags"].eq(FAILED).all()
    assert with_controls(flagged, twin=rows(f"m{TWIN}"))["flags"].eq(FAILED).all()


def test_a_control_without_its_trained_model_stays() -> None:
    alone = rows(f"m{TWIN} dtype=float16")
    assert controls_as_columns(alone)["model"].unique().tolist() == [f"m{TWIN} dtype=float16"]
    found = summary(pd.concat([alone, rows("m dtype=float16")]))
    assert found["model"].tolist() == ["m dtype=float16"]  # what tells jobs of one name apart follows the mark


def test_each_estimator_has_its_row_and_what_is_alike_stands_above() -> None:
    two = [rows("m"), rows("m", scale=3.0, estimator="f", resolution=pd.NA, layer=-1).drop_duplicates("position")]
    found = summary(pd.concat(two))
    assert found[["estimator", "block"]].to_numpy().tolist() == [["e", 1], ["f", -1]]
    shown, above = varying(found)
    assert above == {"corpus": "animal", "windows": 100, "prefix": ""}
    assert list(shown.columns) == ["model", "E", "±", "verdict", "block", "estimator"]


def test_shuffled_windows_decide_nothing_about_j() -> None:
    """J of shuffled windows is that of text, in trained models too: only the random twin speaks for or against one."""
    text = rows("m", estimator="output-20")
    shuffled, twin = text.copy(), text.assign(ie_bits=0.0)
    beside = with_controls(text, shuffled=shuffled)
    assert (beside["flags"] == "").all()
    assert beside["shuffled_ie_bits"].notna().all()
    assert summary(beside)["verdict"].tolist() == ["no controls"]
    assert summary(with_controls(text, shuffled=shuffled, twin=twin))["verdict"].tolist() == ["learned"]
    assert (with_controls(text, shuffled=shuffled, twin=text)["flags"] == FAILED).all()
