"""`emergence measure NAME --base-url URL`: a model behind an API, from what it says next."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from proxy.cli.console import emit, progress, screen, show

if TYPE_CHECKING:
    import pandas as pd

    from proxy.cli.groups import ControlOptions, OutputOptions, WindowOptions
    from proxy.measurement.api import Closed
    from proxy.measurement.output import Contexts

OUTPUT_SHOWN = {
    "model": "model",
    "corpus": "corpus",
    "estimator": "estimator",
    "asked": "asked",
    "macro_bits": "macro",
    "micro_bits": "micro",
    "ie_bits": "E",
    "ie_std_error": "std error",
    "shuffled_ie_bits": "shuffled",
    "twin_ie_bits": "twin",
    "verdict": "verdict",
    "flags": "flags",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedOptions:
    """What the command line says of a model behind an API; see the help of `emergence measure`."""

    base_url: str
    key_env: str
    tokenizer: str | None
    ask: str
    samples: int
    prefix: str
    log: Path | None
    prices: Path | None
    max_cost: float | None
    max_calls: int
    concurrency: int
    batch: bool
    dry_run: bool


def measure_closed_models(
    models: list[str],
    given: ClosedOptions,
    names: list[str],
    read: WindowOptions,
    control: ControlOptions,
    output: OutputOptions,
) -> None:
    """Measure each model by the readings `names`, and print it beside the output rows of the table given for that.

    Raises:
        InputError: if something given cannot be used.
        Exit: with 1 if a batch is not finished, or a control could not be had.
    """
    import pandas as pd
    import typer

    from estimators.base import InputError
    from estimators.contracts.controls import with_controls
    from extraction import Budget, Limits, Server
    from extraction.answers.collecting.batch import NotReadyError
    from extraction.answers.collecting.budget import read_prices
    from extraction.answers.collecting.single_tokens import single_token_file
    from extraction.models.tokenizers import tokenizer_of_closed
    from proxy.measurement.api import (
        ask_in_batch,
        bill,
        check_asked,
        find_first,
        first_is_known,
        measure_closed,
        open_api,
    )
    from proxy.measurement.names import SCORED, check_names
    from proxy.schemas import EMERGENCE

    check_names(names)
    others = None if output.beside is None else rows_beside(output.beside)
    tables: list[pd.DataFrame] = []
    continued: list[pd.DataFrame] = []
    waiting = uncontrolled = False
    for model in models:
        read.check(tokenizer_of_closed(model, given.tokenizer)[0], follows=True)
    for model in models:
        tokenizer, own, called = tokenizer_of_closed(model, given.tokenizer)
        way = "next" if given.ask == "auto" and names and SCORED not in names else given.ask
        input_price, output_price = (None, None) if given.prices is None else read_prices(given.prices, model)
        budget = Budget(input_price, output_price, given.max_cost)
        log = given.log or log_of(model, given.base_url, output.out)
        closed = open_api(
            model, Server(given.base_url, given.key_env, limits=Limits(given.concurrency), budget=budget), tokenizer,
            log=log, own_tokenizer=own, way=way, samples=given.samples, prefix=given.prefix,
        )  # fmt: skip
        closed.kept = None if given.log else single_token_file(model, given.base_url)
        check_asked(closed.asking, names)
        if closed.asking.scored and not own:
            _say(
                f"{model} shows tokens that are not those of a reference tokenizer, so its scores of the text give "
                "predictive alone; --tokenizer names its own, --ask next gives what it shows"
            )
        also = "" if closed.kept is None else f", those after single tokens in {closed.kept} for every corpus"
        _say(f"{model} is asked by {closed.asking.name}; windows are cut by {called}; replies are kept in {log}{also}")
        laid_out = planned(closed, read, given.max_calls, shuffled=control.shuffled or control.controls)
        with progress(f"Trying each first token with {model}") as advance:
            tried = find_first(closed, advance) if first_is_known(closed) or not given.dry_run else {}
        if tried:
            bits = ", ".join(f"{text or 'none'} {value:.2f}" for text, value in tried.items())
            _say(f"Neutral first token: {closed.first or 'none'} (bits that lone tokens tell after each: {bits})")
        if given.dry_run:
            bills = {each.corpus: bill(closed, each, laid_out[:place]) for place, each in enumerate(laid_out)}
            _say_taken(closed)
            _say_bills(bills, closed.opening, given.max_calls, as_json=output.as_json)
            continue
        if given.batch:
            try:
                ask_in_batch(closed, laid_out)
            except NotReadyError as error:
                _say(f"{model}: {error}")
                waiting = True
                continue
        found: list[pd.DataFrame] = []
        for contexts in laid_out:
            listener = None if found else continued.append  # of the text, not of the control behind it
            try:
                with progress(f"Asking {model} on {contexts.corpus}") as report:
                    rows = measure_closed(
                        closed, contexts, names, seed=read.seed, progress=report, on_notice=_say, on_windows=listener
                    )
            except InputError as error:
                if not found:
                    raise
                _say(f"{model} has no control: {error}")  # what was measured of the text is paid for and stays
                uncontrolled = True
            else:
                found.append(rows)
        if control.controls and len(found) > 1:
            found[0] = with_controls(found[0], shuffled=found[1])
        tables += found if control.shuffled else found[:1]
        _say_taken(closed)
        cost = "" if budget.spent is None else f", which cost {budget.spent:.4f}"
        _say(f"This run was billed {budget.prompt_tokens} prompt and {budget.completion_tokens} answer tokens{cost}")
    if given.dry_run:
        return
    if waiting:
        raise typer.Exit(1)
    table = pd.concat(tables, ignore_index=True)
    if not output.as_json:
        show_output(with_others(table, others))
    if output.plot is not None:
        from tracking.reports.plot import plot_depth

        plot_depth(with_others(table, others), output.plot)
        _say(f"Drew {output.plot}")
    if output.out is not None or output.as_json:
        emit(table, output.out, as_json=output.as_json, schema=EMERGENCE)
    keep_continuations(continued, output.out)
    if uncontrolled:
        raise typer.Exit(1)


def planned(closed: Closed, read: WindowOptions, max_calls: int, *, shuffled: bool) -> list[Contexts]:
    """Windows, and shuffled ones as a control, within the calls that are left; what is left out is said.

    Raises:
        InputError: if the corpus cannot be read, or the calls are too few.
    """
    from proxy.measurement.api import affordable, all_calls
    from proxy.measurement.output import corpus_contexts

    every = [
        corpus_contexts(read.corpus, closed.tokenizer, shuffled=each, **read.arguments())
        for each in (False, True)[: 1 + shuffled]
    ]
    for each in every:
        if each.dropped:
            _say(f"{each.corpus}: {each.dropped} windows cannot be cut at whole characters and are left out")
    room = max_calls - all_calls(closed, [])
    chosen = affordable(every, closed.asking, room, seed=read.seed)
    text, count = chosen[0], len(chosen[0].ids)
    if count < len(every[0].ids):
        also = ", and as many shuffled ones," if shuffled else ""
        _say(f"{count} of {len(every[0].ids)} windows{also} are asked for, to keep to {max_calls} calls")
    if len(text.asked) < text.positions:
        _say(f"Lone tokens are asked for at {len(text.asked)} of {text.positions} positions, chosen at random")
    return chosen


def keep_continuations(continued: list[pd.DataFrame], out: Path | None) -> None:
    """Write how single windows were continued beside the table `out`, where banks and `features --output` find it."""
    import pandas as pd

    from extraction.tables import write_table
    from proxy.measurement.continuations import table_beside
    from proxy.schemas import CONTINUATIONS

    if out is not None and continued:
        write_table(pd.concat(continued, ignore_index=True), table_beside(out), CONTINUATIONS)
        _say(f"Wrote single windows to {table_beside(out)}")


def rows_beside(place: Path) -> pd.DataFrame:
    """Rows of a table, or of the references of a bank; `bank` is the one that ships.

    Raises:
        InputError: if neither can be read.
    """
    from extraction.tables import read_table
    from proxy.banks.bank import SHIPPED, load_bank
    from proxy.schemas import EMERGENCE

    if place == Path("bank") and not place.exists():
        return load_bank(SHIPPED).emergence
    return load_bank(place).emergence if place.is_dir() else read_table(place, EMERGENCE)


def with_others(table: pd.DataFrame, others: pd.DataFrame | None) -> pd.DataFrame:
    """Output rows, and below them those of `others` on the same corpora that were read in the same way."""
    import pandas as pd

    from estimators.contracts.conventions import SHUFFLED
    from proxy.features.output import as_chats

    if others is None or "asked" not in others.columns:
        return table
    corpora = set(table["corpus"]) | {f"{corpus}{SHUFFLED}" for corpus in table["corpus"]}
    same = others["estimator"].isin(set(table["estimator"])) & others["corpus"].isin(corpora) & (others["layer"] < 0)
    same &= as_chats(others).isin(set(as_chats(table)))
    if not same.any():
        _say(
            "The table given by --beside has no output rows of this corpus and estimator that were asked in the same "
            "way."
        )
    return pd.concat([table, others[same]], ignore_index=True)


def show_output(rows: pd.DataFrame) -> None:
    """Print output rows with what their controls say, and in what their models were not measured alike."""
    from estimators.contracts.comparable import unlike_lines
    from estimators.contracts.controls import FAILED, verdicts

    rows = rows.sort_values(["estimator", "corpus", "model"], ignore_index=True)
    flags = rows["flags"].fillna("").str.split(",").map(lambda each: ", ".join(one for one in each if one != FAILED))
    rows = rows.assign(verdict=verdicts(rows), flags=flags)
    spare = ("flags", "asked", "corpus", "micro", "macro")
    shown = rows[list(OUTPUT_SHOWN)].rename(columns=OUTPUT_SHOWN)
    show(shown, "Emergence of the output, last position, bits", spare=spare)
    for line in unlike_lines(rows):
        _say(line)


def log_of(model: str, base_url: str, out: Path | None) -> Path:
    """Where the replies of a model at a server are kept: beside the table, the same file for every corpus.

    >>> log_of("org/m", "http://127.0.0.1:8000/v1", Path("results/a.parquet")).as_posix()
    'results/org_m.127.0.0.1_8000.next-tokens.log.jsonl'
    """
    host = urlsplit(base_url).netloc.rsplit("@", 1)[-1]
    name = ".".join(re.sub(r"[^\w.-]+", "_", part) for part in (model, host))
    return (out.parent if out is not None else Path()) / f"{name}.next-tokens.log.jsonl"


def _say_taken(closed: Closed) -> None:
    if closed.taken:
        _say(f"{closed.taken} answers after single tokens were known from earlier measurements and are not asked for")


def _say(text: str) -> None:
    screen.print(text, highlight=False, markup=False, soft_wrap=True)


def _say_bills(bills: dict[str, dict[str, float | None]], opening: int, max_calls: int, *, as_json: bool) -> None:
    import json

    for corpus, bill in bills.items():
        if as_json:
            sys.stdout.write(json.dumps({"corpus": corpus, **bill}) + "\n")
            continue
        cost = "" if bill["cost"] is None else f", costing about {bill['cost']:.4f}"
        first = f", {bill['first_token']} to settle a first token" if bill["first_token"] else ""
        sys.stdout.write(
            f"{corpus}: {bill['calls']} calls ({bill['windows']} for windows, {bill['lone_tokens']} for lone tokens"
            f"{first}) for {bill['answers']} answers: about {bill['prompt_tokens']} prompt tokens and "
            f"{bill['answer_tokens']} answer tokens{cost}. No window was sent.\n"
        )
    if not as_json:
        calls = int(sum(bill["calls"] or 0 for bill in bills.values()))
        sys.stdout.write(f"With {opening} first questions {calls + opening} calls, of at most {max_calls}.\n")
