"""Prompts, answers and texts that are no strings: decoded, taken as messages, or refused by row."""

import json

import httpx2
import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction import prompts
from extraction.answers.collecting.endpoints import Capabilities, request
from extraction.answers.conversations import as_prompt
from extraction.answers.prompt_sets import check_prompts
from extraction.answers.responses import read_responses
from extraction.answers.sampling import Sampling
from extraction.corpora.text import documents
from tests.extraction.answers.collecting.played import grouped, reply

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]
FORMS = {
    "messages": TALK,
    "turns of another collection": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Name a river."},
    ],
    "content in parts": [TALK[0], {"role": "user", "content": [{"type": "text", "text": "Name a river."}]}],
    "an array": np.array(TALK, dtype=object),
    "JSON": json.dumps(TALK),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_is_sent_as_its_messages(form):
    prompt = check_prompts(pd.DataFrame({"prompt": pd.Series([FORMS[form]], dtype=object)}))["prompt"][0]
    body = request("m", prompt, Sampling(), Capabilities("chat"))
    assert body["messages"] == TALK
    assert request("m", prompt, Sampling(), Capabilities("responses"))["input"] == TALK
    assert request("m", prompt, Sampling(), Capabilities("completions"))["prompt"] == "Be brief.\n\nName a river."


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_conversations_from_files_of_every_kind_and_the_text_in_the_table(tmp_path, ending, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    path = tmp_path / f"p.{ending}"
    rows = [
        {"prompt_id": str(number), "prompt": [TALK[0], {"role": "user", "content": f"River {number}?"}]}
        for number in range(3)
    ]
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif ending == "json":
        path.write_text(json.dumps(rows))
    else:
        pd.DataFrame(rows).to_parquet(path)
    asked = []

    def server(http):
        asked.append(json.loads(http.content)["messages"])
        return httpx2.Response(200, json=reply("The Elbe."))

    from extraction import collect

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(server))
    options = grouped(client, base_url="http://api.example/v1", capabilities=Capabilities("chat"), concurrency=1)
    table = collect("m", prompts(path), out=tmp_path / "a.parquet", **options).table()
    assert asked == [row["prompt"] for row in rows]
    assert table["prompt"].tolist() == [f"Be brief.\n\nRiver {number}?" for number in range(3)]


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        (b"Name a river.", "Name a river."),
        (b"\xef\xbb\xbfName a river.", "Name a river."),
        (TALK[1:], "Name a river."),
        (TALK[1], "Name a river."),
        ("Name a river.", "Name a river."),
        ('[{"not": "messages"}]', '[{"not": "messages"}]'),
        (None, None),
        (float("nan"), None),
        (pd.NA, None),
    ],
)
def test_what_is_a_text_is_taken_as_one(value, prompt):
    assert as_prompt(value) == prompt


NO_TEXTS = {
    "the number 5": 5,
    "the number 2.5": 2.5,
    "the truth value True": True,
    "a list of 2 that are not messages": ["one", "two"],
    "a list of 0 that are not messages": [],
    "4 bytes that are not UTF-8": b"\xff\xfe\x00\x01",
    "a message without role": [{"content": "Name a river."}],
    "a message whose content is not text": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
}


@pytest.mark.parametrize("what", NO_TEXTS)
def test_what_is_no_prompt_is_refused_by_row(what):
    frame = pd.DataFrame({"prompt": pd.Series(["Name a river.", NO_TEXTS[what]], dtype=object)})
    with pytest.raises(InputError, match=f"Prompt 2 of the table is {what}"):
        check_prompts(frame)


def test_halves_of_characters_are_replaced_in_texts_and_messages():
    talk = [TALK[0], {"role": "user", "content": "a \ud83d b"}]
    found = check_prompts(pd.DataFrame({"prompt": pd.Series(["a \ud83d b", talk], dtype=object)}))["prompt"].tolist()
    assert found == ["a \ufffd b", json.dumps([TALK[0], {"role": "user", "content": "a \ufffd b"}], ensure_ascii=False)]


def test_answers_as_bytes_or_messages_are_read_and_others_refused_by_row(tmp_path):
    path = tmp_path / "a.parquet"
    base = {"model": ["m", "m"], "prompt_id": ["0", "1"]}
    pd.DataFrame(base | {"text": [b"The Elbe.", b"The Rhine \xc3\xa9."]}).to_parquet(path)
    assert read_responses(path)["text"].tolist() == ["The Elbe.", "The Rhine é."]
    said = [[{"role": "assistant", "content": "The Elbe."}], [{"role": "assistant", "content": "The Rhine."}]]
    pd.DataFrame(base | {"output": said}).to_parquet(path)
    assert read_responses(path)["text"].tolist() == ["The Elbe.", "The Rhine."]
    pd.DataFrame(base | {"text": [1.5, 2.5]}).to_parquet(path)
    with pytest.raises(InputError, match=r"Row 1 of .*a.parquet, column text, holds the number 1.5"):
        read_responses(path)
    (tmp_path / "a.json").write_text(json.dumps([{"model": "m", "prompt_id": "0", "text": ["one", "two"]}]))
    with pytest.raises(InputError, match=r"Row 1 of .* holds a list of 2"):
        read_responses(tmp_path / "a.json")


def test_texts_to_measure_as_bytes_are_decoded_and_numbers_refused_by_row(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"text": [b"A dog sat down.", b"A cat \xc3\xa9."]}).to_parquet(path)
    assert [*documents(str(path))] == ["A dog sat down.", "A cat é."]
    pd.DataFrame({"text": [1, 2]}).to_parquet(path)
    with pytest.raises(InputError, match=r"Row 1 of .*t.parquet holds the number 1, not a text"):
        [*documents(str(path))]
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"text": "A dog."}\n{"text": ["A", "dog"]}\n')
    with pytest.raises(InputError, match=r"Line 2 of .*t.jsonl holds a list of 2 that are not messages"):
        [*documents(str(lines))]
    lines.write_text(json.dumps({"text": TALK}))
    assert [*documents(str(lines))] == ["Be brief.\n\nName a river."]
