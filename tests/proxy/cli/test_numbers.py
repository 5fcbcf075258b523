"""Every number of every command is finite and in range before anything is done."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from typer.models import OptionInfo

from proxy.cli import COMMANDS, app

Run = Callable[..., Any]

MEASURE = ("measure", "gpt2-30k", "--corpus", "color")


def _numbers() -> list[tuple[str, str, type]]:
    """Return command, option and type of every option that takes a number."""
    found = []
    for command in app.registered_commands:
        assert command.callback is not None
        for name, parameter in inspect.signature(command.callback).parameters.items():
            hint = parameter.annotation
            info = next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, OptionInfo)), None)
            kinds = {int, float} & {hint.__origin__, *getattr(hint.__origin__, "__args__", ())} if info else set()
            if kinds:
                found.append((str(command.name), f"--{name.replace('_', '-')}", kinds.pop()))
    return found


def test_every_command_has_its_numbers_checked() -> None:
    assert {str(command.name) for command in app.registered_commands} == set(COMMANDS)
    assert len(_numbers()) > 15


@pytest.mark.parametrize(("command", "option", "kind"), _numbers())
def test_no_number_of_any_command_may_be_nan_infinite_or_out_of_all_range(
    emergence: Run, command: str, option: str, kind: type, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    needed = {
        "measure": ["gpt2-30k", "--corpus", "color"],
        "sweep": ["demo"],
        "compare": ["a", "b"],
        "collect": ["m", "--out", "a.csv"],
        "answer": ["gpt2-30k", "--prompts", "demo"],
        "features": ["a.csv"],
        "fit": ["a.csv", "--target", "t", "--out", "p"],
        "estimate": ["p", "a.csv"],
    }
    bad = ["nan", "inf", "-inf", "1e999", "1e308", "x"] if kind is float else ["18446744073709551616", "-1", "1.5", "x"]
    for value in bad:
        done = emergence(command, *needed.get(command, []), f"{option}={value}")
        assert done.code == 2, (value, done.err)
        assert option in done.err, (value, done.err)
        assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bounds", ["-inf,inf", "nan,1", "1e999,", "1,0", "1,1", "0,x"])
def test_bounds_are_finite_and_ascending(emergence: Run, bounds: str) -> None:
    done = emergence("fit", "a.csv", "--target", "t", "--out", "p", f"--bounds={bounds}")
    assert done.code == 2
    assert "--bounds" in done.err or "a.csv" in done.err


@pytest.mark.parametrize(
    "option", ["epochs={a", "epochs=[1", "epochs=[1]", "epochs=.nan", "epochs=.inf", "x=" + "[" * 5000]
)
def test_options_of_estimators_are_single_finite_values(emergence: Run, option: str) -> None:
    done = emergence(*MEASURE, "--estimator", "mine", "--option", option)
    assert done.code == 2
    assert f"--option {option.partition('=')[0]} takes" in done.err


def test_a_port_is_a_port(emergence: Run) -> None:
    assert emergence("ui", "--port", "65536").code == 2


def test_a_resolution_of_0_is_not_taken_for_none(emergence: Run) -> None:
    done = emergence("compare", "a", "b", "--resolution", "0")
    assert done.code == 2
    assert "--resolution takes a number above 0, got 0" in done.err
