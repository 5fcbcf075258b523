"""From published answers and a leaderboard to estimates, in two commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from extraction import load_model
from extraction.answers.responses import read_responses
from proxy.features.kept import Kept
from proxy.features.table import compute_features

Run = Callable[..., Any]
NAMES = [
    "vicuna-7b",
    "phi-2",
    "falcon-7b",
    "zephyr-7b",
    "gpt-4o",
    "yi-34b",
    "qwen-7b",
    "gemma-2b",
    "opt-1b",
    "bloom-7b",
]


def published(folder: Path, names: list[str]) -> list[Path]:
    """AlpacaEval's files of models that repeat themselves the less, the better they are."""
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("sun", "sea", "tree", "bird") for b in ("light", "side", "house", "song", "man")]
    files = []
    for place, name in enumerate(names):
        rows = [
            {
                "generator": name,
                "instruction": f"Question {number}?",
                "output": " ".join(rng.choice(words[: place + 3], 30)),
            }
            for number in range(12)
        ]
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(rows))
    return files


def test_a_feature_named_as_another_is_refused(emergence: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The later one would replace the earlier without a word."""
    from proxy.features import behaviour

    own = behaviour._logprobs
    monkeypatch.setattr(behaviour, "_logprobs", lambda answers: own(answers) | {"repetition": 0.0})
    out = tmp_path / "features.parquet"
    done = emergence("features", *published(tmp_path, NAMES[:2]), "--readers", "gpt2-30k", "--out", out)
    assert done.code == 2
    assert "The features to be added have names that other columns have: repetition; rename them." in done.err
    assert not out.exists()


def test_two_commands_from_answers_to_an_estimate(emergence: Run, tmp_path: Path) -> None:
    files = published(tmp_path, NAMES)
    scores = pd.DataFrame({"model": NAMES[:-1], "win_rate": np.linspace(5, 80, 9)})
    scores.to_csv(tmp_path / "models.csv", index=False)
    references = tmp_path / "references.parquet"
    done = emergence(
        "features", *files, "--targets", tmp_path / "models.csv", "--readers", "gpt2-30k", "--out", references
    )
    assert done.code == 0, done.err
    assert "Families proposed from names" in done.err
    assert "llama: vicuna-7b" in done.err
    fitted = emergence("fit", references, "--target", "win_rate", "--out", tmp_path / "proxy")
    assert fitted.code == 0, fitted.err
    assert "win_rate is taken for a percentage: bounds 0,100" in fitted.err
    assert "without win_rate, so no references: bloom-7b" in fitted.err
    assert "win_rate of left-out references, by family" in fitted.out
    assert "bloom-7b" in fitted.out
    description = json.loads((tmp_path / "proxy" / "proxy.json").read_text())
    assert description["bounds"] == [0.0, 100.0]
    assert description["unit"] == "family"


def test_the_default_reader_is_named(emergence: Run) -> None:
    assert "gpt2-2m" in emergence("features", "--help").out


@pytest.mark.parametrize(
    ("name", "values", "bounds"),
    [
        ("win_rate", [3.0, 60.0], [0.0, 100.0]),
        ("accuracy", [0.2, 0.9], [0.0, 1.0]),
        ("elo", [900.0, 1200.0], [None, None]),
        ("score", [3.0, 60.0], [None, None]),
    ],
)
def test_bounds_are_told_by_name_and_values(
    emergence: Run, families: Callable[..., pd.DataFrame], tmp_path: Path, name: str, values: list, bounds: list
) -> None:
    table = families(1, 9, features=3)
    table[name] = np.interp(table["bits"], [table["bits"].min(), table["bits"].max()], values)
    table.drop(columns=["bits", "family"]).to_parquet(tmp_path / "table.parquet")
    done = emergence("fit", tmp_path / "table.parquet", "--target", name, "--out", tmp_path / "proxy")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "proxy" / "proxy.json").read_text())["bounds"] == bounds
    assert ("if it is a percentage, give the bounds 0,100" in done.err) == (name == "score")
    assert f"{name} of left-out references, by model" in done.out  # no families, so none are spoken of
    assert "no column family" in done.err


def test_another_way_of_asking_is_refused_with_its_remedy(emergence: Run, tmp_path: Path) -> None:
    files = published(tmp_path, NAMES)
    pd.DataFrame({"model": NAMES[:-1], "win_rate": np.linspace(5, 80, 9)}).to_csv(tmp_path / "models.csv", index=False)
    arguments = [
        "--targets",
        tmp_path / "models.csv",
        "--readers",
        "gpt2-30k",
        "--out",
        tmp_path / "references.parquet",
    ]
    assert emergence("features", *files, *arguments).code == 0
    assert (
        emergence("fit", tmp_path / "references.parquet", "--target", "win_rate", "--out", tmp_path / "proxy").code == 0
    )
    assert json.loads((tmp_path / "proxy" / "proxy.json").read_text())["provenance"]
    answers = pd.concat([pd.DataFrame(json.loads(files[-1].read_text()))] * 3)  # three samples of each prompt
    answers.to_json(tmp_path / "three.json", orient="records")
    closed = tmp_path / "closed.parquet"
    assert emergence("features", tmp_path / "three.json", "--readers", "gpt2-30k", "--out", closed).code == 0
    refused = emergence("estimate", tmp_path / "proxy", closed)
    assert refused.code == 2
    assert "3 samples a prompt, the references 1; keep 1 of each (features --samples 1)" in refused.err
    again = ["--readers", "gpt2-30k", "--out", closed, "--samples", "1"]
    assert emergence("features", tmp_path / "three.json", *again).code == 0
    given = emergence("estimate", tmp_path / "proxy", closed, "--json")
    assert given.code == 0, given.err
    assert json.loads(given.out)[0]["model"] == "bloom-7b"


def test_a_run_that_was_killed_continues_and_ends_the_same(emergence: Run, tmp_path: Path) -> None:
    files = published(tmp_path, NAMES[:3])
    out, whole = tmp_path / "some.parquet", tmp_path / "whole.parquet"
    assert emergence("features", *files, "--readers", "gpt2-30k", "--out", whole).code == 0
    # what a run leaves that was killed while it wrote its second result
    kept = Kept(tmp_path / "some.parquet.partial")
    compute_features(read_responses(files[0]), [load_model("gpt2-30k")], kept=kept)
    with kept.path.open("a") as file:
        file.write('\n["cut off", {"nll": 1.')
    assert len(kept) == 2
    done = emergence("features", *files, "--readers", "gpt2-30k", "--out", out)
    assert done.code == 0, done.err
    assert "2 results of an earlier run" in done.err
    assert out.read_bytes() == whole.read_bytes()
    assert not kept.path.exists()
