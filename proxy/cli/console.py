"""What every command shares: the screen, progress, and how results leave."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from estimators.contracts.secrets import printable
from proxy.cli.pulse import SILENCE_S, doing, spoken

if TYPE_CHECKING:
    import pandas as pd

    from estimators import base
    from extraction.tables import Schema

WIDE = 160
NAME = 14  # characters of a name that stay together on a narrow screen
TELLING = 0.01  # share of the work that must be done before it tells how long the rest takes


class Screen(Console):
    """A console on which no secret of a URL and no control character of a foreign text is shown."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, texts masked and printable."""
        spoken()
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
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with doing(say, drawn=True), Progress(*columns, console=screen) as bar:
            task = bar.add_task(say(), total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description=say())
        return
    said, at = time.monotonic(), ""  # when a line was printed, and how far the work is
    first: tuple[float, int] | None = None  # when steps began to be done, and how many then: loading is no measure

    def plain(done: int, total: int) -> None:
        nonlocal said, at, first
        now = time.monotonic()
        if first is None:
            first = now, done
        before = done - first[1]
        seconds = (now - first[0]) * (total - done) / max(1, before)
        left = f", about {seconds:.0f} s left" if before > TELLING * total else ""
        at = f": {done} of {total}{left}"
        if now - said >= SILENCE_S and 0 < done < total:
            said = now
            screen.print(say() + at, highlight=False)

    with doing(lambda: say() + at):
        yield plain


@contextmanager
def during(what: str) -> Iterator[None]:
    """Name the work of the block while it runs: a spinner in a terminal, else a line when it takes seconds."""
    with doing(what, drawn=screen.is_terminal):
        if screen.is_terminal:
            with screen.status(what):
                yield
        else:
            yield


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


def show(
    frame: pd.DataFrame, title: str | None = None, *, to: Console | None = None, spare: Sequence[str] = ()
) -> None:
    """Print `frame` as a table on stdout, numbers to three decimals and missing values as a dash.

    Numbers are never broken: where the screen is narrow, names are, and then columns of `spare` are left out, the
    first of them first, with a word.
    """
    import pandas as pd

    from estimators.contracts.cells import cell

    console = to or Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)  # a file has no edge to wrap at
    table, left_out = Table(), []
    for gone in (None, *(name for name in spare if name in frame.columns)):
        left_out += [] if gone is None else [gone]
        table = Table()
        kept = frame.drop(columns=left_out)
        for name in kept.columns:
            numeric = pd.api.types.is_numeric_dtype(kept[name])
            least = None if numeric else min(NAME, max((len(cell(value)) for value in kept[name]), default=1))
            table.add_column(
                str(name), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric, min_width=least
            )
        for row in kept.itertuples(index=False):
            table.add_row(*(cell(value) for value in row))
        if table.__rich_measure__(console, console.options).minimum <= console.width:
            break
    if title:  # above the table, which would break it at its own width
        console.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)
    console.print(table, markup=False)
    if left_out:
        screen.print(f"Left out on so narrow a screen: {', '.join(left_out)}.", highlight=False, soft_wrap=True)
