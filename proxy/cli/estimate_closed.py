"""`emergence estimate MODEL`: from a name and a bank to measured and estimated emergence, in one command."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.cli.console import during, progress, screen, show

if TYPE_CHECKING:
    import pandas as pd

    from proxy.banks.bank import Bank, BankCorpus
    from proxy.banks.estimating import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedModel:
    """What the command line says of a model behind an API; see the help of `emergence estimate`."""

    base_url: str | None
    key_env: str
    tokenizer: str | None
    control: bool
    prices: Path | None
    max_cost: float | None
    max_calls: int | None
    concurrency: int
    yes: bool


def estimate_closed(
    subject: str,
    given: ClosedModel,
    *,
    bank: Path | None,
    corpus: str | None,
    estimator: str,
    out: Path | None,
    as_json: bool,
) -> Estimate | None:
    """Measure a model's output as the bank's references were, estimate its blocks, print and write both.

    Returns:
        The estimate; None if the bill was not agreed to.

    Raises:
        InputError: if something given cannot be used.
    """
    from estimators.base import InputError
    from estimators.contracts.files import check_file, check_place
    from extraction.answers.responses import read_responses
    from extraction.tables import write_table
    from proxy.banks.answers import holds_answers
    from proxy.banks.bank import SHIPPED, load_bank
    from proxy.banks.estimating import check_runs, estimate_emergence, estimate_from_answers, measured_alone
    from proxy.banks.report import MEASURED_ROWS, write_estimate
    from proxy.banks.ways import proxies
    from proxy.measurement.continuations import table_beside
    from proxy.schemas import CONTINUATIONS

    path = Path(subject)
    check_file(path)
    with during("Reading the bank"):
        references = load_bank(bank or SHIPPED)
    check_runs(references)
    chosen = references.corpus(corpus)
    if not proxies(references, chosen.name, estimator):
        raise InputError(
            f"The bank {references.name} has no proxy for {estimator} on {chosen.name}; its blocks were measured by "
            f"{', '.join(references.estimators(chosen.name)) or 'nothing'}."
        )
    folder = out or Path(f"{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(subject).stem or subject)}-estimate")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for card, tables and figure by --out.")
    check_place(folder)
    answers = read_responses(path) if holds_answers(path) else None
    why = None
    if answers is not None:
        windows = None
    elif path.is_file():
        measured, windows = read_rows(path, references, None if corpus is None else chosen)
    elif path.is_dir():
        raise InputError(
            f"{subject} is a folder: name a model at an API or a table of its output rows or answers, or give a table "
            "of features as well, where it is a proxy."
        )
    else:
        answered = asked_rows(subject, given, references, chosen, estimator, folder)
        if answered is None:
            return None
        measured, windows, why = answered
    if answers is not None:
        with progress("Reading answers, fitting with references left out in turn") as advance:
            found = estimate_from_answers(references, answers, corpus, estimator=estimator, progress=advance)
    elif why is None:
        with progress("Fitting with references left out in turn") as advance:
            found = estimate_emergence(references, measured, windows, estimator=estimator, progress=advance)
    else:
        found = measured_alone(references, measured, why, estimator=estimator)
    written = write_estimate(found, folder)
    if windows is not None and not path.is_file():
        write_table(windows, table_beside(folder / MEASURED_ROWS), CONTINUATIONS)
    if as_json:
        sys.stdout.write(found.table.to_json(orient="records", indent=1) + "\n")
    else:
        show_estimate(found)
    say(f"Wrote {', '.join(written)} into {folder}")
    return found


def track_estimate(found: Estimate, tracking_uri: str | None) -> None:
    """Log an estimate to MLflow and say which run it became."""
    from tracking import track_estimates

    columns = ["model", "target", "how", "estimate", "lower", "upper", "in_domain", "truth", "mean", "remarks"]
    run = track_estimates(
        found.table.assign(model=found.model)[columns],
        tracking_uri=tracking_uri,
        name=f"estimate of {found.model} on {found.corpus}",
    )
    say(f"Logged to MLflow: run {run}")


def read_rows(path: Path, bank: Bank, corpus: BankCorpus | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Output rows of one model from a table, on the corpus that was chosen, and its single windows where they are kept.

    Where none was chosen it is the first of the bank's that the table has.

    Raises:
        InputError: if the table holds no such rows.
    """
    from estimators.base import InputError
    from extraction.tables import read_table
    from proxy.measurement.continuations import table_beside
    from proxy.schemas import CONTINUATIONS, EMERGENCE

    table = read_table(path, EMERGENCE)
    output = table[table["layer"] < 0]
    has = sorted(output["corpus"].unique())
    if corpus is not None and corpus.name not in has:
        raise InputError(f"{path} holds no output rows on {corpus.name}; it has {', '.join(has) or 'none at all'}.")
    name = next((one.name for one in (bank.corpora if corpus is None else [corpus]) if one.name in has), None)
    own = output[output["corpus"] == name]
    beside = table_beside(path)
    windows = read_table(beside, CONTINUATIONS) if beside.is_file() else None
    if windows is not None:
        windows = windows[windows["model"].isin(table["model"].unique())]
    return own if len(own) else table, windows


def asked_rows(
    model: str, given: ClosedModel, bank: Bank, corpus: BankCorpus, estimator: str, folder: Path
) -> tuple[pd.DataFrame, pd.DataFrame, str | None] | None:
    """Show the bill, and once it is agreed to, ask.

    Returns:
        Output rows, single windows, and why no proxy of the bank fits the server, if none does; None where nothing was
        asked.

    Raises:
        InputError: if the server cannot be asked.
    """
    import pandas as pd

    from extraction import Budget, Limits, Server
    from extraction.answers.collecting.budget import read_prices
    from extraction.answers.collecting.single_tokens import single_token_file
    from extraction.models.tokenizers import tokenizer_of_closed
    from proxy.banks.estimating import ask, bills, to_ask
    from proxy.banks.ways import fitting_way, lacking, proxies
    from proxy.measurement.api import open_api

    tokenizer, own, called = tokenizer_of_closed(model, given.tokenizer)
    input_price, output_price = (None, None) if given.prices is None else read_prices(given.prices, model)
    budget = Budget(input_price, output_price, given.max_cost)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "next-tokens.log.jsonl"
    open_by = partial(
        open_api,
        model,
        Server(given.base_url, given.key_env, limits=Limits(given.concurrency), budget=budget),
        tokenizer,
        log=log,
        own_tokenizer=own,
        prefix="auto" if bank.neutral else "none",
    )
    closed = open_by(way="next")
    fits = partial(fitting_way, bank, corpus.name, estimator=estimator)
    if closed.asking.shown and fits(closed.asking) is None:  # too few logprobs; samples it gives too
        sampled = open_by(way=f"{'chat' if closed.asking.chat else 'completions'}-samples")
        if (remains := fits(sampled.asking)) is not None:
            say(
                f"Note: the server shows {closed.asking.shown} logprobs; of the proxies of {bank.name} "
                f"({', '.join(proxies(bank, corpus.name, estimator))}) {remains.name} remains."
            )
            closed = sampled
    closed.kept = single_token_file(model, given.base_url)
    asked = to_ask(bank, corpus, closed, estimator=estimator, calls=given.max_calls, control=given.control)
    total = bills(closed, asked)
    cost = "" if total["cost"] is None else f", at most about {total['cost']:.4f}"
    say(
        f"{model} is asked by {closed.asking.name} for the next token after {len(asked.contexts.texts)} windows of "
        f"{corpus.name} and after {len(asked.contexts.alone_texts)} tokens alone"
        + (f", and {len(asked.control.texts)} shuffled windows" if asked.control else "")
        + f"; windows are cut by {called}."
    )
    for remark in asked.remarks:
        say(f"Note: {remark}.")
    say(
        f"The bill: {total['calls']} calls, about {total['prompt_tokens']} prompt tokens and {total['answer_tokens']} "
        f"answer tokens{cost}. Replies are kept in {log} and paid for once."
    )
    if total["calls"] and not given.yes and not agreed():
        say("Nothing was sent. The same command with --yes continues.")
        return None
    continued: list[pd.DataFrame] = []
    with progress(f"Asking {model}") as report:
        rows = ask(closed, asked, seed=bank.seed, progress=report, on_notice=say, on_windows=continued.append)
    why = lacking(bank, corpus.name, closed.asking, estimator) if asked.way is None else None
    return rows, pd.concat(continued, ignore_index=True), why


def agreed() -> bool:
    """Whether the user at the terminal says yes; without a terminal, no."""
    return sys.stdin.isatty() and screen.is_terminal and input("Continue? [y/N] ").strip().lower() in ("y", "yes")


def show_estimate(found: Estimate) -> None:
    """Print what was measured, what is estimated, and what the baselines did on left-out references."""
    from proxy.banks.report import estimates_table, measured_table

    if len(found.measured):
        title = f"Measured: emergence of {found.model}'s output on {found.corpus}, bits"
        show(measured_table(found), title, spare=("asked", "windows", "accuracy"))
    if found.proxy is not None:
        title = f"E of its blocks ({found.estimator}), bits, from the bank {found.bank}"
        show(estimates_table(found), title, spare=("in_domain", "size_error", "mean_error"))
    if found.proxy is not None:
        say(f"{found.model} lies {'inside' if found.peak['in_domain'] else 'outside'} the bank.")
        say(f"Peak, on left-out references: {found.proxy.verdict.sentence}")
    for remark in found.remarks:
        say(f"Note: {remark}.")


def say(text: str) -> None:
    """Print a message for the user."""
    screen.print(text, highlight=False, markup=False, soft_wrap=True)
