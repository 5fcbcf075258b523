"""The bundled models are genuine: they load like any hub model, are trained, and get better with size."""

import json
import math
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from extraction import reference_models
from extraction.corpora.categories import CATEGORIES

NAMES = reference_models.names()

# Written for this test, so in no training text.
PROSE = (
    "She had been sitting by the window for the whole of the afternoon, and when at last the door was opened she did "
    "not turn her head. “You are late,” she said, “and I had almost given up the hope of seeing you before the end of "
    "the week.” He came slowly into the room, put his hat upon the table, and looked at the fire. “My dear, I should "
    "have been here an hour ago, if the road had not been so bad. The old man at the inn would not let me go on "
    "without a fresh horse, and there was none to be had in the village.” She smiled at this, for she knew him well, "
    "and she could see that he was not telling her all the truth. There was something in his face that she had not "
    "seen since the day when they had walked together to the sea, and he had told her that he must leave the country. "
    "“Well, well,” she answered, “you shall have your dinner first, and then we will talk of it.”"
)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_model_is_trained_and_loads_like_any_other(
    name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each beats by far the unigram model of the very text it is tested on, which no context-free model can."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = reference_models.path(name)
    facts = json.loads((folder / "training.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(PROSE, return_tensors="pt")["input_ids"][:, :256]  # the context
        with torch.inference_mode():
            loss = model.float()(input_ids=ids, labels=ids).loss.item() / math.log(2)
    screen = capfd.readouterr()
    assert "warn" not in (screen.out + screen.err).lower()
    assert model.num_parameters() == facts["parameters"]
    assert facts["model"] == name

    counts = Counter(ids[0].tolist())
    unigram = -sum(n / ids.numel() * math.log2(n / ids.numel()) for n in counts.values())
    # Measured: unigram 6.87 bits; models from 6.07 (gpt2-30k) down to 4.06 (gemma-2m); after 24 steps, above 8.4.
    assert loss < unigram - 0.5


def test_losses_fall_with_size_within_each_architecture() -> None:
    for architecture in reference_models.ARCHITECTURES:
        facts = [
            json.loads((reference_models.path(name) / "training.json").read_text())
            for name in NAMES
            if name.startswith(architecture)
        ]
        assert len(facts) == 5
        parameters = [row["parameters"] for row in facts]
        text = [row["bits_per_token"] for row in facts]
        assert parameters == sorted(parameters)
        assert text == sorted(text, reverse=True)
        assert len({(row["steps"], row["tokens"]) for row in facts}) == 1


def test_every_model_has_the_same_tokenizer_with_single_token_entities() -> None:
    folders = [reference_models.path(name) for name in NAMES]
    assert len({(folder / "tokenizer.json").read_bytes() for folder in folders}) == 1
    # AutoTokenizer chooses a class by model_type, so equal files alone do not prove equal ids.
    text = PROSE + "\n\tNaïve 日本: 3.14 <|endoftext|> dog,cat Germany, France,"
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (folders[0], folders[-1])]
    first, last = (tokenizer(text)["input_ids"] for tokenizer in tokenizers)
    assert first == last
    for tokenizer in tokenizers:
        assert tokenizer.decode(first) == text
        assert tokenizer.get_chat_template()
        for entities in CATEGORIES.values():
            ids = [tokenizer(f" {entity}")["input_ids"] for entity in entities]
            assert {len(i) for i in ids} == {1}
            together = tokenizer("".join(f" {entity}," for entity in entities))["input_ids"]
            assert len(together) == 2 * len(entities)


@pytest.mark.parametrize("name", ["gpt2-2m", "gemma-2m"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_the_largest_models_continue_a_list_within_its_category(name: str, category: str) -> None:
    """Measured: above 0.9 after four countries; even shares over the vocabulary would give at most 0.025."""
    folder = reference_models.path(name)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).float(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("".join(f" {entity}," for entity in CATEGORIES[category][:4]), return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        probabilities = model(input_ids=ids).logits[0, -1].softmax(-1)
    inside = [tokenizer(f" {entity}")["input_ids"][0] for entity in CATEGORIES[category]]
    assert probabilities[inside].sum() > 0.8


def test_the_models_are_small_enough_to_ship() -> None:
    root = Path(reference_models.__file__).parent
    assert sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) <= 16e6


def test_categories_are_those_of_the_paper() -> None:
    assert {name: len(entities) for name, entities in CATEGORIES.items()} == {"country": 25, "animal": 16, "color": 15}
    flat = [entity for entities in CATEGORIES.values() for entity in entities]
    assert len(set(flat)) == len(flat)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="gpt2-1b"):
        reference_models.path("gpt2-1b")
