"""The examples run, with small settings, as a user runs them, and end in numbers that make sense."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def run(name, *arguments, cwd):
    script = next(path for path in EXAMPLES if path.stem == name)
    done = subprocess.run(
        [sys.executable, "-W", "error", script, *map(str, arguments)], capture_output=True, text=True, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 80


def test_human_against_model_text(tmp_path):
    out = run(
        "human_against_model_text", "--documents", 16, "--author", "gpt2-30k", "--reader", "gemma-90k", cwd=tmp_path
    )
    assert "16 documents by people, 16 by a model" in out
    row = next(line for line in out.splitlines() if line.startswith("ie_0.18"))
    human, machine, difference, error, _ = map(float, row.split()[1:])
    assert difference == pytest.approx(machine - human, abs=0.002)  # printed to three decimals
    assert error > 0
    assert human > 0


@pytest.mark.slow
def test_scaling_inside_a_family(tmp_path):
    out = run("scaling_inside_a_family", "--windows", 150, "--figure", tmp_path / "profile.png", cwd=tmp_path)
    assert {"gpt2-2m", "gemma-2m"} <= set(re.findall(r"^ *(g\S+-2m) ", out, re.M))
    assert re.search(r"truth inside the interval: \d+ of 18", out)
    assert (tmp_path / "profile.png").stat().st_size > 5000


@pytest.mark.slow
def test_closed_model_from_existing_answers(tmp_path):
    out = run("closed_model_from_existing_answers", "--prompts", 14, "--windows", 150, cwd=tmp_path)
    estimate, *numbers = out.strip().splitlines()[-1].split()
    assert estimate == "gemma-2m"
    assert all(re.fullmatch(r"-?\d+\.\d+|True|False|NaN|nan|<NA>", number) for number in numbers)


def test_own_answers_need_their_targets(tmp_path):
    script = next(path for path in EXAMPLES if path.stem == "closed_model_from_existing_answers")
    done = subprocess.run([sys.executable, script, "--answers", "a.csv"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "--answers and --targets go together" in done.stderr
