"""Options that the other arguments leave without effect are refused, not ignored."""

from __future__ import annotations

from collections.abc import Container, Mapping
from contextvars import ContextVar
from typing import Any

from typer.models import OptionInfo

# Options of the running command with another value than their default.
_given: ContextVar[Mapping[str, OptionInfo]] = ContextVar("given")


def note_given(values: Mapping[str, Any], defaults: Mapping[str, Any], options: Mapping[str, OptionInfo]) -> None:
    """Note which options a command was given."""
    _given.set({name: one for name, one in options.items() if name in values and values[name] != defaults.get(name)})


def flag(name: str, option: OptionInfo) -> str:
    """Return an option as it is typed.

    >>> flag("max_calls", OptionInfo(param_decls=()))
    '--max-calls'
    """
    declared = (word for word in option.param_decls or () if word.startswith("--"))
    return next(declared, f"--{name.replace('_', '-')}")


def refuse(why: str, *, panels: Container[str] = (), names: Container[str] = (), without: Container[str] = ()) -> None:
    """Refuse options that were given though nothing would come of them.

    Args:
        why: end of the sentence: what the options are for, and what to do.
        panels: panels of the help whose options are meant.
        names: options that are meant beside those.
        without: options of these panels that are not meant.

    Raises:
        InputError: if one of them was given.
    """
    from estimators.base import InputError

    meant = [
        flag(name, option)
        for name, option in _given.get({}).items()
        if (name in names or option.rich_help_panel in panels) and name not in without
    ]
    if meant:
        raise InputError(f"{', '.join(meant)}: {why}")
