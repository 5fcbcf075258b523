"""`emergence collect`: the answers of a model that is open only through an API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.console import emit, progress, screen
from proxy.cli.groups import COST, SERVER, Batch, Concurrency, DryRun, KeyEnv, MaxCost, Prices

if TYPE_CHECKING:
    from extraction.answers.collecting.budget import Budget


SAMPLING = "What determines an answer"  # a panel of --help


def collect(
    model: Annotated[str, typer.Argument(help="The model's name at the server.")],
    out: Annotated[Path, typer.Option(help="Table to write: .parquet, .csv or .json; the log is kept beside it.")],
    prompts: Annotated[
        str, typer.Option(help="Built-in set (demo, lists, questions) or a .txt, .jsonl, .csv or .parquet file.")
    ] = "demo",
    base_url: Annotated[
        str | None, typer.Option(help="Server; by default OPENAI_BASE_URL, or OpenAI.", rich_help_panel=SERVER)
    ] = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    endpoint: Annotated[
        str, typer.Option(help="auto, chat, completions or responses.", rich_help_panel=SERVER)
    ] = "auto",
    samples: Annotated[int, typer.Option(min=1, help="Answers per prompt.", rich_help_panel=SAMPLING)] = 1,
    max_tokens: Annotated[
        int,
        typer.Option(
            help="Longest answer, in the server's tokens; for all answers: --max-total-tokens.",
            rich_help_panel=SAMPLING,
        ),
    ] = 64,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.", rich_help_panel=SAMPLING)] = 1.0,
    system: Annotated[str | None, typer.Option(help="System prompt.", rich_help_panel=SAMPLING)] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text at which an answer ends; repeatable.", rich_help_panel=SAMPLING)
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Base seed; the seed of each answer is derived from it.", rich_help_panel=SAMPLING)
    ] = 0,
    concurrency: Concurrency = 8,
    max_retries: Annotated[int, typer.Option(help="Further attempts after a lost reply.", rich_help_panel=SERVER)] = 5,
    timeout: Annotated[
        float, typer.Option(help="Longest wait for one reply, in seconds.", rich_help_panel=SERVER)
    ] = 120.0,
    prices: Prices = None,
    max_cost: MaxCost = None,
    max_total_tokens: Annotated[
        int | None,
        typer.Option(
            help="Limit on prompt and answer tokens billed for this log, earlier runs included.",
            rich_help_panel=COST,
        ),
    ] = None,
    dry_run: DryRun = False,
    batch: Batch = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
) -> None:
    """Ask a model behind an OpenAI-compatible API; every answer is kept as it arrives and paid for once.

    The same command again asks only for what is missing or failed. The key is read from the environment.

    Example: `emergence collect gpt-4o-mini --prompts demo --samples 2 --out answers.parquet`

    What would it cost? `emergence collect gpt-4o-mini --prices prices.json --dry-run --out answers.parquet`

    A server on this machine needs no key:
    `emergence collect gemma-2m --base-url http://127.0.0.1:8000/v1 --out answers.parquet`
    """
    from estimators.base import InputError
    from extraction.answers.collecting.api import check_base_url
    from extraction.answers.collecting.batch import NotReadyError
    from extraction.answers.collecting.budget import Budget, read_prices
    from extraction.answers.collecting.options import Limits, Server
    from extraction.answers.collecting.run import collect as collect_answers
    from extraction.answers.collecting.run import estimate_bill, log_path
    from extraction.answers.prompt_sets import prompts as read_prompts
    from extraction.answers.sampling import Sampling
    from extraction.tables import check_table_path

    sampling = Sampling(max_tokens, temperature, seed, system, tuple(stop or ()))
    asked = read_prompts(prompts)
    if Path(prompts).exists() and out.exists() and Path(prompts).samefile(out):
        raise InputError(f"--out {out} is the file of the prompts; give another, or the prompts would be overwritten.")
    price_in, price_out = (None, None) if prices is None else read_prices(prices, model)
    budget = Budget(price_in, price_out, max_cost, max_total_tokens)
    server = Server(
        base_url,
        key_env,
        endpoint,  # type: ignore[arg-type]  # checked there
        limits=Limits(concurrency, max_retries, timeout),
        budget=budget,
    )
    if dry_run:
        check_base_url(base_url)
        check_table_path(out)
        bill = estimate_bill(model, asked, out=out, budget=budget, samples=samples, sampling=sampling)
        _say_bill(bill, as_json=as_json)
        return
    try:
        with progress(
            lambda: f"Asking {model}" + ("" if budget.spent is None else f", {budget.spent:.4f} spent")
        ) as advance:
            done = collect_answers(
                model,
                asked,
                out=out,
                server=server,
                sampling=sampling,
                samples=samples,
                batch=batch,
                progress=advance,
            )
    except NotReadyError as error:
        screen.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    lines = [
        f"Wrote {done.rows} rows to {out}; the answers are kept in {log_path(out)}",
        _bill(budget),
        _abilities(asdict(done.capabilities), temperature, system, samples),
    ]
    if done.cut_before_text:
        lines.append(
            f"{done.cut_before_text} answers reached their length before any text, as reasoning may; raise --max-tokens"
        )
    for line in lines:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
    for what, count in (+done.instead).items():
        line = f"{count} of {done.rows} answers are {what} and count as missing"
        screen.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        emit(done.table(), None, as_json=True)
    for reason, count in done.reasons.most_common(10):
        screen.print(f"{count} failed: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    if done.reasons:
        raise typer.Exit(1)


def _bill(budget: Budget) -> str:
    cost = "" if budget.spent is None else f", which cost {budget.spent:.4f}"
    before = f"; earlier ones into this log {sum(budget.earlier)} tokens" if any(budget.earlier) else ""
    return (
        f"This run was billed {budget.prompt_tokens} prompt and {budget.completion_tokens} answer tokens{cost}{before}"
    )


def _abilities(able: Mapping[str, Any], temperature: float, system: str | None, samples: int) -> str:
    """One line on what the server was found to do."""
    facts = [
        f"logprobs of {able['logprobs']} tokens" if able["logprobs"] else "no logprobs",
        {True: "seeds obeyed", False: "no seeds", None: "seeds untested, as answers do not vary"}[able["seed"]],
    ]
    if samples > 1:
        facts.append("several answers per call" if able["several"] else "one answer per call")
    if temperature and not able["sampled"]:
        facts.append("answers do not vary, so the temperature seems to be ignored")
    if system and able["system"] is False:
        facts.append("the system prompt seems to be ignored")
    if able["rejected"]:
        facts.append(f"refuses {', '.join(able['rejected'])}")
    return f"The server, at its {able['endpoint']} endpoint: {'; '.join(facts)}"


def _say_bill(bill: dict[str, float | None], *, as_json: bool) -> None:
    import json
    import sys

    if as_json:
        sys.stdout.write(json.dumps(bill) + "\n")
        return
    probe = bill["probe_prompt_tokens"], bill["probe_answer_tokens"]
    probing = f", with at most {probe[0]} and {probe[1]} more to find out what the server can do" if any(probe) else ""
    cost = "" if bill["cost"] is None else f", costing at most about {bill['cost']:.4f}"
    sys.stdout.write(
        f"{bill['answers']} answers would be asked for: about {bill['prompt_tokens']} prompt tokens and at most "
        f"{bill['answer_tokens']} answer tokens{probing}{cost}. Nothing was sent.\n"
    )
