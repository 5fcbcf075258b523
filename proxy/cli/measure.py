"""`emergence measure`: the emergence table of one or more models, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.console import during, emit, progress, screen
from proxy.cli.groups import COST, SERVER, Batch, Concurrency, DryRun, KeyEnv, MaxCost, Prices, Tokenizer
from proxy.cli.summary import show_summary
from proxy.cli.unused import refuse

if TYPE_CHECKING:
    import pandas as pd

    from extraction import LanguageModel, Likelihoods, Windows
    from proxy.cli.groups import ControlOptions, WindowOptions

WINDOWS = 2000
CLOSED_WINDOWS = 500  # of a model behind an API, where 2,000 would be ten thousand calls
OPEN = ("likelihoods", "option", "full", "revision", "device")  # beside where states are held: of open models alone
# Panels of --help.
WHAT = "What is measured"
CONTROLS = "Controls"
OUTPUT = "What is written and printed"
STATES = "Where states are held"


def measure(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Bundled name, folder, .gguf file or hub id; or its name at the server of --base-url.",
        ),
    ],
    corpus: Annotated[
        str,
        typer.Option(
            help="animal, country, color, python-docs, or a text file; see the manual for more.", rich_help_panel=WHAT
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Emergence table to write: .parquet, .csv or .json.", rich_help_panel=OUTPUT)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw E by depth with its controls: .png, .svg, or .html for a whole report.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(
            help="predictive (what a state tells about the next token), sample-propagation (of the states themselves), "
            "a trained one: mine, infonce, smile, nwj; or readings of the output, separated by commas: predictive-20, "
            "output-20, output-2.",
            rich_help_panel=WHAT,
        ),
    ] = "predictive",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Option of a trained estimator; may be repeated.", rich_help_panel=WHAT
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Read a large model at every position and on more windows; takes about three times as long.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    windows: Annotated[
        int | None,
        typer.Option(
            min=2,
            help=f"Windows of text to measure; {WINDOWS} unless given, {CLOSED_WINDOWS} behind an API.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens per window.", rich_help_panel=WHAT)] = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the text, where the corpus is a table.", rich_help_panel=WHAT)
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            metavar="auto|none|TOKEN",
            help="Token before windows and lone tokens. auto: what the tokenizer adds; otherwise the special token, "
            "or none, after which lone tokens predict best.",
            rich_help_panel=WHAT,
        ),
    ] = "auto",
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.", rich_help_panel=WHAT)] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, mps; spread: over all GPUs.", rich_help_panel=WHAT)
    ] = "auto",
    twin: Annotated[
        bool,
        typer.Option(
            "--twin", help="Measure each model with random weights too, as MODEL~random.", rich_help_panel=CONTROLS
        ),
    ] = False,
    shuffled: Annotated[
        bool,
        typer.Option(
            "--shuffled",
            help="Measure each model on shuffled windows too, as CORPUS, shuffled.",
            rich_help_panel=CONTROLS,
        ),
    ] = False,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls",
            help="Measure a random-weights twin and shuffled windows for each number, and flag what is not above both.",
            rich_help_panel=CONTROLS,
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of windows, projection, noise and controls.", rich_help_panel=WHAT)
    ] = 0,
    likelihoods: Annotated[
        Path | None,
        typer.Option(
            help="Table to write of likelihood, entropy and, on lists, accuracy by shots, from the same pass.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    states_gb: Annotated[
        float,
        typer.Option(help="Main memory for states, in GB; what needs more is spilled to disk.", rich_help_panel=STATES),
    ] = 2.0,
    spill_dir: Annotated[
        Path | None, typer.Option(help="Folder to spill to; default the temporary one.", rich_help_panel=STATES)
    ] = None,
    spill_gb: Annotated[
        float, typer.Option(min=0, help="Most that may be spilled, in GB.", rich_help_panel=STATES)
    ] = 50.0,
    base_url: Annotated[
        str | None,
        typer.Option(help="Server that the model answers at; its output is then measured.", rich_help_panel=SERVER),
    ] = None,
    key_env: KeyEnv = "OPENAI_API_KEY",
    tokenizer: Tokenizer = None,
    ask: Annotated[
        str,
        typer.Option(
            help="auto; next: as auto, but have no text scored; or completions-echo, completions-logprobs, "
            "chat-logprobs, completions-samples, chat-samples; a "
            "chat asks open models for readings of the output in their chat template, too.",
            rich_help_panel=SERVER,
        ),
    ] = "auto",
    samples: Annotated[
        int, typer.Option(min=2, help="Samples per text where an API gives no logprobs.", rich_help_panel=SERVER)
    ] = 8,
    log: Annotated[
        Path | None, typer.Option(help="Where replies are kept, for all corpora.", rich_help_panel=SERVER)
    ] = None,
    prices: Prices = None,
    max_cost: MaxCost = None,
    max_calls: Annotated[
        int,
        typer.Option(
            min=1,
            help="Limit on all calls for a model: first questions, windows, lone tokens, control; fewer lone tokens "
            "and windows are then asked for.",
            rich_help_panel=COST,
        ),
    ] = 2500,
    concurrency: Concurrency = 8,
    batch: Batch = False,
    dry_run: DryRun = False,
    beside: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE|BANK",
            help="Emergence table, or folder of a bank (bank: the one that ships), whose output rows are printed too.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every row as JSON on stdout.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Measure macro, micro and emergence of every block at every position, in bits.

    Shows a row per model: E(l) at its highest block, and whether it lies above its controls. `--out` also writes every
    row, and `--json` prints them on stdout.

    Example: `emergence measure gpt2-2m gemma-2m --corpus python-docs --controls --out emergence.parquet`

    `--likelihoods FILE` also runs the head, and writes its likelihoods, entropies and accuracy by shots.

    A model behind an API:
    `emergence measure gpt-4o-mini --base-url https://api.openai.com/v1 --corpus python-docs --controls`

    The same readings of an open model:
    `emergence measure gpt2-2m --corpus python-docs --estimator predictive-20,output-20,output-2`

    With the paper's estimator, in a small budget:
    `emergence measure gpt2-30k --corpus color --windows 500 --estimator mine --option preset=paper --option epochs=50`
    """
    import pandas as pd

    from estimators.contracts.controls import with_controls
    from extraction import StateBudget, load_model, random_twin
    from extraction import windows as make_windows
    from extraction.answers.collecting.next_tokens import check_way
    from extraction.corpora.token_windows import fewer_windows
    from extraction.models.load import model_tokenizer
    from extraction.models.names import distinct_models
    from extraction.tables import check_table_path, write_table
    from proxy.cli.groups import ControlOptions, OutputOptions, WindowOptions
    from proxy.measurement.names import check_options, estimator_names, is_output
    from proxy.measurement.output import output_windows
    from proxy.measurement.prefix import chosen_prefix
    from proxy.measurement.table import Listeners
    from proxy.measurement.table import measure as measure_model
    from proxy.schemas import EMERGENCE

    for path in (out, likelihoods):
        if path is not None:
            check_table_path(path)
    if plot is not None:
        from tracking.reports.plot import check_plot_path, plot_depth

        check_plot_path(plot)
    check_way(ask)
    asked = estimator_names(estimator)
    readings = [name for name in asked if is_output(name)]
    inner = [name for name in asked if not is_output(name)]  # read from the states
    if windows is None:
        windows = WINDOWS if base_url is None else CLOSED_WINDOWS
    corpus_windows = WindowOptions(corpus=corpus, windows=windows, tokens=tokens, column=column, seed=seed)
    control = ControlOptions(twin=twin, shuffled=shuffled, controls=controls)
    if base_url is not None:
        refuse("for a model whose weights are here; leave it out.", panels=(STATES,), names=OPEN)
        from proxy.cli.measure_closed import ClosedOptions, measure_closed_models

        if twin or controls:
            _remark("A model behind an API has no random-weights twin; use shuffled windows as its control.")
        given = ClosedOptions(
            base_url=base_url, key_env=key_env, tokenizer=tokenizer, ask=ask, samples=samples, prefix=prefix, log=log,
            prices=prices, max_cost=max_cost, max_calls=max_calls, concurrency=concurrency, batch=batch,
            dry_run=dry_run,
        )  # fmt: skip
        output = OutputOptions(out=out, beside=beside, plot=plot, as_json=as_json)
        measure_closed_models(models, given, [] if asked == ["predictive"] else asked, corpus_windows, control, output)
        return
    from proxy.cli.measure_closed import keep_continuations

    refuse("for a model behind an API; give its --base-url as well.", panels=(SERVER, COST), without=("ask",))
    options = parse_options(option or [])
    if full:
        options["full"] = True
    check_options(asked, options)
    # What is asked in a chat is wrapped in its template: other sequences than those whose states are read.
    wrapped, read_here = (readings, inner) if ask.startswith("chat") else ([], asked)
    budget = StateBudget(states_gb=states_gb, spill_dir=spill_dir, spill_gb=spill_gb)
    tables: list[pd.DataFrame] = []
    said: list[pd.DataFrame] = []
    continued: list[pd.DataFrame] = []
    names = distinct_models(models)
    if len(names) < len(models):
        _remark(f"Models given more than once are measured once: {', '.join(names.values())}")
    for name, display_name in names.items():
        with during(f"{display_name}: reading {corpus}"):
            corpus_windows.check(model_tokenizer(name, revision=revision), follows=bool(readings))
    with closing(_each_kept([*names], tables, out)) as each:
        for name in each:
            with during(f"Loading {names[name]}"):
                model = replace(load_model(name, revision=revision, device=device), name=names[name])
            with during(f"{model.name}: looking for its neutral first token"):
                front = chosen_prefix(model, prefix)
            model = replace(model, prefix=front.ids)
            if front.gains and front.ids:
                _remark(f"{model.name}: {front}")
            make = output_windows if readings else make_windows  # that all say what follows
            how = corpus_windows.arguments()
            chosen = make(corpus, model.tokenizer, prefix=model.prefix, **how)
            if fewer := fewer_windows(chosen, windows):
                _remark(f"{model.name}: {fewer}")
            if chosen.dropped:
                _remark(
                    f"{model.name}: {len(chosen.dropped)} entities are not single tokens here and were left out: "
                    f"{', '.join(chosen.dropped)}"
                )
            if wrapped:
                tables += _asked_in_chat(model, wrapped, corpus_windows, control, continued.append)
            if not read_here:
                continue
            cases = {"": (model, chosen)}
            cases |= {"twin": (random_twin(model, seed=seed), chosen)} if twin or controls else {}
            if shuffled or controls:
                mixed = (
                    output_windows(corpus, model.tokenizer, prefix=model.prefix, shuffled=True, **how)
                    if readings
                    else chosen.shuffled(seed)
                )
                cases["shuffled"] = model, mixed
            found = {}
            for case, (one, read) in cases.items():
                with progress(f"{one.name} on {read.corpus}", counted=False) as report:
                    found[case] = measure_model(
                        one,
                        read,
                        estimator=",".join(read_here),
                        options=options,
                        seed=seed,
                        budget=budget,
                        listeners=Listeners(
                            notice=_remark,
                            likelihoods=None if likelihoods is None else partial(_keep, said, read, one.name),
                            continuations=continued.append if case == "" else None,
                            progress=report,
                        ),
                    )
            if controls:
                found[""] = with_controls(found[""], twin=found["twin"], shuffled=found["shuffled"])
            tables += [found[case] for case, shown in (("", True), ("twin", twin), ("shuffled", shuffled)) if shown]
    table = pd.concat(tables, ignore_index=True)
    if likelihoods is not None:
        write_table(pd.concat(said, ignore_index=True), likelihoods)
        _remark(f"Wrote {sum(map(len, said))} rows to {likelihoods}")
    if readings and not as_json:
        from proxy.cli.measure_closed import rows_beside, show_output, with_others

        others = None if beside is None else rows_beside(beside)
        show_output(with_others(table[table["layer"] < 0], others))
    if inner and not as_json:
        show_summary(table[table["layer"] >= 0])
    if plot is not None:
        plot_depth(table, plot)
        _remark(f"Drew {plot}")
    if out is not None or as_json:
        emit(table, out, as_json=as_json, schema=EMERGENCE)
    keep_continuations(continued, out)


def _each_kept(models: list[str], tables: list[pd.DataFrame], out: Path | None) -> Generator[str]:
    """Yield the models; should the work end before the last, `tables` of finished ones are kept beside `out`."""
    from proxy.cli.stopping import kept, this_command

    beside = None if out is None else out.with_name(f"{out.stem}.unfinished{out.suffix}")
    whole = 0  # models that are finished, and the tables they gave
    known = 0

    def state() -> str:
        if beside is None or not whole:
            return f"An interrupted measurement keeps nothing; start again with: {this_command()}"
        rest = this_command(without=models[:whole])
        return f"{whole} of {len(models)} models are kept in {beside}; the others: {rest}"

    try:
        with kept(state):
            for name in models:
                yield name
                whole, known = whole + 1, len(tables)
    finally:
        if beside is not None and 0 < whole < len(models):
            import pandas as pd

            from extraction.tables import write_table
            from proxy.schemas import EMERGENCE

            write_table(pd.concat(tables[:known], ignore_index=True), beside, EMERGENCE)
            _remark(state())


def _asked_in_chat(
    model: LanguageModel,
    names: list[str],
    chosen: WindowOptions,
    control: ControlOptions,
    on_windows: Callable[[pd.DataFrame], None],
) -> list[pd.DataFrame]:
    """Rows of the output of a model and of its controls, asked in its chat template."""
    from estimators.contracts.controls import with_controls
    from extraction import random_twin
    from extraction.answers.collecting.next_tokens import INSTRUCTION
    from proxy.measurement.output import corpus_contexts, measure_output

    read = partial(measure_output, names=names, seed=chosen.seed, instruction=INSTRUCTION)
    contexts = partial(corpus_contexts, chosen.corpus, model.tokenizer, **chosen.arguments())
    plain = contexts()
    found = {"": read(model, plain, on_windows=on_windows)}
    if control.twin or control.controls:
        found["twin"] = read(random_twin(model, seed=chosen.seed), plain)
    if control.shuffled or control.controls:
        found["shuffled"] = read(model, contexts(shuffled=True))
    if control.controls:
        found[""] = with_controls(found[""], twin=found["twin"], shuffled=found["shuffled"])
    shown = (("", True), ("twin", control.twin), ("shuffled", control.shuffled))
    return [found[case] for case, asked in shown if asked]


def _remark(text: str) -> None:
    screen.print(text, highlight=False, markup=False, soft_wrap=True)


def _keep(said: list[pd.DataFrame], chosen: Windows, model: str, likelihoods: Likelihoods) -> None:
    from extraction import likelihood_table

    said.append(likelihood_table(likelihoods, chosen, model))


def parse_options(given: list[str]) -> dict[str, object]:
    """Read NAME=VALUE pairs, values as YAML reads them: numbers, true and false, else text.

    >>> parse_options(["preset=paper", "epochs=50"])
    {'preset': 'paper', 'epochs': 50}
    """
    import yaml

    from estimators.base import InputError
    from estimators.contracts.numbers import number

    options: dict[str, object] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"An option is NAME=VALUE, such as epochs=50; got {pair!r}.")
        try:
            options[name] = read = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise InputError(f"--option {name} takes a number, true, false or a word; got {value!r}.") from None
        if isinstance(read, list | dict):
            raise InputError(f"--option {name} takes one value; got {value!r}.")
        if isinstance(read, int | float) and not isinstance(read, bool):
            number(read, f"--option {name}")
    return options
