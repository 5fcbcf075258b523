"""Output rows of open models from their heads, and windows as contexts of a next token."""

from dataclasses import replace
from pydoc_data.topics import topics

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction import random_twin, text_windows, windows
from proxy.measurement.names import check_names
from proxy.measurement.output import (
    contexts_of,
    corpus_contexts,
    measure_output,
    open_output,
    output_rows,
    output_windows,
)
from proxy.measurement.table import Listeners, Propagation, measure, peak_emergence
from tests.proxy.measurement.odd_heads import with_bent_head


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


READINGS = ["output-20", "output-2", "predictive-20"]


def test_the_output_is_read_from_the_pass_of_the_states(model):
    text = output_windows("python-docs", model.tokenizer, count=200, prefix=model.prefix)
    ran = []
    hook = model.blocks[0].register_forward_hook(lambda module, args, output: ran.append(args[0].shape[:2].numel()))
    tokens = {}
    propagated = ",".join(["sample-propagation", *READINGS])
    # The first measures memory, once.
    for names in ("predictive", "predictive", propagated, ",".join(["predictive", *READINGS])):
        ran.clear()
        table = measure(model, text, estimator=names, propagation=Propagation(queries=20, resolutions=(0.18,)))
        tokens[names] = sum(ran)
        if names == propagated:
            without = table[table["layer"] < 0].set_index("estimator")
    hook.remove()
    assert len(set(tokens.values())) == 1
    assert text.tokens.size <= sum(ran) < text.tokens.size + model.vocabulary + 100  # windows and lone tokens, once
    found = table[table["layer"] < 0].set_index("estimator")
    whole = found.loc["predictive"]
    found = found.drop(index="predictive")
    pd.testing.assert_frame_equal(without.drop(columns="seconds"), found.drop(columns="seconds"))
    apart = measure_output(model, corpus_contexts("python-docs", model.tokenizer, count=200), READINGS)
    apart = apart.set_index("estimator")
    assert found["corpus_hash"].equals(apart["corpus_hash"])  # the windows that a closed model is asked for
    for column in ("macro_bits", "micro_bits", "ie_bits", "ie_std_error"):
        # the head reads what it read in the run, in other batches: float32 has seven digits
        assert found[column].to_numpy(float) == pytest.approx(apart[column].to_numpy(float), abs=1e-4)
    # What a server that scores text gives, from the head and without a lens; the peak stays that of the blocks.
    contexts = corpus_contexts("python-docs", model.tokenizer, count=200)
    scored = output_rows(open_output(model, contexts), contexts, ["predictive"]).iloc[0]
    assert whole["ie_bits"] == pytest.approx(scored["ie_bits"], abs=1e-4)
    assert whole["corpus_hash"] == contexts.corpus_hash
    assert peak_emergence(table)["peak_layer"].item() >= 0


def test_windows_of_any_making_are_read(model):
    text = windows("python-docs", model.tokenizer, count=200, prefix=model.prefix)
    text = replace(text, next_tokens=np.where(np.arange(len(text)) < 20, -1, text.next_tokens))  # their text ends
    table = measure(model, text, estimator="output-20")
    assert table["windows"].tolist() == [text.weights[20:].sum()]
    with pytest.raises(InputError, match="do not say which token follows"):
        measure(model, replace(text, next_tokens=None), estimator="output-20")


def test_the_output_of_a_bent_head_is_read_beside_states():
    model = with_bent_head("gpt2-30k")
    text = windows("python-docs", model.tokenizer, count=60, prefix=model.prefix)
    how = Propagation(queries=20, resolutions=(0.18,))
    table = measure(model, text, estimator="sample-propagation,output-20", propagation=how)
    assert sorted(table["estimator"].unique()) == ["output-20", "sample-propagation"]


def test_every_row_of_a_text_of_one_document_says_so(model):
    one = text_windows(
        ["\n\n".join(topics[name] for name in sorted(topics))], model.tokenizer, count=150, prefix=model.prefix
    )
    rows = measure(model, one, estimator=",".join(["predictive", "sample-propagation", *READINGS]))
    assert rows["flags"].str.split(",").map(lambda flags: "few-documents" in flags).all()
    mixed = one.shuffled(0)
    assert measure(model, mixed, estimator="predictive-20")["flags"].tolist() == ["few-documents"]
    lists = windows("animal", model.tokenizer, count=150, prefix=model.prefix)  # have no documents
    rows = measure(model, lists, estimator="sample-propagation,output-20")
    assert not rows["flags"].str.contains("few-documents").any()
    many = contexts_of(output_windows("python-docs", model.tokenizer, count=600), model.tokenizer)
    assert not many.few
    assert not many.first(400, seed=0).few
    assert many.first(20, seed=0).few  # too few of its documents are left to deal them whole


@pytest.mark.parametrize("estimator", ["output-20", "predictive,output-20", "sample-propagation,output-20"])
def test_progress_ends_with_the_work(model, estimator):
    text = windows("python-docs", model.tokenizer, count=120, prefix=model.prefix)
    told = []
    measure(model, text, estimator=estimator, listeners=Listeners(progress=lambda *step: told.append(step)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len(told) > 4


def test_likelihoods_come_with_a_reading_of_the_output_alone(model):
    text = windows("animal", model.tokenizer, count=50, prefix=model.prefix)
    told = []
    measure(model, text, estimator="output-2", listeners=Listeners(likelihoods=told.append))
    assert [one.nll_bits.shape for one in told] == [(50, 10)]


def test_the_command_reads_states_and_output_with_their_controls(emergence, tmp_path):
    out = tmp_path / "both.parquet"
    done = emergence(
        "measure", "gpt2-30k", "--corpus", "python-docs", "--windows", 200, "--controls", "--out", out,
        "--estimator", "predictive,output-20,output-2,predictive-20",
    )  # fmt: skip
    assert done.code == 0, done.err
    table = pd.read_parquet(out)
    assert set(table.loc[table["layer"] < 0, "estimator"]) == {"predictive", *READINGS}
    assert set(table.loc[table["layer"] >= 0, "estimator"]) == {"predictive"}
    assert table[["twin_ie_bits", "shuffled_ie_bits"]].notna().all().all()
    assert "Emergence of the output" in done.out
    assert "E at the highest block, predictive, bits" in done.out


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
