"""From a bank and what a model says to its emergence: its output as measured, its blocks as estimated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from estimators.base import InputError, Progress
from estimators.contracts.controls import with_controls
from estimators.contracts.conventions import SHUFFLED
from proxy.banks.answers import answer_references, features_alike
from proxy.banks.bank import CHAT, WEIGHTS, Bank, BankCorpus
from proxy.banks.targets import (
    DEPTHS,
    ESTIMATOR,
    PEAK,
    model_features,
    profile_targets,
    reference_table,
    target,
    without_model,
)
from proxy.banks.ways import Way, fitting_way, lacking, proxies
from proxy.features.output import NOISE, SAMPLES, needed_readings, shown_in
from proxy.measurement.api import LEAST_WINDOWS as LEAST_READ
from proxy.measurement.api import Closed, affordable, all_calls, bill, measure_closed, readings
from proxy.measurement.output import OUTPUT_LAYER, Contexts, OnWindows, corpus_contexts
from proxy.regression.domain import WITHHELD, widen
from proxy.regression.folds import rows_needed, unit_left_out
from proxy.regression.intervals import Intervals
from proxy.regression.proxy import Proxy, fit_proxy
from proxy.regression.references import PREFIXES
from proxy.regression.regressor import ProxyRegressor
from proxy.schemas import EMERGENCE

LEVEL = 0.9
FEWEST_RUNS = rows_needed(LEVEL)
CONTROL_WINDOWS = 500  # shuffled: a control needs no finer error
LEAST_WINDOWS = 100  # fewer tell too little of a model to place it among references
TRIES, SLACK = 5, 0.97  # of finding as many windows as the money buys
OUTPUT_E = "output.predictive_e"


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is asked of a model for a bank's proxy, and no more.

    Attributes:
        corpus: of the bank.
        way: which proxy it is for; None: none of the bank's, and the output is measured alone.
        readings: of the output.
        contexts: windows and lone tokens.
        control: fewer of them with shuffled windows; None: no control.
        remarks: what a reader must know.
    """

    corpus: BankCorpus
    way: Way | None
    readings: tuple[str, ...]
    contexts: Contexts
    control: Contexts | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What is known of a model's emergence on one corpus.

    Attributes:
        model: its name.
        corpus: of the bank.
        bank: name of the bank.
        estimator: of the blocks.
        measured: output rows of the emergence table, the control beside each; none where only answers are known.
        table: target, depth, how (estimated, measured, not estimated), estimate, lower, upper, level, in_domain,
            novelty, candidate, proxy_error, mean_error, size_error (mean absolute errors on left-out references), mean
            (of the references), truth (of a model of the bank, else empty), remarks.
        proxy: of the peak, with its scores and left-out references; None where no proxy of the bank fits.
        remarks: what a reader must know.
    """

    model: str
    corpus: str
    bank: str
    estimator: str
    measured: pd.DataFrame
    table: pd.DataFrame
    proxy: Proxy | None
    remarks: tuple[str, ...]

    @property
    def peak(self) -> pd.Series:
        """The row of the peak."""
        return self.table.iloc[0]


def check_runs(bank: Bank, level: float = LEVEL) -> None:
    """Refuse a bank that gives no interval, before anything is asked.

    Raises:
        InputError: if it has too few independent runs.
    """
    needed = rows_needed(level)
    if bank.runs < needed:
        raise InputError(
            f"The bank {bank.name} has {bank.runs} independent training runs; a {level:.0%} interval needs {needed}. "
            "Add models of other runs (emergence bank merge), checkpoints of one run count as one."
        )


def check_references(bank: Bank, corpus: str, way: Way, estimator: str, model: str, level: float = LEVEL) -> None:
    """Refuse what would be refused after a model was asked, before it is.

    Raises:
        InputError: if too few runs remain as references of `model`.
    """
    kept, _ = without_model(bank, model)
    table = reference_table(kept, corpus, shown=way.shown, chat=way.chat, estimator=estimator)
    _check_remaining(table, bank, corpus, model, level)


def _check_remaining(table: pd.DataFrame, bank: Bank, corpus: str, model: str, level: float) -> None:
    runs = table["run"].nunique()
    if runs < rows_needed(level):
        said = "".join(f" {remark}." for remark in table.attrs["remarks"])
        raise InputError(
            f"{runs} independent runs of {bank.name} remain as references of {model} on {corpus}; a {level:.0%} "
            f"interval needs {rows_needed(level)}.{said}"
        )


def to_ask(
    bank: Bank,
    corpus: BankCorpus,
    closed: Closed,
    *,
    estimator: str = ESTIMATOR,
    calls: int | None = None,
    control: bool = True,
) -> Asked:
    """Lay out what is asked of a model behind an API: as many windows as the references read, and no more.

    Where the server cannot give what any proxy of the bank needs, it is asked for what it gives. Where the budget in
    money is below the bill, fewer windows are asked for, too.

    Args:
        bank: the references.
        corpus: on which.
        closed: the model.
        estimator: of the blocks to estimate.
        calls: most calls, all in all; fewer windows are asked for then.
        control: whether shuffled windows are asked for, too.

    Raises:
        InputError: if calls or money are too little (says what they buy), or too few references remain.
    """
    asked = _within_calls(
        bank, corpus, closed, estimator, control, calls, "all" if calls is None else f"A limit of {calls} calls"
    )
    limit = closed.server.budget.max_cost
    if limit is None:
        return asked
    for _ in range(TRIES):
        cost = bills(closed, asked)["cost"]
        if cost is None or cost <= limit:
            return asked
        several = [asked.contexts] if asked.control is None else [asked.contexts, asked.control]
        room = all_calls(closed, several) if calls is None else calls
        calls = int(SLACK * room * limit / cost)
        asked = _within_calls(
            bank, corpus, closed, estimator, control, calls, f"A limit of {limit:g}, about {calls} calls,"
        )
    return asked


def _within_calls(
    bank: Bank, corpus: BankCorpus, closed: Closed, estimator: str, control: bool, calls: int | None, bought: str
) -> Asked:
    """Lay out what `calls` calls buy, `bought` being their name in messages."""
    way = fitting_way(bank, corpus.name, closed.asking, estimator)
    remarks = []
    if way is None:
        remarks.append(lacking(bank, corpus.name, closed.asking, estimator))
    else:
        check_references(bank, corpus.name, way, estimator, closed.model)
    names = readings(closed.asking) if way is None else needed_readings(way.shown)
    place = corpus.place(bank.folder)
    make = partial(corpus_contexts, place, closed.tokenizer, tokens=corpus.tokens, seed=bank.seed)
    contexts = replace(make(count=corpus.windows), corpus=corpus.name)
    whole = len(contexts.ids)
    several = [contexts]
    if control:
        count = min(CONTROL_WINDOWS, max(LEAST_WINDOWS, whole // 3))
        several.append(replace(make(count=count, shuffled=True), corpus=f"{corpus.name}{SHUFFLED}"))
    if calls is not None:
        room = calls - all_calls(closed, [])
        try:
            several = affordable(several, closed.asking, room, seed=bank.seed, sampled=False)
        except InputError as error:
            raise InputError(
                f"{bought} buys fewer than {LEAST_READ} of the {whole} windows that {bank.name} needs; at least "
                f"{LEAST_WINDOWS} are needed to place a model among its references."
            ) from error
        contexts = several[0]
        if len(contexts.ids) < LEAST_WINDOWS:
            raise InputError(
                f"{bought} buys {len(contexts.ids)} of the {whole} windows that the references of {bank.name} read, "
                f"and at least {LEAST_WINDOWS} are needed to place a model among them; raise the limit."
            )
        if len(contexts.ids) < whole:
            remarks.append(
                f"{bought} buys {len(contexts.ids)} of the {whole} windows that the references read: errors of "
                f"what is measured are about {(whole / len(contexts.ids)) ** 0.5:.1f} times as large"
            )
    return Asked(corpus, way, names, contexts, several[1] if control else None, tuple(remarks))


def bills(closed: Closed, asked: Asked) -> dict[str, float | None]:
    """What asking would take and cost at most; see `extraction.answers.collecting.next_tokens.next_token_bill`."""
    total = bill(closed, asked.contexts)
    if asked.control is None:
        return total
    more = bill(closed, asked.control, [asked.contexts])
    return {
        name: None if value is None or more[name] is None else value + more[name]  # type: ignore[operator]
        for name, value in total.items()
    }


def ask(
    closed: Closed,
    asked: Asked,
    *,
    seed: int,
    progress: Progress | None = None,
    on_notice: Callable[[str], None] | None = None,
    on_windows: OnWindows | None = None,
) -> pd.DataFrame:
    """Measure a model's output as a bank's references were, with the control of shuffled windows beside it."""
    names = asked.readings
    found = measure_closed(
        closed, asked.contexts, names, seed=seed, progress=progress, on_notice=on_notice, on_windows=on_windows
    )
    if asked.control is None:
        return found
    shuffled = measure_closed(closed, asked.control, names, seed=seed, progress=progress)
    return with_controls(found, shuffled=shuffled)


def estimate_emergence(
    bank: Bank,
    measured: pd.DataFrame,
    windows: pd.DataFrame | None = None,
    *,
    estimator: str = ESTIMATOR,
    level: float = LEVEL,
    candidate: str = "auto",
    progress: Progress | None = None,
) -> Estimate:
    """Estimate the emergence of a model's blocks from its output rows.

    Args:
        bank: the references.
        measured: output rows of one model on one corpus of the bank (schema EMERGENCE).
        windows: how it continued single windows (schema CONTINUATIONS); None: not known, and what it would tell is not
            learned from.
        estimator: of the blocks, `predictive` or `sample-propagation`.
        level: of the intervals.
        candidate: as for `proxy.fit_proxy`.
        progress: called after each target.

    Raises:
        InputError: if the rows are of several models, of another corpus or of another way of asking than the bank's.
    """
    rows = measured[measured["layer"] == OUTPUT_LAYER]
    model, corpus = _one_of(rows, bank)
    way = _way_of(rows, bank, corpus, estimator)
    check_runs(bank, level)
    kept, same = without_model(bank, model)
    references = reference_table(kept, corpus.name, shown=way.shown, chat=way.chat, estimator=estimator)
    _check_remaining(references, bank, corpus.name, model, level)
    features = model_features(kept, rows, windows, corpus=corpus.name, shown=way.shown, chat=way.chat)
    read = estimator == ESTIMATOR and way.shown != SAMPLES
    known = _Known(model, same, corpus.name, estimator, rows, features, read)
    return _estimate(bank, known, references, level=level, candidate=candidate, progress=progress)


def estimate_from_answers(
    bank: Bank,
    answers: pd.DataFrame,
    corpus: str | None = None,
    *,
    estimator: str = ESTIMATOR,
    level: float = LEVEL,
    candidate: str = "auto",
    progress: Progress | None = None,
) -> Estimate:
    """Estimate the emergence of a model's blocks from what it answered, where nothing of it was measured.

    Args:
        bank: the references, with their answers to the same prompts.
        answers: of one model (schema RESPONSES).
        corpus: of the bank, on which emergence is estimated; default: its first.
        estimator: as for `estimate_emergence`.
        level: of the intervals.
        candidate: as for `proxy.fit_proxy`.
        progress: called with the number of answers read, then after each target.

    Raises:
        InputError: if the answers are of several models, or were asked otherwise than the bank's, or it has none.
    """
    model, name = _one_model(answers), bank.corpus(corpus).name
    check_runs(bank, level)
    kept, same = without_model(bank, model)
    references = answer_references(kept, name, estimator=estimator)
    _check_remaining(references, bank, name, model, level)
    features = features_alike(kept, answers, progress)
    known = _Known(model, same, name, estimator, EMERGENCE.empty(), features, read=False)
    return _estimate(bank, known, references, level=level, candidate=candidate, progress=progress)


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What is known of the model to estimate.

    Attributes:
        model: its name.
        same: what it is called in the bank; nothing where it is not there.
        corpus: of the bank.
        estimator: of the blocks.
        measured: output rows, none where only answers are known.
        features: one row; ``attrs["remarks"]`` is what must be said of it.
        read: whether the output's own reading is that of the last block.
    """

    model: str
    same: Sequence[str]
    corpus: str
    estimator: str
    measured: pd.DataFrame
    features: pd.DataFrame
    read: bool


def _estimate(
    bank: Bank,
    known: _Known,
    references: pd.DataFrame,
    *,
    level: float,
    candidate: str,
    progress: Progress | None,
) -> Estimate:
    """Fit the proxies of all targets and apply them; `references` are without the model and its run."""
    features, estimator = known.features, known.estimator
    remarks = [*references.attrs["remarks"], *features.attrs.get("remarks", [])]
    if known.measured.empty:
        remarks.append(
            f"nothing of {known.model} was measured, as only its answers are known; to measure the emergence of its "
            f"output, ask the API (emergence estimate {known.model} --base-url URL)"
        )
    own = profile_targets(
        bank.emergence[(bank.emergence["corpus"] == known.corpus) & bank.emergence["model"].isin(known.same)], estimator
    )
    if known.same:
        remarks.append(
            f"{known.model} is in the bank: its whole run is left out, and its own values are shown beside the estimate"
        )
    families = sorted(references["family"].unique())
    if len(families) == 1:
        remarks.append(f"all references are of one family, {families[0]}: nothing is known about others")
    names = [str(name) for name in references if str(name).startswith(PREFIXES["outputs"])]
    unknown = [name for name in names if name not in features or bool(features[name].isna().all())]
    references = references.drop(columns=[*unknown, *(NOISE + name for name in unknown)], errors="ignore")
    fitted: dict[str, Proxy] = {}
    targets = [PEAK, *[target(depth) for depth in DEPTHS]]
    lines = []
    for done, name in enumerate(targets):
        if progress is not None:
            progress(done, len(targets))
        if known.read and name == target(1.0):
            line = _last_block(references, features, level)
        else:
            fitted[name] = fit_proxy(references, target=name, level=level, candidate=candidate)
            line = _estimated(fitted[name], features, name)
        truth = float(own[name].iloc[0]) if len(own) else float("nan")
        lines.append({"target": name, "depth": None if name == PEAK else DEPTHS[targets.index(name) - 1], **line,
                      "mean": float(references[name].mean()), "truth": truth})  # fmt: skip
    if progress is not None:
        progress(len(targets), len(targets))
    peak = fitted[PEAK]
    remarks += [remark for remark in peak.remarks if not remark.startswith("left out as constant")]
    found = pd.DataFrame(lines)
    if pd.isna(found["estimate"].iloc[0]) or not bool(found["in_domain"].iloc[0]):
        remarks.append(references_needed(peak, features))
    return Estimate(known.model, known.corpus, bank.name, estimator, known.measured, found, peak, tuple(remarks))


def measured_alone(bank: Bank, measured: pd.DataFrame, why: str, *, estimator: str = ESTIMATOR) -> Estimate:
    """What was measured of a model that no proxy of the bank fits: its output, and no estimate.

    Args:
        bank: the references.
        measured: output rows of one model on one corpus of the bank.
        why: no proxy fits, and which references would be needed.
        estimator: of the blocks that are not estimated.
    """
    rows = measured[measured["layer"] == OUTPUT_LAYER]
    model, corpus = _one_of(rows, bank)
    blank = dict.fromkeys(
        ["estimate", "lower", "upper", "novelty", "proxy_error", "mean_error", "size_error", "mean", "truth"],
        float("nan"),
    )
    lines = [
        {"target": name, "depth": depth, "how": "not estimated", **blank, "level": LEVEL, "in_domain": False,
         "candidate": "", "remarks": ""}
        for name, depth in [(PEAK, None), *((target(depth), depth) for depth in DEPTHS)]
    ]  # fmt: skip
    return Estimate(model, corpus.name, bank.name, estimator, rows, pd.DataFrame(lines), None, (why,))


def references_needed(proxy: Proxy, features: pd.DataFrame) -> str:
    """Say in one sentence which references would bring a model into the domain of a proxy."""
    row = features.iloc[0]
    known = proxy.references
    parts = []
    for name in proxy.features:
        low, high = float(known[name].min()), float(known[name].max())
        if pd.notna(row[name]) and not low <= float(row[name]) <= high:
            spread = float(known[name].std()) or 1.0
            away = max(low - float(row[name]), float(row[name]) - high) / spread
            parts.append((away, f"{name} near {float(row[name]):.3g} (here {low:.3g} to {high:.3g})"))
    parts.sort(reverse=True)
    if not parts:
        return "outside the bank by the combination of its features: references between those of the bank are needed"
    return "outside the bank: references are needed with " + ", ".join(text for _, text in parts[:3])


def _estimated(proxy: Proxy, features: pd.DataFrame, name: str) -> dict[str, object]:
    row = proxy.predict(features).iloc[0]
    scores = proxy.scores.set_index("candidate")["mae"].astype(float)
    return {
        "how": "estimated",
        "estimate": row["estimate"],
        "lower": row["lower"],
        "upper": row["upper"],
        "level": row["level"],
        "in_domain": bool(row["in_domain"]),
        "novelty": float(row["novelty"]),
        "candidate": proxy.chosen,
        "proxy_error": scores["chosen"],
        "mean_error": scores["mean"],
        "size_error": scores.get("log_parameters", float("nan")),
        "remarks": str(row["remarks"]),
    }


def _last_block(references: pd.DataFrame, features: pd.DataFrame, level: float) -> dict[str, object]:
    """The last block as measured: the reading of the output, shifted by what lies between the two on references.

    The block is read by its own calibrated head, the output by what an API shows of it. The interval is that of
    jackknife+ for a constant, with families left out where there are enough, else runs. As of what is estimated, it
    is widened by the novelty, here how far the reading lies from the references' mean as a multiple of the farthest
    reference, and withheld beyond three; the value, which is measured, is given all the same.
    """
    name = target(1.0)
    readings_of = references[OUTPUT_E].astype(float)
    truth = references[name].astype(float)
    groups = references[unit_left_out(references["family"].nunique(), level, "run")].to_numpy(dtype=str)
    weights = (1 / references.groupby("run")["run"].transform("size")).to_numpy(dtype=float)

    def around_mean(y: pd.Series) -> Intervals:
        return Intervals.fit(ProxyRegressor("mean"), readings_of.to_frame(), y.to_numpy(), weights, groups)

    gap = around_mean(truth - readings_of)
    shift, low, high = gap.predict(readings_of.to_frame().head(1), [level])  # (1,), (1, 1), (1, 1)
    reading = float(features[OUTPUT_E].iloc[0])
    novelty = abs(reading - readings_of.mean()) / (readings_of - readings_of.mean()).abs().max()
    lower, upper = widen(
        gap.regressor.link_, reading + shift, reading + low[:, 0], reading + high[:, 0], np.array([novelty])
    )
    out = (
        ""
        if novelty <= 1
        else f"; {novelty:.1f} times as far out as any reference: interval "
        + ("widened by that factor" if novelty <= WITHHELD else "withheld")
    )
    return {
        "how": "measured",
        "estimate": reading + shift.item(),
        "lower": lower.item(),
        "upper": upper.item(),
        "level": level,
        "in_domain": bool(novelty <= 1),
        "novelty": float(novelty),
        "candidate": "",
        "proxy_error": float(gap.errors.mean()),
        "mean_error": float(around_mean(truth).errors.mean()),
        "size_error": float("nan"),
        "remarks": f"measured at the output, shifted by {shift.item():+.2f} as on references{out}",
    }


def _one_of(rows: pd.DataFrame, bank: Bank) -> tuple[str, BankCorpus]:
    """The one model and the one corpus that output rows are of."""
    if rows.empty:
        raise InputError(
            "The table has no output rows (layer -1); measure the model with --estimator "
            "predictive-20,output-20,output-2-of-20, or behind an API with --base-url."
        )
    model, corpora = _one_model(rows), sorted(rows["corpus"].unique())
    known = [corpus.name for corpus in bank.corpora]
    if len(corpora) > 1 or corpora[0] not in known:
        raise InputError(
            f"The table was measured on {', '.join(corpora)}, but the references of {bank.name} on {', '.join(known)}; "
            "measure it on one of these alone."
        )
    corpus = bank.corpus(corpora[0])
    positions = {int(position) for position in rows["position"]}
    if positions != {corpus.tokens}:
        raise InputError(
            f"The model read windows of {', '.join(map(str, sorted(positions)))} tokens of {corpus.name}, the "
            f"references of {bank.name} {corpus.tokens}; measure it with --tokens {corpus.tokens}."
        )
    return model, corpus


def _one_model(rows: pd.DataFrame) -> str:
    models = sorted(rows["model"].unique())
    if len(models) > 1:
        raise InputError(f"The table holds {len(models)} models, {', '.join(models[:4])}; keep the one to estimate.")
    return str(models[0])


def _way_of(rows: pd.DataFrame, bank: Bank, corpus: BankCorpus, estimator: str) -> Way:
    """The way by which rows and references compare."""
    asked = {str(value) for value in rows["asked"].dropna()} or {WEIGHTS}
    as_chat = {value.startswith("chat") or value == CHAT for value in asked}
    known = proxies(bank, corpus.name, estimator)
    if not known:
        raise InputError(
            f"The bank {bank.name} has no blocks measured by {estimator} on {corpus.name}; it has "
            f"{', '.join(bank.estimators(corpus.name))}."
        )
    own = [way for way in known.values() if as_chat == {way.chat}]
    if not own:
        raise InputError(
            f"The model was asked by {', '.join(sorted(asked))}, the references of {bank.name} by "
            f"{', '.join(sorted({way.asked for way in known.values()}))}: the numbers do not compare."
        )
    both = [way for way in own if way.shown in shown_in(rows)]
    if not both:
        has = ", ".join(sorted(rows["estimator"].unique()))
        raise InputError(
            f"The model's output was read by {has}; the proxies of {bank.name} need "
            + " or ".join(" and ".join(needed_readings(way.shown)) for way in own)
            + "."
        )
    return both[0]
