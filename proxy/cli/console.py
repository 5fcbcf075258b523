"""What every command shares: the screen, progress, and how results leave."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from estimators.contracts.secrets import printable
from proxy.cli.pulse import SILENCE_S, doing, spoken

if TYPE_CHECKING:
    import pandas as pd

    from estimators import base
    from extraction.tables import Schema

WIDE = 160
LISTED = 6  # names of columns that are left out; more are counted
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
def progress(description: str | Callable[[], str], *, counted: bool = True) -> Iterator[base.Progress]:
    """Show a bar with time left on stderr; without a terminal, a plain line now and then.

    Args:
        description: what is done; one that can be called is asked again at every step.
        counted: whether steps are things that a person counts, such as answers; else their share is shown.
    """
    say = description if callable(description) else lambda: description
    if screen.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn() if counted else TaskProgressColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with doing(say, animated=True), Progress(*columns, console=screen) as bar:
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
        far = f"{done} of {total}" if counted else f"{done / max(1, total):.0%}"
        at = f": {far}{left}"
        if now - said >= SILENCE_S and 0 < done < total:
            said = now
            screen.print(say() + at, highlight=False)

    with doing(lambda: say() + at):
        yield plain


@contextmanager
def during(what: str) -> Iterator[None]:
    """Name the work of the block while it runs: a spinner in a terminal, else a line when it takes seconds."""
    with doing(what, animated=screen.is_terminal):
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
            f"{out} could not be written ({reason}), and the temporary folder could not either; free some space and "
            "run the same command again."
        ) from None
    raise EmergenceError(f"{out} could not be written ({reason}); its {len(frame)} rows are kept in {kept}: move them.")


def show(
    frame: pd.DataFrame, title: str | None = None, *, to: Console | None = None, spare: Sequence[str] = ()
) -> None:
    """Print `frame` as a table on stdout, numbers to three decimals and missing values as a dash.

    Numbers are never broken or cut: where the screen is narrow, names and headings are broken, and then columns are
    left out, which a line says: those of `spare`, the first of them first, then from the right all but two.
    """
    console = to or Console()
    least = {name: _least(frame, name, broken=False) for name in frame.columns}
    if not console.is_terminal:  # a file has no edge to wrap at
        console.width = max(console.width, WIDE, _table_width(least.values()))
    if broken := _table_width(least.values()) > console.width:
        least = {name: _least(frame, name, broken=True) for name in frame.columns}
    left_out: list[str] = []
    order = [*(name for name in spare if name in frame.columns), *reversed(frame.columns[2:])]
    for name in dict.fromkeys(map(str, order)):
        if _table_width(width for column, width in least.items() if column not in left_out) <= console.width:
            break
        left_out.append(name)
    if title:  # above the table, which would break it at its own width
        console.print(title, style="italic", highlight=False, markup=False, soft_wrap=True)
    console.print(_table(frame.drop(columns=left_out), least, broken=broken), markup=False)
    if left_out:
        names = ", ".join(left_out) if len(left_out) <= LISTED else f"{len(left_out)} columns"
        screen.print(f"Left out on so narrow a screen: {names}.", highlight=False, soft_wrap=True)


def _table(frame: pd.DataFrame, widths: Mapping[str, int], *, broken: bool) -> Table:
    """Lay out a table; where its headings may be `broken`, a column of numbers is as narrow as these and a word."""
    import pandas as pd

    from estimators.contracts.cells import cell

    table = Table()
    for name in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        least = widths[name]
        table.add_column(
            str(name).replace("_", " ") if broken else str(name),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=numeric and not broken,
            width=least if numeric and broken else None,
            min_width=least,
        )
    for row in frame.itertuples(index=False):
        table.add_row(*(cell(value) for value in row))
    return table


def _table_width(columns: Iterable[int]) -> int:
    """Return how many characters a table of columns so wide takes, each with two spaces and a line."""
    return 1 + sum(3 + width for width in columns)


def _least(frame: pd.DataFrame, name: str, *, broken: bool) -> int:
    """Return how many characters a column is wide at least: a number whole, and some of a name."""
    import pandas as pd

    from estimators.contracts.cells import cell

    least = max((len(cell(value)) for value in frame[name]), default=1)
    if not pd.api.types.is_numeric_dtype(frame[name]):
        return min(NAME, least)
    words = str(name).split("_") if broken else [str(name)]
    return max(least, *(len(part) for word in words for part in word.split() or [""]))
