"""Options without effect are refused before any work."""

from collections.abc import Callable
from typing import Any

import pytest

MODEL = "measure gpt2-30k --corpus animal"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{MODEL} --dry-run --prices p.json", "--prices, --dry-run: for a model behind an API"),
        (f"{MODEL} --base-url http://127.0.0.1:9/v1 --likelihoods a.csv --full", "--full, --likelihoods: for a model"),
        ("estimate proxy table.parquet --bank b --yes", "--bank, --yes: for a model at an API"),
        ("estimate proxy table.parquet --track", "--track: for a model at an API; emergence track logs a table"),
        ("estimate gpt-4o-mini --every-level", "--every-level: for a saved proxy"),
    ],
)
def test_an_option_without_effect_is_refused(emergence: Callable[..., Any], command: str, said: str) -> None:
    done = emergence(*command.split())
    assert done.code == 2
    assert said in done.err
    assert not done.out
