"""Names and texts of any kind reach MLflow and its pages unharmed: property tests."""

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from tracking.mlflow.tracker import Point, finite, names_for
from tracking.results import flatten


@given(st.lists(st.text(), unique=True))
def test_different_texts_have_different_names_that_mlflow_takes(texts: list[str]) -> None:
    names = names_for(texts)
    assert list(names) == texts
    assert len(set(names.values())) == len(texts)
    for name in names.values():
        _validate_metric_name(name)
        _validate_param_name(name)


def test_names_have_no_hash_where_none_collides() -> None:
    text = "by_size/animal, shuffled/gpt2"
    assert names_for([text]) == {text: "by_size/animal_ shuffled/gpt2"}
    both = names_for(["a,b", "a;b", "c"])
    assert both["c"] == "c"
    assert both["a,b"] != both["a;b"]


@given(st.lists(st.floats()))
def test_points_are_finite_or_flagged(values: list[float]) -> None:
    kept, flags = finite(Point("x", value, step) for step, value in enumerate(values))
    assert len(kept) + len(flags) == len(values)
    assert all(abs(point.value) < float("inf") for point in kept)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3)))
def test_flat_settings_are_texts(value: object) -> None:
    assert all(isinstance(v, str) for v in flatten({"top": value}).values())
