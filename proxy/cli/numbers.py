"""One reading of all numbers given as options: finite, in range, refused by the option's name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from typer.models import OptionInfo

from proxy.cli.unused import flag, note_given


def checked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return `command` with its numbers checked before it runs.

    A number is finite and at least 0 unless its option declares a smaller ``min``, and fits 64 bits,
    ``--seed`` 32. Typer itself sees to ``min`` and ``max``, but lets ``nan`` and ``inf`` pass.
    """
    hints = get_type_hints(command, include_extras=True)
    options = {
        name: info
        for name, hint in hints.items()
        for info in getattr(hint, "__metadata__", ())
        if isinstance(info, OptionInfo)
    }

    defaults = {name: one.default for name, one in inspect.signature(command).parameters.items()}

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        note_given(given, defaults, options)
        for name, value in given.items():
            for one in value if isinstance(value, list | tuple) else (value,):
                if name in options and isinstance(one, int | float) and not isinstance(one, bool):
                    _check(name, one, options[name])
        return command(**given)

    run.__annotations__ = hints  # evaluated here, since Typer would look the names up in this module
    run.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    return run


def _check(name: str, value: float, option: OptionInfo) -> None:
    from estimators.contracts.numbers import LARGEST, LARGEST_SEED, number

    whole = isinstance(value, int)
    most = option.max
    if most is None:
        most = LARGEST_SEED if name == "seed" else LARGEST
    number(value, flag(name, option), least=0 if option.min is None else option.min, most=most, whole=whole)
