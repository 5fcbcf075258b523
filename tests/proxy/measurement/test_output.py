"""Output rows of open models from their heads, and windows as contexts of a next token."""

import pandas as pd
import pytest

from estimators.base import InputError
from extraction import load_model, random_twin
from proxy.measurement.output import check_names, corpus_contexts, measure_output, open_output, output_rows


@pytest.fixture(scope="module")
def model():
    return load_model("gpt2-90k", device="cpu")


@pytest.fixture(scope="module")
def contexts(model):
    return corpus_contexts("python-docs", model.tokenizer, count=60)


def test_the_twin_and_shuffled_windows_say_less(model, contexts):
    trained = measure_output(model, contexts, ["predictive-20"]).iloc[0]
    twin = measure_output(random_twin(model), contexts, ["predictive-20"]).iloc[0]
    assert abs(twin["ie_bits"]) < 3 * twin["ie_std_error"] + 0.02
    assert trained["macro_bits"] > twin["macro_bits"]
    mixed = corpus_contexts("python-docs", model.tokenizer, count=60, shuffled=True)
    assert mixed.corpus == "python-docs, shuffled"
    assert measure_output(model, mixed, ["predictive-20"]).iloc[0]["macro_bits"] < trained["macro_bits"]


def test_lists_are_cut_before_a_demonstration_ends(model):
    some = corpus_contexts("animal", model.tokenizer, count=40)
    assert some.positions == 10
    assert some.ids.shape[1] == 11


def test_readings_that_cannot_be_had_say_so(model, contexts):
    with pytest.raises(InputError, match="output-2"):
        check_names(["output"])
    data = open_output(model, contexts)
    with pytest.raises(InputError, match="tokens shown"):
        output_rows(data, contexts, ["output-9999"])


def test_a_script_that_the_tokenizer_cuts_in_pieces(model, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\u4f60\u597d\u4e16\u754c\u3002" * 400, encoding="utf-8")
    with pytest.raises(InputError, match="whole characters"):
        corpus_contexts(str(text), model.tokenizer, count=50)


def test_the_command_line_on_open_models(emergence, tmp_path):
    out = tmp_path / "open.parquet"
    done = emergence(
        "measure", "gpt2-30k", "--corpus", "python-docs", "--windows", 60, "--estimator", "output-20,predictive-20",
        "--shuffled", "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    table = pd.read_parquet(out)
    assert sorted(table["estimator"].unique()) == ["output-20", "predictive-20"]
    assert set(table["corpus"]) == {"python-docs", "python-docs, shuffled"}
    assert (table["layer"] == -1).all()
    assert "Emergence of the output" in done.out
    assert emergence("measure", "m", "--corpus", "animal", "--base-url", "ftp://x").code == 2
