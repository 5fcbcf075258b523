"""Answers of open models: the table of an API model, reproducible, stopped where the model stops."""

import json
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch

from estimators.base import InputError
from extraction.answers.generation import _together, generate_answers
from extraction.answers.prompt_sets import prompts
from extraction.answers.sampling import Sampling
from extraction.models.load import LanguageModel
from extraction.tables import RESPONSES

ASKED = pd.DataFrame(
    {"prompt_id": ["b", "a", "c"], "prompt": [" dog, cat,", " red", " Germany, France, Spain, Italy,"]}
)


def test_the_table_is_that_of_responses(gpt2: LanguageModel) -> None:
    told: list[tuple[int, int]] = []
    answers = generate_answers(
        gpt2,
        ASKED,
        sampling=Sampling(max_tokens=5),
        samples=2,
        batch=4,
        progress=lambda done, total: told.append((done, total)),
    )
    assert list(answers.columns) == [*RESPONSES.columns, "sampling"]
    kinds = {name: str(kind) for name, kind in answers.dtypes.items()}
    assert kinds == {**RESPONSES.columns, "sampling": "str"}
    assert list(zip(answers["prompt_id"], answers["sample"], strict=True)) == [
        ("b", 0), ("b", 1), ("a", 0), ("a", 1), ("c", 0), ("c", 1)
    ]  # fmt: skip
    assert (answers["prompt"] == ASKED["prompt"].repeat(2).to_numpy()).all()
    assert (answers["model"] == gpt2.name).all()
    assert answers["prompt_tokens"].tolist() == [4, 4, 1, 1, 8, 8]
    assert answers["completion_tokens"].between(0, 5).all()
    assert ((answers["completion_tokens"] == 5) == (answers["finish_reason"] == "length")).all()
    assert (answers["latency_s"] > 0).all()
    assert told == [(4, 6), (6, 6)]


def test_log_probabilities_are_those_of_the_plain_model(gpt2: LanguageModel) -> None:
    answers = generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=5, temperature=2.0, logprobs=3), samples=2)
    for prompt, text, raw in zip(answers["prompt"], answers["text"], answers["logprobs"], strict=True):
        entries = json.loads(raw)
        assert "".join(entry["token"] for entry in entries) == text or "\ufffd" in text
        row = gpt2.tokenizer(prompt)["input_ids"]
        for entry in entries:
            with torch.no_grad():
                said = torch.log_softmax(gpt2.model(torch.tensor([row])).logits[0, -1].double(), -1)
            likeliest, ids = said.topk(3)
            wanted = dict(zip((gpt2.tokenizer.decode([i]) for i in ids.tolist()), likeliest.tolist(), strict=True))
            # float32 with padding and a cache against float64 of the same float32 logits
            assert entry["top"] == pytest.approx(wanted, abs=1e-4)
            token = gpt2.tokenizer(entry["token"], add_special_tokens=False)["input_ids"]
            if "\ufffd" in entry["token"] or len(token) > 1:
                break  # part of a character: the token cannot be read back from its text
            assert entry["logprob"] == pytest.approx(float(said[token[0]]), abs=1e-4)
            row.append(token[0])
    assert generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=2, logprobs=0))["logprobs"].isna().all()


def test_greedy_answers_are_the_likeliest_tokens(gpt2: LanguageModel) -> None:
    answers = generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=6, temperature=0))
    for prompt, text in zip(answers["prompt"], answers["text"], strict=True):
        row = gpt2.tokenizer(prompt)["input_ids"]
        start = len(row)
        while len(row) < start + 6:  # one prompt at a time, without padding or cache
            with torch.no_grad():
                row.append(int(gpt2.model(torch.tensor([row])).logits[0, -1].argmax()))
            if row[-1] == gpt2.tokenizer.eos_token_id:
                break
        assert text == gpt2.tokenizer.decode(row[start:], skip_special_tokens=True)


def test_the_seed_governs_the_samples(gpt2: LanguageModel) -> None:
    before = torch.random.get_rng_state()
    texts = [
        generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=8, seed=seed), samples=4)["text"].tolist()
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0][:4])) > 1  # samples of one prompt differ
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's random numbers change


def test_sampling_follows_the_model(gpt2: LanguageModel) -> None:
    one = pd.DataFrame({"prompt_id": ["a"], "prompt": [" dog, cat,"]})
    answers = generate_answers(gpt2, one, sampling=Sampling(max_tokens=1), samples=2000, batch=500)
    with torch.no_grad():
        row = torch.tensor([gpt2.tokenizer(" dog, cat,")["input_ids"]])
        share = torch.softmax(gpt2.model(row).logits[0, -1], -1)
    shares, tokens = share.topk(3)
    for expected, token in zip(shares.tolist(), tokens.tolist(), strict=True):
        seen = (answers["text"] == gpt2.tokenizer.decode([token])).mean()
        # Binomial: standard deviation sqrt(p (1 - p) / 2000); five of them, the seed being fixed.
        assert abs(seen - expected) < 5 * (expected * (1 - expected) / 2000) ** 0.5


def test_an_answer_ends_where_the_model_ends_it(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=1, temperature=0))
    end = gpt2.tokenizer(first["text"][0], add_special_tokens=False)["input_ids"]
    assert len(end) == 1
    monkeypatch.setattr(gpt2.model.generation_config, "eos_token_id", end)
    answers = generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=6, temperature=0))
    assert (answers["finish_reason"][0], answers["completion_tokens"][0], answers["text"][0]) == ("stop", 0, "")


def test_a_chat_template_is_used(gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=1))
    monkeypatch.setattr(gpt2.tokenizer, "chat_template", "{{ messages[0]['content'] }}{{ messages[0]['content'] }}")
    twice = generate_answers(gpt2, ASKED, sampling=Sampling(max_tokens=1))
    assert (twice["prompt_tokens"] == 2 * plain["prompt_tokens"]).all()


def test_the_built_in_prompts_are_answered(gpt2: LanguageModel) -> None:
    asked = prompts("lists").head(20)
    assert len(generate_answers(gpt2, asked, sampling=Sampling(max_tokens=2))) == 20


LONG = ASKED.assign(prompt=[" dog, cat," * 2, " red", " red"])


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (pd.DataFrame({"prompt": ["a"]}), {}, "prompt_id missing, found prompt"),
        (ASKED, {"samples": 0}, "at least 1; got 0 and 32"),
        (ASKED, {"sampling": Sampling(temperature=None)}, "needs a temperature, and takes neither"),
        (ASKED, {"sampling": Sampling(system="Be brief.")}, "put a system message into the prompts"),
        (
            LONG,
            {"sampling": Sampling(max_tokens=60)},
            "Prompt b has 8 tokens; with 60 of answer it exceeds the context",
        ),
        (pd.DataFrame({"prompt_id": ["x"], "prompt": [""]}), {}, "Prompt 1 of the table is empty"),
    ],
)
def test_prompts_that_cannot_be_answered(
    gpt2: LanguageModel, frame: pd.DataFrame, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generate_answers(gpt2, frame, **options)


def test_a_conversation_is_answered_as_one(gpt2, monkeypatch):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a dog."}]
    asked = pd.DataFrame({"prompt_id": ["0"], "prompt": pd.Series([talk], dtype=object)})
    plain = pd.DataFrame({"prompt_id": ["0"], "prompt": ["Be brief.\n\nName a dog."]})
    answers = generate_answers(gpt2, asked, sampling=Sampling(max_tokens=4))
    assert answers["prompt"].tolist() == plain["prompt"].tolist()
    assert answers["text"].tolist() == generate_answers(gpt2, plain, sampling=Sampling(max_tokens=4))["text"].tolist()
    seen = []

    def template(messages, **_):
        seen.append(messages)
        return "Name a dog."

    monkeypatch.setattr(gpt2.tokenizer, "chat_template", "{{ messages }}")
    monkeypatch.setattr(gpt2.tokenizer, "apply_chat_template", template)
    generate_answers(gpt2, asked, sampling=Sampling(max_tokens=4))
    assert seen == [talk]


def test_prompts_that_are_numbers_are_refused_by_row(gpt2):
    asked = pd.DataFrame({"prompt_id": ["0"], "prompt": [5]})
    with pytest.raises(InputError, match="Prompt 1 of the table is the number 5"):
        generate_answers(gpt2, asked)


@pytest.mark.parametrize(("kind", "together"), [("rwkv", "alone"), ("mamba2", "padded"), ("llama", "padded")])
def test_answers_do_not_depend_on_what_is_answered_beside_them(gpt2: LanguageModel, kind: str, together: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": gpt2.vocabulary, "bos_token_id": 0,
             "eos_token_id": None, "pad_token_id": 0}  # fmt: skip
    more: dict[str, dict[str, Any]] = {
        "rwkv": {"attention_hidden_size": 16, "intermediate_size": 32},
        "mamba2": {"num_heads": 4, "head_dim": 8, "n_groups": 1, "state_size": 4, "chunk_size": 16},
        "llama": {"num_attention_heads": 2, "intermediate_size": 32},
    }
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape, **more[kind])).eval()
    for weight in network.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5)
    model = replace(gpt2, model=network, name=kind, context=64)
    assert _together(model) == together
    told: list[int] = []
    answers = generate_answers(
        model,
        ASKED,
        sampling=Sampling(max_tokens=5, temperature=0),
        samples=2,
        progress=lambda done, total: told.append(done),
    )
    assert told == ([1, 2, 3, 4, 5, 6] if together == "alone" else [6])
    for name, text in zip(answers["prompt_id"], answers["text"], strict=True):
        alone = generate_answers(
            model, ASKED[ASKED["prompt_id"] == name], sampling=Sampling(max_tokens=5, temperature=0)
        )
        assert text == alone["text"].item()


def test_a_model_that_reads_padding_is_asked_in_equal_lengths(
    gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = gpt2.model.generate
    monkeypatch.setattr(
        gpt2.model,
        "generate",
        lambda **given: generate(**given | {"attention_mask": torch.ones_like(given["input_ids"])}),
    )
    assert _together(gpt2) == "equal"
    told: list[int] = []
    generate_answers(
        gpt2, ASKED, sampling=Sampling(max_tokens=2), samples=2, progress=lambda done, total: told.append(done)
    )
    assert told == [2, 4, 6]
