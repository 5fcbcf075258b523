"""Names and texts of any kind reach MLflow and its pages unharmed: property tests."""

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from tracking.mlflow.tracker import Point, finite, metric_name
from tracking.results import flatten


@given(st.text())
def test_metric_names_are_taken_by_mlflow(text: str) -> None:
    _validate_metric_name(metric_name(text))
    _validate_param_name(metric_name(text))


@given(st.text(), st.text())
def test_different_texts_have_different_names(one: str, other: str) -> None:
    assert (metric_name(one) == metric_name(other)) == (one == other)


@given(st.lists(st.floats()))
def test_points_are_finite_or_flagged(values: list[float]) -> None:
    kept, flags = finite(Point("x", value, step) for step, value in enumerate(values))
    assert len(kept) + len(flags) == len(values)
    assert all(abs(point.value) < float("inf") for point in kept)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_flat_settings_are_texts(value: object) -> None:
    assert all(isinstance(v, str) for v in flatten({"top": value}).values())
