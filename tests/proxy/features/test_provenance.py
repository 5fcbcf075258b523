"""How answers came about stays with features and proxy; what does not compare is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction import load_model
from extraction.answers.sampling import Sampling
from proxy.features.provenance import differences, fingerprint, provenance_of, read_provenance
from proxy.features.table import compute_features
from proxy.regression.card import card
from proxy.regression.proxy import fit_proxy


def answers(
    count: int = 300, samples: int = 1, *, start: int = 0, length: int | None = None, **columns: object
) -> pd.DataFrame:
    """Answers of one model, of random length unless it is given."""
    rng = np.random.default_rng(start)
    rows = [
        {"prompt_id": str(n), "prompt": f"Question {n}?", "text": "word " * int(rng.integers(20, 400))}
        for n in range(start, start + count)
        for _ in range(samples)
    ]
    frame = pd.DataFrame(rows).assign(model="m", **columns)
    return frame if length is None else frame.assign(text=frame["text"].str[:length])


KNOWN = provenance_of(answers(), {"gpt2-30k": "ab"})


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        (answers(), None),
        (answers(295), None),  # 5 of 300 were never answered by whoever published them
        (answers(start=300), "other prompts (300, of which about 0%"),
        (answers(150), "other prompts (150"),
        (answers(300, 3), "3 samples a prompt, the references 1; keep 1 of each (features --samples 1)"),
        (answers(length=300), "answers that end at 300 characters"),
    ],
)
def test_other_prompts_samples_and_lengths_are_refused(other: pd.DataFrame, refused: str | None) -> None:
    found, said = differences([KNOWN], provenance_of(other, {"gpt2-30k": "ab"}))
    assert [sentence for sentence in found if refused is None or refused not in sentence] == []
    assert bool(found) == (refused is not None)
    assert said == (["asked 295 prompts that are nearly those of the references"] if len(other) == 295 else [])


def test_long_answers_are_refused_until_they_are_cut_like_the_references() -> None:
    cut = provenance_of(answers(length=300), {})
    assert cut.characters == 300
    long = answers()
    (sentence,), _ = differences([cut], provenance_of(long, {}))
    assert "cut them there (features --characters 300)" in sentence
    assert differences([cut], provenance_of(long.assign(text=long["text"].str[:300]), {}, characters=300)) == ([], [])


def test_the_share_in_common_is_estimated_within_what_32_hashes_tell() -> None:
    """Of 300 and 300 prompts 150 are shared, a third of all: 32 hashes tell that to within 3 x sqrt(2/9 / 32) = .25."""
    (sentence,), _ = differences([KNOWN], provenance_of(answers(start=150), {"gpt2-30k": "ab"}))
    share = int(sentence.split("about ")[1].split("%")[0]) / 100
    assert share == pytest.approx(1 / 3, abs=0.25)


def test_other_settings_and_readers_are_refused() -> None:
    asked = {"sampling": Sampling(max_tokens=64).settings}
    known = provenance_of(answers(**asked), {"gpt2-30k": "ab"})
    other = replace(known, sampling=json.loads(Sampling(max_tokens=256).settings), readers={"gpt2-30k": "cd"})
    refused, _ = differences([known], other)
    assert refused == [
        "max_tokens 256, the references 64; ask the model again with theirs",
        "a reader gpt2-30k with other weights; read both with one",
    ]
    server = replace(known, sampling=json.loads(Sampling(max_tokens=64, temperature=None).settings))
    assert differences([known], server) == ([], ["temperature left to the server on one side only"])
    assert differences([known], KNOWN)[1] == ["how answers were sampled is not recorded on one side"]


def test_it_is_read_as_it_was_written_and_nothing_else_is() -> None:
    assert read_provenance(KNOWN.dumps()) == KNOWN
    with pytest.raises(InputError, match="holds 'x', not what `emergence features` writes"):
        read_provenance("x")


def test_a_fingerprint_tells_weights_and_not_copies_apart() -> None:
    one = load_model("gpt2-30k", device="cpu")
    assert fingerprint(one) == fingerprint(load_model("gpt2-30k", device="cpu")) != fingerprint(load_model("gpt2-90k"))
    assert fingerprint(replace(one, prefix=(0,))) != fingerprint(one)  # it then reads otherwise
    with __import__("torch").no_grad():
        next(one.model.parameters())[0, 0] += 1
    assert fingerprint(one) != fingerprint(load_model("gpt2-30k", device="cpu"))


def references() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    words = [f"{a}{b}" for a in "abcdefgh" for b in "ijklmnop"]
    parts = [
        answers(40).assign(
            model=f"m{place}", text=[" ".join(rng.choice(words[: 5 + 5 * place], 30)) for _ in range(40)]
        )
        for place in range(9)
    ]
    return compute_features(pd.concat(parts), []).assign(score=np.arange(9.0))


def test_a_proxy_keeps_how_its_references_were_asked_and_refuses_others() -> None:
    table = references()
    proxy = fit_proxy(table, target="score", candidate="best_feature")
    assert "Answers: 40 prompts" in card(proxy)
    other = compute_features(answers(40, start=40).assign(model="new"), [])
    with pytest.raises(InputError, match="new was not asked and read as this proxy's references were: other prompts"):
        proxy.predict(other)
    unknown = proxy.predict(table.head(1).drop(columns="provenance"))
    assert "how its answers were made is not recorded" in unknown["remarks"].item()
    assert "not recorded" not in proxy.predict(table.head(1))["remarks"].item()
    joined = fit_proxy(table.drop(columns="provenance"), target="score", candidate="best_feature")  # by hand
    assert "how the references' answers were made is not recorded" in joined.predict(other)["remarks"].item()


def test_references_that_were_asked_otherwise_are_no_references() -> None:
    table = references()
    odd = compute_features(answers(40, start=40).assign(model="odd"), []).assign(score=9.0)
    with pytest.raises(InputError, match="References were not asked and read in the same way: odd has other prompts"):
        fit_proxy(pd.concat([table, odd], ignore_index=True), target="score")


def test_references_that_another_reader_read_are_named() -> None:
    table = references().assign(**{"small.one.nll": np.arange(9.0)})
    marks = [replace(read_provenance(text), readers={"one": "ab"}).dumps() for text in table["provenance"]]
    known = table.assign(provenance=marks)
    assert not any("did not read" in remark for remark in fit_proxy(known, target="score", candidate="mean").remarks)
    known.loc[[2, 5], "provenance"] = table.loc[[2, 5], "provenance"]
    assert "one did not read the answers of m2, m5" in fit_proxy(known, target="score", candidate="mean").remarks
