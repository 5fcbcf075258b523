"""Free answers in a bank: what models answered tells their emergence, and what does not compare is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from proxy.banks.answers import answer_references, features_alike, prompts_of
from proxy.banks.bank import SHIPPED, Bank, load_bank
from proxy.banks.building import build_bank, merge_banks
from proxy.banks.estimating import estimate_from_answers
from proxy.banks.report import card, write_estimate
from proxy.banks.targets import without_model
from proxy.features.provenance import COLUMN, read_provenance
from proxy.features.readers import load_reader
from proxy.features.table import compute_features
from tests.proxy.banks.conftest import NAMES

Table = Callable[..., pd.DataFrame]
FIXED = "best_feature"  # choosing among all candidates takes a minute, and is tested where they are
WORDS = [
    "the", "old", "house", "stood", "near", "a", "river", "where", "children", "played", "all", "day", "and", "nobody",
    "came",
]  # fmt: skip
PROMPTS = 12
READER = "gpt2-30k"


def answers(
    names: list[str], *, samples: int = 1, prompts: int = PROMPTS, first: int = 0, temperature: float = 1.0
) -> pd.DataFrame:
    """Answers of models `FAMILY-NUMBER[@STAGE]`: two more words by number, so that length tells emergence."""
    rows = []
    for name in names:
        number = int(name.partition("-")[2].partition("@")[0])
        for prompt in range(first, first + prompts):
            for sample in range(samples):
                rng = np.random.default_rng([number, prompt, sample, len(name)])
                text = " ".join(rng.choice(WORDS, 20 + 2 * number))
                rows.append({"model": name, "prompt_id": str(prompt), "prompt": f"Tell {prompt}.", "sample": sample,
                             "text": text, "sampling": json.dumps({"temperature": temperature})})  # fmt: skip
    return pd.DataFrame(rows)


def _build(measured: pd.DataFrame, said: list[pd.DataFrame], folder: Path, name: str = "bank") -> Bank:
    measured.to_parquet(folder / f"{name}.parquet")
    paths = [folder / f"{name}-said-{number}.parquet" for number in range(len(said))]
    for path, one in zip(paths, said, strict=True):
        one.to_parquet(path)
    sources = [*paths, folder / f"{name}.parquet"]  # in any order
    return build_bank(sources, folder / name, name=name, licence="", provenance="")


@pytest.fixture(scope="module", autouse=True)
def _small_reader() -> Iterator[None]:
    """The smallest reader, which sees enough and costs a tenth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.banks.answers.DEFAULT_READERS", (READER,))
        yield


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory, table: Table) -> Bank:
    return _build(table(NAMES), [answers(NAMES[:6]), answers(NAMES[6:])], tmp_path_factory.mktemp("answered"))


def test_a_bank_keeps_what_the_features_command_would_give(bank: Bank) -> None:
    kept = bank.answer_features().set_index("model")
    assert set(kept.index) == set(NAMES)
    made = compute_features(answers(["one-1"]), [load_reader(READER)]).iloc[0]
    shown = made.drop("model").dropna()
    assert {"behaviour.", "small.", "words."} <= {f"{name.partition('.')[0]}." for name in shown.index}
    assert kept.loc["one-1", COLUMN] == shown.pop(COLUMN)
    assert kept.loc["one-1", shown.index].astype(float).to_numpy() == pytest.approx(shown.astype(float).to_numpy())
    assert (bank.folder / "answers.parquet").stat().st_size < 100_000  # for 14 models and 2,400 words


def test_what_models_answer_tells_their_emergence(bank: Bank, table: Table, tmp_path: Path) -> None:
    own = table(["three-4"])
    found = estimate_from_answers(bank, answers(["three-4"]), candidate=FIXED)
    true = own[own["layer"] >= 0].groupby("layer")["ie_bits"].first()
    assert found.peak["lower"] < true[2] < found.peak["upper"]
    assert found.peak["estimate"] == pytest.approx(true[2], abs=0.2)
    assert set(found.table["how"]) == {"estimated"}
    assert (found.table["proxy_error"] < found.table["mean_error"]).all()
    assert found.measured.empty
    said = "nothing of three-4 was measured, as only its answers are known; to measure the emergence of its output, ask"
    assert any(remark.startswith(said) for remark in found.remarks)
    written = write_estimate(found, tmp_path / "made")
    assert written == ["card.md", "estimate.csv", "profile.png"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == written
    assert "From what the model answered" in card(found)
    assert "Measured: emergence of the output" not in card(found)


def test_a_model_of_the_bank_leaves_with_its_run_and_is_compared(bank: Bank) -> None:
    found = estimate_from_answers(bank, answers(["one-1"]), candidate=FIXED)
    assert any("one-1 is in the bank: its whole run is left out" in remark for remark in found.remarks)
    assert found.peak["truth"] == pytest.approx(found.peak["estimate"], abs=0.3)
    assert found.proxy is not None
    assert not {"one-1", "one-1@25"} & set(found.proxy.references["model"])
    assert set(without_model(bank, "one-1")[0].answers["model"]) == set(NAMES) - {"one-1", "one-1@25"}


def test_of_more_samples_as_many_are_read_as_of_the_references(bank: Bank) -> None:
    more = features_alike(bank, answers(["three-4"], samples=3))
    pd.testing.assert_frame_equal(more, features_alike(bank, answers(["three-4"])))


def test_how_answers_were_sampled_may_be_unknown(bank: Bank) -> None:
    found = features_alike(bank, answers(["three-4"]).drop(columns="sampling"))
    assert found.attrs["remarks"] == ["how answers were sampled is not recorded on one side"]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"first": 50}, r"did not answer as the references of bank did, to 12 prompts of hash \w+: other prompts \(12"),
        ({"temperature": 0.2}, "temperature 0.2, the references 1.0; ask the model again with theirs"),
    ],
)
def test_answers_to_other_prompts_or_settings_are_refused(bank: Bank, other: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        estimate_from_answers(bank, answers(["three-4"], **other), candidate=FIXED)  # type: ignore[arg-type]


def test_several_models_are_refused(bank: Bank) -> None:
    with pytest.raises(InputError, match="holds 2 models, three-3, three-4"):
        estimate_from_answers(bank, answers(["three-3", "three-4"]))


def test_a_bank_without_answers_says_which_command_gives_them(built: Path) -> None:
    bank = load_bank(built)
    assert bank.answers.empty
    said = r"holds no answers of its references; .*emergence answer MODEL.*emergence bank build"
    with pytest.raises(InputError, match=said):
        estimate_from_answers(bank, answers(["three-4"]))


def test_models_that_did_not_answer_are_no_references(table: Table, tmp_path: Path) -> None:
    some = _build(table(NAMES), [answers(NAMES[:9])], tmp_path)
    references = answer_references(some, "python-docs")
    assert set(references["model"]) == set(NAMES[:9])
    assert references.attrs["remarks"] == [
        "no references, as their answers are not in the bank: one-1@25, two-2@25, two-3, two-4, two-5"
    ]
    with pytest.raises(InputError, match="8 independent runs of bank remain as references of one-1 on python-docs"):
        estimate_from_answers(some, answers(["one-1"]))


def test_answers_that_a_bank_cannot_hold_are_refused(table: Table, tmp_path: Path) -> None:
    two, known = table(["one-1", "one-2"]), answers(["one-1", "one-2"])
    cases = {
        "holds answers of three-1, which was not measured": [answers(["one-1", "three-1"])],
        "one-1 answers in .*said-0.parquet and in .*said-1.parquet": [known, answers(["one-1"])],
        "not asked and read in the same way: one-2 has other prompts": [
            answers(["one-1"]),
            answers(["one-2"], first=99),
        ],
        "in the same way: one-2 has temperature": [
            answers(["one-1"]),
            answers(["one-2"], temperature=0),
        ],
        "one-2 has 4 usable answers, fewer than the 10": [answers(["one-1"]), answers(["one-2"], prompts=4)],
    }
    for number, (sentence, said) in enumerate(cases.items()):
        with pytest.raises(InputError, match=sentence):
            _build(two, said, tmp_path, f"bank{number}")
    with pytest.raises(InputError, match="Only answers were given; give measurements of the models too"):
        build_bank([tmp_path / "bank1-said-0.parquet"], tmp_path / "none", name="", licence="", provenance="")


def test_answers_are_merged_and_those_of_other_prompts_refused(table: Table, tmp_path: Path) -> None:
    one = _build(table(["one-1"]), [answers(["one-1"])], tmp_path, "one")
    two = _build(table(["two-1"]), [answers(["two-1"])], tmp_path, "two")
    silent = _build(table(["two-2"]), [], tmp_path, "silent")
    other = _build(table(["two-3"]), [answers(["two-3"], first=99)], tmp_path, "other")
    merged = merge_banks([one.folder, two.folder, silent.folder], tmp_path / "all", name="all")
    assert set(merged.answers["model"]) == {"one-1", "two-1"}
    with pytest.raises(InputError, match="were not asked and read in the same way: two-3 has other prompts"):
        merge_banks([one.folder, other.folder], tmp_path / "both", name="both")


def test_answers_that_were_changed_are_refused(table: Table, tmp_path: Path) -> None:
    made = _build(table(["one-1"]), [answers(["one-1"])], tmp_path)
    path = made.folder / "answers.parquet"
    pd.read_parquet(path).assign(value=1.0).to_parquet(path)
    with pytest.raises(InputError, match=r"answers\.parquet was changed"):
        load_bank(made.folder)


def test_the_prompts_of_the_product_are_called_by_their_name(bank: Bank) -> None:
    from extraction.answers.prompt_sets import prompts

    said = prompts("demo").assign(model="one-1", text=" ".join(WORDS))
    made = read_provenance(compute_features(said, []).iloc[0][COLUMN])
    assert prompts_of(made) == "--prompts demo"
    own = read_provenance(bank.answer_features()[COLUMN].iloc[0])
    assert prompts_of(own) == f"12 prompts of hash {own.prompts}"


def test_the_bank_that_ships_loads_with_and_without_answers_and_is_small() -> None:
    assert set(load_bank(SHIPPED).answers["model"]) <= set(load_bank(SHIPPED).models["model"])
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 2_000_000
