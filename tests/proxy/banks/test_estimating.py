"""Estimates from a bank: a known law is found again, and what cannot be compared is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators.base import InputError
from extraction import Budget, Server, load_model
from extraction.answers.collecting.endpoints import Capabilities
from extraction.answers.collecting.next_tokens import Asking
from proxy.banks.bank import Bank, load_bank
from proxy.banks.building import build_bank
from proxy.banks.estimating import bills, estimate_emergence, measured_alone, to_ask
from proxy.banks.report import card, write_estimate
from proxy.banks.targets import PEAK, reference_table, target, without_model
from proxy.banks.ways import Way, fitting_way, lacking
from proxy.features.provenance import ASKED, how_asked
from proxy.measurement.api import Closed
from proxy.measurement.output import OUTPUT_LAYER
from proxy.regression.proxy import fit_proxy

Table = Callable[..., pd.DataFrame]
FIXED = "output_line"  # choosing among all candidates takes a minute, and is tested where they are


@pytest.fixture(scope="module")
def bank(built: Path) -> Bank:
    return load_bank(built)


def _output(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["layer"] == OUTPUT_LAYER]


def test_a_known_law_is_found_again(bank: Bank, table: Table, tmp_path: Path) -> None:
    """E = (3 - cost)(l + 1) / 3; the noise of features and targets is .02 each."""
    own = table(["three-4"])
    found = estimate_emergence(bank, _output(own), candidate=FIXED)
    true = own[own["layer"] >= 0].groupby("layer")["ie_bits"].first()
    assert found.peak["estimate"] == pytest.approx(true[2], abs=0.15)
    assert found.peak["lower"] < true[2] < found.peak["upper"]
    assert found.peak["in_domain"]
    lines = found.table.set_index("target")
    assert lines.loc[target(0.5), "estimate"] == pytest.approx(true[1], abs=0.15)
    assert lines.loc[PEAK, "proxy_error"] < lines.loc[PEAK, "mean_error"]
    assert np.isnan(lines.loc[PEAK, "truth"])
    written = write_estimate(found, tmp_path / "made")
    assert written == ["card.md", "estimate.csv", "measured.parquet", "profile.png"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == written
    assert "mean absolute error" in card(found)


def test_the_last_block_is_taken_as_measured_and_moved_as_on_references(bank: Bank, table: Table) -> None:
    """On references the output's reading lies .2 below the last block's (noise .02 each)."""
    own = table(["three-3"])
    found = estimate_emergence(bank, _output(own), candidate=FIXED)
    line = found.table.set_index("target").loc[target(1.0)]
    reading = float(own.loc[own["estimator"] == "predictive-20", "ie_bits"].iloc[0])
    assert line["how"] == "measured"
    assert line["estimate"] == pytest.approx(reading + 0.2, abs=0.03)
    assert set(found.table["how"]) == {"measured", "estimated"}


def test_a_measured_end_outside_the_references_has_a_wider_interval_or_none(bank: Bank, table: Table) -> None:
    """The references' readings end about .4 from their mean; .7 and 5 higher are about 2 and 12 times as far out."""
    own = _output(table(["three-3"]))
    widths = []
    for more in (0.0, 0.7, 5.0):
        rows = own.assign(ie_bits=own["ie_bits"] + more)
        line = estimate_emergence(bank, rows, candidate=FIXED).table.set_index("target").loc[target(1.0)]
        assert line["how"] == "measured"
        assert line["estimate"] == pytest.approx(float(rows["ie_bits"].iloc[0]) + 0.2, abs=0.05)
        assert line["in_domain"] == (more == 0.0)
        widths.append(line["upper"] - line["lower"])
    assert widths[1] > 1.5 * widths[0]
    assert np.isnan(widths[2])


def test_samples_alone_estimate_the_last_block_too(bank: Bank, table: Table) -> None:
    own = _output(table(["three-3"]))
    found = estimate_emergence(bank, own[own["estimator"] == "output-2"], candidate=FIXED)
    assert set(found.table["how"]) == {"estimated"}


def test_a_model_of_the_bank_leaves_with_its_run_and_is_compared(bank: Bank, table: Table) -> None:
    found = estimate_emergence(bank, _output(table(["one-1"])), candidate=FIXED)
    assert any("one-1 is in the bank: its whole run is left out" in remark for remark in found.remarks)
    assert found.peak["truth"] == pytest.approx(found.peak["estimate"], abs=0.2)
    assert found.proxy is not None
    assert not {"one-1", "one-1@25"} & set(found.proxy.references["model"])


def test_far_outside_it_says_which_references_are_needed(bank: Bank, table: Table) -> None:
    own = _output(table(["three-1"])).assign(
        macro_bits=lambda t: t["macro_bits"] + 20, ie_bits=lambda t: t["ie_bits"] + 9
    )
    found = estimate_emergence(bank, own, candidate=FIXED)
    assert np.isnan(found.peak["estimate"])
    assert any("references are needed with" in remark for remark in found.remarks)
    assert found.measured["ie_bits"].notna().all()


def test_a_proxy_of_a_banks_table_knows_how_its_references_were_asked(bank: Bank) -> None:
    references = reference_table(bank, "python-docs", shown=20)
    tokens = bank.corpus("python-docs").tokens
    assert set(references[ASKED]) == {f"python-docs, windows of {tokens} tokens, as text, 20 tokens shown"}
    proxy = fit_proxy(references, target=PEAK, candidate="best_feature")
    assert not any("not recorded" in remark for remark in proxy.remarks)
    with pytest.raises(InputError, match="asked for otherwise"):
        proxy.predict(references.head(1).assign(**{ASKED: how_asked("python-docs", tokens=4, shown=20, chat=False)}))


def test_checkpoints_weigh_as_one_run(bank: Bank) -> None:
    kept, own = without_model(bank, "two-2")
    assert own == ["two-2"]
    references = reference_table(bank, "python-docs", shown=20)
    assert len(reference_table(kept, "python-docs", shown=20)) == len(references) - 2


def test_one_family_is_said(table: Table, tmp_path: Path) -> None:
    table([f"one-{i}" for i in range(11)]).to_parquet(tmp_path / "t.parquet")
    one = build_bank([tmp_path / "t.parquet"], tmp_path / "b", name="one", licence="", provenance="")
    found = estimate_emergence(one, _output(table(["three-3"])), candidate=FIXED)
    assert any("all references are of one family, one" in remark for remark in found.remarks)


def test_targets_that_failed_their_controls_are_left_out(table: Table, tmp_path: Path) -> None:
    rows = table([f"one-{i}" for i in range(11)])
    failed = rows["model"].isin(["one-2", "one-3"]) & (rows["layer"] == 2)
    rows.loc[failed, "flags"] = "control-failed"
    rows.to_parquet(tmp_path / "t.parquet")
    found = build_bank([tmp_path / "t.parquet"], tmp_path / "b", name="b", licence="", provenance="")
    references = reference_table(found, "python-docs", shown=20)
    assert not {"one-2", "one-3"} & set(references["model"])
    assert references.attrs["remarks"] == ["left out, as their emergence is not above its controls: one-2, one-3"]
    rows[rows["model"] != "one-5"].to_parquet(tmp_path / "t.parquet")  # eight runs remain
    few = build_bank([tmp_path / "t.parquet"], tmp_path / "c", name="c", licence="", provenance="")
    with pytest.raises(InputError, match=r"8 independent runs of c remain .* left out, as their emergence"):
        estimate_emergence(few, _output(table(["three-3"])), candidate=FIXED)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"corpus": "animal"}, "was measured on animal, but the references of made on python-docs"),
        ({"position": 12}, "windows of 12 tokens of python-docs, the references of made 8"),
        ({"asked": "chat-logprobs-20"}, "was asked by chat-logprobs-20, the references of made by weights"),
        ({"estimator": "output-3"}, "was read by output-3; the proxies of made need"),
        ({"layer": 1}, "has no output rows"),
    ],
)
def test_what_cannot_be_compared_is_refused(bank: Bank, table: Table, change: dict[str, object], sentence: str) -> None:
    own = _output(table(["three-3"])).iloc[:1].assign(**change)
    with pytest.raises(InputError, match=sentence):
        estimate_emergence(bank, own, candidate=FIXED)


def test_several_models_are_refused(bank: Bank, table: Table) -> None:
    with pytest.raises(InputError, match="holds 2 models, three-3, three-4"):
        estimate_emergence(bank, _output(table(["three-3", "three-4"])), candidate=FIXED)


def test_blocks_by_another_estimator_are_refused(bank: Bank, table: Table) -> None:
    with pytest.raises(InputError, match="no blocks measured by sample-propagation on python-docs; it has predictive"):
        estimate_emergence(bank, _output(table(["three-3"])), estimator="sample-propagation", candidate=FIXED)


def _asking(endpoint: str = "completions", shown: int = 0) -> Asking:
    return Asking(Capabilities(endpoint), shown=shown, samples=1 if shown else 8)  # type: ignore[arg-type]


def test_a_server_that_gives_less_is_told_which_proxies_remain(bank: Bank) -> None:
    assert fitting_way(bank, "python-docs", _asking(shown=20)) == Way(20)
    assert fitting_way(bank, "python-docs", _asking()) == Way(0)  # samples
    assert fitting_way(bank, "python-docs", _asking(shown=5)) is None
    few = lacking(bank, "python-docs", _asking(shown=5))
    assert few.startswith(
        "the server gives 5 logprobs, and the proxies of made on python-docs need logprobs-20, samples"
    )
    assert "references asked in the same way are needed (--ask completions-logprobs --estimator predictive-5" in few
    assert fitting_way(bank, "python-docs", _asking("chat", shown=20)) is None
    chat = lacking(bank, "python-docs", _asking("chat", shown=20))
    assert chat.startswith("as a chat the server gives 20 logprobs")
    assert "--ask chat-logprobs --estimator predictive-20,output-20,output-2-of-20" in chat


def _closed(tmp_path: Path, **budget: float) -> Closed:
    tokenizer = load_model("gpt2-30k", device="cpu").tokenizer
    server = Server("http://127.0.0.1:9/v1", budget=Budget(**budget))  # type: ignore[arg-type]
    return Closed("m", server, tokenizer, True, _asking(shown=20), tmp_path / "log.jsonl")


def test_few_calls_are_told_what_they_buy(bank: Bank, tmp_path: Path) -> None:
    closed, corpus = _closed(tmp_path), bank.corpus()
    with pytest.raises(InputError, match=r"A limit of 10 calls buys fewer than 10 of the .* windows that made needs"):
        to_ask(bank, corpus, closed, calls=10)
    with pytest.raises(InputError, match=r"A limit of 90 calls buys \d+ of the .* windows .* at least 100 are needed"):
        to_ask(bank, corpus, closed, calls=90, control=False)
    some = to_ask(bank, corpus, closed, calls=450, control=False)
    assert len(some.contexts.ids) >= 100
    assert "A limit of 450 calls buys" in some.remarks[0]
    assert len(some.contexts.texts) + len(some.contexts.alone_texts) <= 450


def test_little_money_is_told_what_it_buys(bank: Bank, tmp_path: Path) -> None:
    prices = {"input_price": 100.0, "output_price": 100.0}
    corpus = bank.corpus()
    whole = to_ask(bank, corpus, _closed(tmp_path, **prices))
    cost = bills(_closed(tmp_path, **prices), whole)["cost"]
    assert cost is not None
    closed = _closed(tmp_path, **prices, max_cost=0.8 * cost)
    some = to_ask(bank, corpus, closed)
    assert any(re.match(r"A limit of \S+, about \d+ calls, buys \d+ of the 3", remark) for remark in some.remarks)
    found = bills(closed, some)["cost"]
    assert found is not None
    assert 0.5 * cost < found <= 0.8 * cost
    with pytest.raises(
        InputError, match=r"A limit of \S+, about \d+ calls, buys .* windows .* at least 100 are needed"
    ):
        to_ask(bank, corpus, _closed(tmp_path, **prices, max_cost=0.1 * cost))


def test_what_no_proxy_fits_is_measured_alone(bank: Bank, table: Table, tmp_path: Path) -> None:
    own = _output(table(["three-3"])).assign(asked="chat-logprobs-20")
    why = lacking(bank, "python-docs", _asking("chat", shown=20))
    found = measured_alone(bank, own, why)
    assert set(found.table["how"]) == {"not estimated"}
    assert found.table["estimate"].isna().all()
    write_estimate(found, tmp_path / "made")
    said = card(found)
    assert "Not estimated; what follows says why." in said
    assert "references asked in the same way are needed" in said
    assert "predictive-20" in said  # as measured


def test_references_asked_as_chats_serve_those_asked_as_chats(table: Table, tmp_path: Path) -> None:
    names = [f"one-{i}" for i in range(11)]
    chats = _output(table(names)).assign(asked="weights-chat", macro_bits=lambda t: t["macro_bits"] - 1)
    pd.concat([table(names), chats]).to_parquet(tmp_path / "t.parquet")
    both = build_bank([tmp_path / "t.parquet"], tmp_path / "b", name="both", licence="", provenance="")
    assert fitting_way(both, "python-docs", _asking("chat", shown=20)) == Way(20, chat=True)
    assert fitting_way(both, "python-docs", _asking(shown=20)) == Way(20)
    plain = reference_table(both, "python-docs", shown=20).set_index("model")["output.predictive"]
    chat = reference_table(both, "python-docs", shown=20, chat=True).set_index("model")["output.predictive"]
    assert (plain - chat).astype(float).to_numpy() == pytest.approx(np.ones(11))
    own = _output(table(["three-3"])).assign(asked="chat-logprobs-20", macro_bits=lambda t: t["macro_bits"] - 1)
    found = estimate_emergence(both, own, candidate=FIXED)
    assert found.peak["in_domain"]


def test_an_observer_that_tells_nothing_apart_leaves_nobody_out(table: Table, tmp_path: Path) -> None:
    rows = table([f"one-{i}" for i in range(11)])
    rows.loc[(rows["layer"] == 2) & ~rows["model"].isin(["one-2", "one-3"]), "flags"] = "control-failed"
    rows.to_parquet(tmp_path / "t.parquet")
    found = build_bank([tmp_path / "t.parquet"], tmp_path / "b", name="b", licence="", provenance="")
    references = reference_table(found, "python-docs", shown=20)
    assert len(references) == 11
    assert references.attrs["remarks"][0].startswith("E by predictive is not above its controls for 9 of 11 references")
