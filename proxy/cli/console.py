"""What every command shares: the screen, progress, and how results leave."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from estimators.contracts.secrets import printable

if TYPE_CHECKING:
    import pandas as pd

    from estimators import base
    from extraction.tables import Schema

WIDE = 160
QUIET_S = 10.0  # without a terminal, at most one line of progress in so long


class Screen(Console):
    """A console on which no secret of a URL and no control character of a foreign text is shown."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, texts masked and printable."""
        super().print(*(printable(item) if isinstance(item, str) else item for item in objects), **options)


screen = Screen(stderr=True)  # progress and remarks; results alone go to stdout


@contextmanager
def progress(description: str | Callable[[], str]) -> Iterator[base.Progress]:
    """Show a bar with time left on stderr; without a terminal, a plain line now and then.

    A `description` that can be called is asked again at every step, so that it can tell of the state of things.
    """
    say = description if callable(description) else lambda: description
    if screen.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=screen) as bar:
            task = bar.add_task(say(), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description=say())
        return
    started = said = time.monotonic()

    def plain(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= QUIET_S and 0 < done < total:
            said = now
            left = (now - started) * (total - done) / done
            screen.print(f"{say()}: {done} of {total}, about {left:.0f} s left", highlight=False)

    yield plain


def emit(frame: pd.DataFrame, out: Path | None, *, as_json: bool = False, schema: Schema | None = None) -> None:
    """Hand the result over: to the file `out`, as JSON on stdout, or as a table on stdout."""
    if out is not None:
        write_kept(frame, out, schema)
        screen.print(f"Wrote {len(frame)} rows to {out}", highlight=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps(json.loads(frame.to_json(orient="records")), indent=1) + "\n")
    elif out is None:
        show(frame)


def write_kept(frame: pd.DataFrame, out: Path, schema: Schema | None = None) -> None:
    """Write a table; where its disk is full or gone, into the temporary folder, so that no work is lost.

    Raises:
        EmergenceError: if it could not be written where it should; says where the rows are kept.
    """
    from estimators.base import EmergenceError
    from extraction.tables import write_table

    try:
        write_table(frame, out, schema)
        return
    except OSError as error:
        reason = error.strerror or str(error)
    try:
        kept = Path(tempfile.mkdtemp(prefix="emergence-")) / out.name
        write_table(frame, kept, schema)
    except OSError:
        raise EmergenceError(
            f"{out} could not be written ({reason}), nor could the temporary folder; free some space and run the same "
            "command again."
        ) from None
    raise EmergenceError(f"{out} could not be written ({reason}); its {len(frame)} rows are kept in {kept}: move them.")


def show(frame: pd.DataFrame, title: str | None = None, *, to: Console | None = None) -> None:
    """Print `frame` as a table on stdout, numbers to three decimals and missing values as a dash."""
    import pandas as pd

    from estimators.contracts.cells import cell

    table = Table(title=title, title_justify="left")
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(str(name), justify="right" if numeric else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(cell(value) for value in row))
    console = to or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a file has no edge to wrap at
    console.print(table, markup=False)
