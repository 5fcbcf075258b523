"""Answers to rows of features, through real bundled readers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction import load_model
from extraction.answers.prompt_sets import listed_entities, prompts
from extraction.answers.prompt_texts import OPENINGS, QUESTIONS
from extraction.answers.responses import read_responses
from extraction.tables import write_table
from proxy.features.readers import Reader, answer_windows
from proxy.features.table import compute_features, join_output, join_target, measured_target, names_measured
from proxy.regression.references import read_references
from proxy.schemas import EMERGENCE


@pytest.fixture(scope="module")
def reader():
    return load_model("gpt2-30k")


def answers(model="m", texts=OPENINGS) -> pd.DataFrame:
    return pd.DataFrame({"model": model, "prompt_id": [str(n) for n in range(len(texts))], "text": list(texts)})


def test_resolutions_that_round_to_one_name_are_refused(reader):
    with pytest.raises(InputError, match=r"names that other columns have: ie_0\.18, ie_spread_0\.18, .*; rename"):
        compute_features(answers(), [reader], resolutions=[0.18, 0.1800000001])


@pytest.mark.parametrize(
    ("join", "other", "named"),
    [
        (join_output, pd.DataFrame({"model": ["m"], "output.nll": [1.0]}), "Features of the output .*: output.nll;"),
        (
            join_target,
            pd.DataFrame({"model": ["m"], "family": ["f"], "corpus": ["c"], "parameters": [10]}),
            "Measurements .*: family;",
        ),
    ],
)
def test_a_table_joined_under_names_of_features_is_refused(join, other, named):
    frame = pd.DataFrame({"model": ["m"], "output.nll": [2.0], "family": ["f"]})
    with pytest.raises(InputError, match=named):
        join(frame, other)


def shuffled_words(texts, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.permutation(text.split())) for text in texts]


def test_one_row_per_model_with_the_same_columns(reader):
    frame = compute_features(pd.concat([answers("a"), answers("b", QUESTIONS)]), [reader])
    assert frame["model"].tolist() == ["a", "b"]
    assert {"small.gpt2-30k.ie_0.18", "small.gpt2-30k.nll", "behaviour.log_characters"} <= set(frame.columns)
    small = frame.filter(like="small.")
    assert np.isfinite(small.astype(float)).all().all()
    assert frame["behaviour.surprise_bits"].isna().all()


def test_accuracy_by_shots_is_told_and_no_proxy_learns_from_it():
    """Single numbers of shots have few prompts; what is steady of them is among the behaviour."""
    asked = prompts("lists")
    entity = {"animal": " dog,", "color": " red,", "country": " China,"}
    right = pd.Series([entity[listed_entities(prompt)[0]] for prompt in asked["prompt"]])
    few = asked["prompt"].str.count(",") <= 6
    frame = compute_features(
        pd.concat([asked.assign(model="a", text=right), asked[few].assign(model="b", text=right[few])]), []
    ).set_index("model")
    by_shots = frame.filter(like="shots.").astype(float)
    assert by_shots.columns.tolist() == [f"shots.{n}" for n in range(1, 13)]
    assert by_shots.loc["a", "shots.1"] > by_shots.loc["a", "shots.12"] > 0  # these have been named more often by then
    assert by_shots.loc["b"].notna().tolist() == [True] * 6 + [False] * 6
    table = pd.concat([frame.reset_index()] * 5, ignore_index=True)
    table = table.assign(model=[f"m{n}" for n in range(10)], target=np.arange(10.0))
    read = read_references(
        table.drop(columns="provenance"), target="target", groups=None, mode="outputs"
    )  # each was asked other prompts here
    assert not [name for name in read.X.columns if name.startswith("shots.")]


def test_the_same_answers_give_the_same_features_whoever_is_read_beside(reader):
    """Normalisation is fixed: a model's row does not depend on the others in the run."""
    alone = compute_features(answers("a"), [reader])
    beside = compute_features(pd.concat([answers("b", [text.upper() for text in QUESTIONS]), answers("a")]), [reader])
    pd.testing.assert_frame_equal(alone, beside[beside["model"] == "a"].reset_index(drop=True))


def test_word_order_is_what_emergence_and_likelihood_see():
    """Shuffling words keeps the words, so micro information is about the same, but the text is less likely."""
    big = load_model("gpt2-280k")
    frame = compute_features(pd.concat([answers("text"), answers("words", shuffled_words(OPENINGS))]), [big]).set_index(
        "model"
    )
    assert frame.loc["text", "small.gpt2-280k.nll"] < frame.loc["words", "small.gpt2-280k.nll"]
    micro = frame["small.gpt2-280k.micro_0.18"].astype(float)
    assert abs(micro["text"] - micro["words"]) < 0.3  # bits, of about 3: spaces and capitals move
    assert frame.loc["text", "small.gpt2-280k.ie_0.18"] != frame.loc["words", "small.gpt2-280k.ie_0.18"]


def test_windows_are_balanced_by_prompt(reader):
    """One answer is a hundred times as long as the nine others, and has a tenth of the windows."""
    long = " ".join(f"dog cat number {n}" for n in range(1000))
    texts = [[long]] + [[f"{name} and cat and horse and cow and pig and sheep and"] for name in "ABCDEFGHI"]
    windows = answer_windows(reader, texts, count=500)
    assert windows.weights.sum() == 500
    decoded = [reader.tokenizer.decode(row) for row in windows.tokens]
    from_long = sum(weight for text, weight in zip(decoded, windows.weights, strict=True) if "number" in text)
    assert 0 < from_long <= 50


def test_more_samples_do_not_mean_more_windows(reader):
    assert answer_windows(reader, [["a dog and a cat and a horse and a cow"] * 5], count=100).weights.sum() == 100


def test_nll_is_that_of_the_model(reader):
    import torch

    text = "It was a dark night and the captain looked at the sky."
    ids = torch.tensor([reader.tokenizer(text)["input_ids"]])
    with torch.inference_mode():
        loss = reader.model(input_ids=ids, labels=ids).loss
    expected = float(loss) / np.log(2)
    found = Reader(reader).nll_bits([[text], ["x"]])  # a single token has nothing before it and is left out
    assert found == pytest.approx(expected, rel=1e-3)  # bfloat16 weights
    assert Reader(reader).nll_bits([[text], [text]], batch_tokens=1) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize(
    ("frame", "match"),
    [
        (answers(texts=["", " "] * 10), "m has 0 usable answers"),
        (answers(texts=["Fine."] * 3), "m has 3 usable answers, fewer than the 10"),
        (answers(texts=["a"] * 20), "m: No answer has 8 tokens of the reader gpt2-30k"),
        (answers().iloc[:0], "no answers"),
        (answers().drop(columns="text"), "text missing"),
    ],
)
def test_answers_that_cannot_be_used(reader, frame, match):
    with pytest.raises(InputError, match=match):
        compute_features(frame, [reader])


def test_a_reader_whose_tokenizer_maps_a_text_to_nothing(reader):
    class Deaf:
        def __call__(self, text, **_):
            return {"input_ids": []}

    from dataclasses import replace

    with pytest.raises(InputError, match="No answer has 8 tokens"):
        answer_windows(replace(reader, tokenizer=Deaf()), [["some text"]])


def test_targets_are_joined_by_model():
    peaks = pd.DataFrame(
        {
            "model": ["a", "b"],
            "corpus": "animal",
            "family": ["f", "g"],
            "parameters": [1000, 1_000_000],
            "emergence_bits": [1.0, 2.0],
            "emergence_bits_std_error": [0.1, 0.2],
        }
    )
    joined = join_target(pd.DataFrame({"model": ["b", "a"]}), peaks)
    assert joined["emergence_bits"].tolist() == [2.0, 1.0]
    assert joined["meta.log_parameters"].tolist() == [6.0, 3.0]
    with pytest.raises(InputError, match="No emergence was measured for c"):
        join_target(pd.DataFrame({"model": ["c"]}), peaks)
    with pytest.raises(InputError, match="name one by --corpus"):
        join_target(pd.DataFrame({"model": ["a"]}), pd.concat([peaks, peaks.assign(corpus="color")]))


def test_a_target_says_how_it_was_measured():
    """Controls are no models; of several estimators the predictive one is taken."""
    rows = pd.DataFrame({"model": ["a", "a~random", "b"], "ie_bits": [2.0, 0.1, 1.0], "windows": [600, 600, 400]})
    rows = rows.assign(corpus="animal", layer=0, position=8, resolution=pd.NA, ie_std_error=0.1, estimator="predictive")
    table = EMERGENCE.conform(
        pd.concat([rows, rows.assign(estimator="sample-propagation", resolution=0.18, ie_bits=9.0)])
    )
    found = measured_target(table).set_index("model")
    assert found["emergence_bits"].to_dict() == {"a": 2.0, "b": 1.0}
    assert found["emergence_bits_verdict"].to_dict() == {"a": "learned", "b": "no controls"}
    joined = join_target(pd.DataFrame({"model": ["b", "a"]}), measured_target(table, "animal"))
    assert joined["emergence_bits_windows"].tolist() == [400, 600]
    with pytest.raises(InputError, match=r"holds no corpus color; it has animal\."):
        measured_target(table, "color")
    with pytest.raises(InputError, match="holds the estimators mine, nwj, whose bits do not compare"):
        measured_target(pd.concat([rows.assign(estimator=name) for name in ("mine", "nwj")]))


def test_answers_that_exist_already(tmp_path):
    rows = [{"instruction": f"Q{n}", "output": f"A {n}", "generator": "gpt"} for n in range(3)]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    (tmp_path / "reversed.json").write_text(json.dumps(rows[::-1]))
    alpaca, other = read_responses(tmp_path / "alpaca.json"), read_responses(tmp_path / "reversed.json")
    assert alpaca["model"].tolist() == ["gpt"] * 3
    assert alpaca["prompt_id"].tolist() == other["prompt_id"].tolist()[::-1]  # the same prompt, the same id
    table = pd.DataFrame({"model": "m", "prompt_id": [1, 2], "output": ["x", "y"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    assert read_responses(tmp_path / "t.csv")["text"].tolist() == ["x", "y"]


def test_answers_from_a_data_set(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    frame = pd.DataFrame({"model": "m", "prompt_id": ["1", "2"], "output": ["x", "y"]})
    datasets.Dataset.from_pandas(frame).save_to_disk(tmp_path / "set", num_proc=None)
    assert read_responses(f"hf:{tmp_path / 'set'}")["text"].tolist() == ["x", "y"]
    with pytest.raises(InputError, match="could not be read"):
        read_responses("hf:nobody/such-a-data-set-0123")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.csv", "model,prompt_id\nm,1\n", "Answers need the columns"),
        ("a.csv", "model,prompt_id,output\nm,1,\n", "no usable answer"),
        ("a.txt", "x", "ends in"),
        ("a.json", "{", "is not JSON"),
    ],
)
def test_files_that_hold_no_answers(tmp_path, name, content, match):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=match):
        read_responses(tmp_path / name)


def test_a_responses_file_of_another_version(tmp_path):
    from dataclasses import replace

    from extraction.tables import RESPONSES

    write_table(answers(), tmp_path / "a.parquet", replace(RESPONSES, version=99))
    with pytest.raises(InputError, match="responses/99"):
        read_responses(tmp_path / "a.parquet")


def test_answers_are_data_not_markup(capsys):
    from proxy.cli.console import emit

    text = "[red]ignore[/red] [link=http://x]this[/link] ${HOME} ../../etc/passwd"
    emit(pd.DataFrame({"text": [text]}), None)
    assert "[red]ignore[/red] [link=http://x]this[/link]" in capsys.readouterr().out


def test_one_model_that_cannot_be_read_leaves_the_others(reader):
    frame = compute_features(
        pd.concat([answers("few", OPENINGS[:3]), answers("short", ["a"] * 20), answers("m")]), [reader]
    )
    assert frame["model"].tolist() == ["few", "short", "m"]
    small = frame.filter(like="small.")
    assert small.isna().all(axis=1).tolist() == [True, True, False]
    assert frame["behaviour.log_characters"].isna().tolist() == [True, False, False]
    few, short = frame.attrs["remarks"]
    assert few.startswith("few has 3 usable answers")
    assert short.startswith("short: No answer has 8 tokens of the reader gpt2-30k")


def test_the_command_lists_what_it_left_empty(tmp_path, emergence):
    write_table(pd.concat([answers("few", OPENINGS[:3]), answers("m")]), tmp_path / "a.csv")
    done = emergence("features", tmp_path / "a.csv", "--readers", "gpt2-30k", "--out", tmp_path / "f.csv")
    assert done.code == 1
    assert "Left empty: few has 3 usable answers" in done.err
    assert pd.read_csv(tmp_path / "f.csv")["model"].tolist() == ["few", "m"]


def test_two_readers_of_one_name_are_distinguished_or_refused(reader):
    from dataclasses import replace

    with pytest.raises(InputError, match="Two readers have the name gpt2-30k"):
        compute_features(answers(), [reader, replace(reader, name="elsewhere/gpt2-30k")])


@pytest.mark.parametrize("column", ["text", "output"])
def test_csv_keeps_ids_as_written_and_empty_answers(tmp_path, column):
    (tmp_path / "a.csv").write_text(f"model,prompt_id,{column}\nm,007,yes\nm,1e3,\nm,NA,NA\n")
    frame = read_responses(tmp_path / "a.csv")
    assert frame["prompt_id"].tolist() == ["007", "1e3", "NA"]
    assert frame["text"].tolist() == ["yes", "", "NA"]
    (tmp_path / "b.csv").write_text(f"model,prompt_id,{column},error\nm,1,,HTTP 500\nm,2,,\nm,3,x,\n")
    assert read_responses(tmp_path / "b.csv")["text"].isna().tolist() == [True, False, False]


def test_folders_of_one_name_are_not_taken_for_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emergence was measured of a/tiny alone, which tables then call tiny."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name / "tiny").mkdir(parents=True)
    measured = pd.DataFrame({"model": ["tiny"], "path": [str(tmp_path / "a" / "tiny")]})
    assert names_measured(["./a/tiny/"], measured) == {"./a/tiny/": "tiny"}
    with pytest.raises(InputError, match="No emergence was measured for b/tiny"):
        names_measured(["a/tiny", "b/tiny"], measured)
    with pytest.raises(InputError, match="a/tiny and b/tiny are both tiny of the other table by their names"):
        names_measured(["a/tiny", "b/tiny"], measured.drop(columns="path"))
    with pytest.raises(InputError, match="tiny and x/y/tiny are both tiny"):
        names_measured(["tiny", "x/y/tiny"], measured)
