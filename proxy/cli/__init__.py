"""The `emergence` command: one module per subcommand, heavy imports only inside them."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
import typer.core

from estimators.contracts.secrets import printable
from proxy.cli.console import screen
from proxy.cli.numbers import checked
from proxy.cli.stopping import stoppable

# In the order of a user's work; each is a function of the same name in the module of that name.
COMMANDS = (
    "demo",
    "measure",
    "sweep",
    "collect",
    "answer",
    "features",
    "fit",
    "estimate",
    "calibrate",
    "track",
    "compare",
    "report",
    "promote",
    "ui",
)

# Commands that have commands of their own: a dictionary COMMANDS in the module of that name.
GROUPS = {"bank": "Reference banks: everything a proxy needs of its open references, in one folder."}

# Errors of a disk or its permissions, which can happen in any command.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG)

UsageError = typer.BadParameter.__base__  # typer does not export it


class _Masking(typer.core.TyperGroup):
    """Commands of which a typing error is shown without the secrets in it."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _masked_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _masked_errors():
            return super().invoke(ctx)


@contextmanager
def _masked_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:  # type: ignore[misc]
        error.message = printable(error.message)
        raise


app = typer.Typer(
    name="emergence",
    cls=_Masking,
    help="Estimate the information emergence of language models, also of those open only through an API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for _name in COMMANDS:
    app.command(_name)(stoppable(checked(getattr(importlib.import_module(f"proxy.cli.{_name}"), _name))))


for _name, _help in GROUPS.items():
    _group = typer.Typer(help=_help, no_args_is_help=True, rich_markup_mode="markdown")
    for _inner, _command in importlib.import_module(f"proxy.cli.{_name}").COMMANDS.items():
        _group.command(_inner)(stoppable(checked(_command)))
    app.add_typer(_group, name=_name)


def main() -> None:
    """Run the command line; exit 0 on full success, 1 if something failed, 2 on bad input."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except Exception as error:
        from estimators.base import EmergenceError, InputError

        if isinstance(error, OSError) and error.errno in DISK:
            place = f" at {error.filename}" if error.filename else ""
            error = EmergenceError(f"{error.strerror}{place}; correct that, and run the same command again.")
        if not isinstance(error, EmergenceError):
            raise
        bad_input = isinstance(error, InputError)
        prefix = "Error" if bad_input else "Failed"
        screen.print(f"{prefix}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2 if bad_input else 1)
