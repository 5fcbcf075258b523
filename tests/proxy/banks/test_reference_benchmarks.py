"""The scripts that measure references and train more of them, at tiny sizes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from extraction import load_model, reference_models
from proxy.banks.bank import load_bank
from proxy.banks.building import build_bank
from proxy.banks.targets import reference_table

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ladder
    import reference_bank

    yield reference_bank, ladder
    for name in ("ladder", "reference_bank"):
        sys.modules.pop(name, None)


def test_bundled_models_and_further_ones_are_measured_into_one_bank(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, _ = scripts
    monkeypatch.setattr(script, "WINDOWS", 150)
    monkeypatch.setattr(script, "CHAT_CORPUS", "python-docs")
    real = tmp_path / "real"
    for name in ("gpt2-90k", "gemma-90k"):
        shutil.copytree(reference_models.path(name), real / f"Tiny-{name}")
    further = script.real_models(real)
    assert sorted(further) == ["Tiny-gemma-90k", "Tiny-gpt2-90k"]
    folders = {name: reference_models.path(name) for name in ("gpt2-30k", "gemma-30k")}
    tables = script.collect(folders, further, ["python-docs"], tmp_path)
    assert script.collect(folders, further, ["python-docs"], tmp_path) == tables  # measured once
    (tmp_path / "prompts.txt").write_text("\n".join(f"The {number} old houses stood" for number in range(12)))
    monkeypatch.setattr(script, "PROMPTS", tmp_path / "prompts.txt")
    answers = script.answered(folders | further, tmp_path)
    build_bank([*tables, *answers], tmp_path / "bank", name="made", licence="", provenance="", windows=150)
    bank = load_bank(tmp_path / "bank")
    assert set(bank.answers["model"]) == {*folders, *further}
    assert set(bank.models["family"]) == {"gpt2", "gemma"}
    assert bank.shown("python-docs") == bank.shown("python-docs", chat=True) == [20, 0]
    rows = bank.emergence
    assert rows.loc[rows["asked"] != "weights-chat", "twin_ie_bits"].notna().all()
    assert rows.loc[rows["asked"] != "weights-chat", "shuffled_ie_bits"].notna().all()
    table = reference_table(bank, "python-docs", shown=20)
    assert table["output.ability"].notna().all()


def test_the_ladder_trains_stages_that_load_and_go_on(scripts: Any, tmp_path: Path) -> None:
    _, ladder = scripts
    rungs = {"tiny": ladder.Shape(16, 2, 2)}
    plan = ladder.Plan(tokens=4 * 16 * 9, vocabulary=300, context=16, batch=4)
    texts = ["the cat sat on the mat and the dog ran. " * 40]
    names = ["gpt2-tiny", "gemma-tiny"]
    ladder.climb(texts, tmp_path, names, [0], plan, rungs)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted(f"{name}-s0{stage}" for name in names for stage in ("", "@12", "@25", "@50"))
    facts = json.loads((tmp_path / "gpt2-tiny-s0@50" / "training.json").read_text())
    assert (facts["steps"], facts["of_steps"], facts["seed"]) == (4, 9, 0)
    assert load_model(str(tmp_path / "gemma-tiny-s0"), device="cpu").parameters == pytest.approx(
        load_model(str(tmp_path / "gpt2-tiny-s0"), device="cpu").parameters, rel=0.2
    )
    before = (tmp_path / "gpt2-tiny-s0" / "training.json").stat().st_mtime_ns
    ladder.climb(texts, tmp_path, names, [0], plan, rungs)  # nothing is trained again
    assert (tmp_path / "gpt2-tiny-s0" / "training.json").stat().st_mtime_ns == before
