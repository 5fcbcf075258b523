import json

import pandas as pd
import pytest

from estimators.base import InputError
from extraction import prompts
from extraction.answers.prompt_sets import listed_entities


def test_the_built_in_sets():
    assert len(prompts("demo")) == 200
    assert len(prompts("questions")) == 60
    lists = prompts("lists")
    shots = lists["prompt"].map(lambda prompt: len(listed_entities(prompt)[1])).value_counts()
    assert shots.index.sort_values().tolist() == list(range(1, 13))
    assert set(shots) == {24}
    for name in ("demo", "questions", "lists"):
        pd.testing.assert_frame_equal(prompts(name), prompts(name))
        assert prompts(name)["prompt_id"].is_unique


def test_a_line_of_a_file_ends_where_its_text_says_so(tmp_path):
    """Some characters count as ends of lines in Python, and stand inside texts; and files come in pieces."""
    texts = [f"one\u2028two\x85 {number}" for number in range(2500)]
    for name, lines in (("p.txt", texts), ("p.jsonl", [json.dumps({"prompt": t}, ensure_ascii=False) for t in texts])):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        found = prompts(tmp_path / name)
        assert found["prompt"].tolist() == texts
        assert found["prompt_id"].tolist() == [str(number) for number in range(2500)]


@pytest.mark.parametrize("ending", ["txt", "jsonl", "json", "csv", "parquet"])
def test_every_kind_of_file(tmp_path, ending):
    frame = pd.DataFrame({"prompt": ["One, with a comma", "Zwei"]})
    path = tmp_path / f"p.{ending}"
    if ending == "txt":
        path.write_text("One, with a comma\n\nZwei\n", encoding="utf-8")
    elif ending == "jsonl":
        path.write_text("\n".join(json.dumps({"prompt": text}) for text in frame["prompt"]))
    elif ending == "json":
        frame.to_json(path, orient="records")
    elif ending == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    read = prompts(path)
    assert read["prompt"].tolist() == frame["prompt"].tolist()
    assert read["prompt_id"].tolist() == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("none.txt", None, "No prompts at"),
        ("demos", None, "No built-in prompts called demos"),
        ("p.txt", "\n\n", "holds no prompts"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "  "}', "Prompt 2 of .* is empty"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "Line 2 of .* is not JSON"),
        ("p.jsonl", '"a"', "must be an object"),
        ("p.csv", "prompt_id,prompt\nx,a\nx,b\n", "'x' occurs more than once"),
        ("p.csv", "id,question\nx,a\n", "need a column prompt"),
        ("p.csv", "prompt_id,prompt\nx,a\n,b\n", "without prompt_id"),
    ],
)
def test_bad_prompts(tmp_path, name, text, match):
    path = tmp_path / name if "." in name else name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=match):
        prompts(path)


@pytest.mark.parametrize(
    ("prompt", "listed"),
    [
        ("The list is: dog, cat,", ("animal", ("dog", "cat"))),
        ("Go on:\nred,", ("color", ("red",))),
        ("dog, Germany,", None),
        ("dog, cat", None),
        ("", None),
        (",", None),
    ],
)
def test_lists_are_known_by_their_content(prompt, listed):
    assert listed_entities(prompt) == listed


def test_ids_in_csv_stay_as_they_are_written(tmp_path):
    (tmp_path / "p.csv").write_text("prompt_id,prompt\n007,1\n08,NA\n")
    read = prompts(tmp_path / "p.csv")
    assert read["prompt_id"].tolist() == ["007", "08"]
    assert read["prompt"].tolist() == ["1", "NA"]
