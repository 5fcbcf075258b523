"""Two or more runs side by side: differences with paired errors, and what changed in their settings."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from estimators.base import InputError
from estimators.contracts.controls import controls_as_columns, verdicts
from estimators.contracts.conventions import DEFAULT_RESOLUTION
from estimators.contracts.peaks import MEASURED, at_end, at_peak, at_resolution, complete, peaks
from estimators.contracts.results_folder import decode_table
from tracking.changes import changed, distinct, settings_of
from tracking.mlflow.store import clear_errors, open_store, store_uri
from tracking.outputs import PER_BYTE, check_alike, comparable, left_out, units
from tracking.pairing import SAME_RESOLUTION, difference, mean_error, paired_error, windows_at
from tracking.reports.figures import differences
from tracking.results import WINDOWS_FILE, read_results

RUN_ID = re.compile(r"[0-9a-f]{32}")
SAME = "same"  # both runs saw the same tokens
SHOWN = 8  # differences that a sentence names
OF_TABLE = ("estimator", "windows", "seed", "asked", "prefix", "position")  # settings that an emergence table holds
DETAILS = ("position", "prefix", "bytes_per_token")  # of the row that is compared
LEVEL = 0.05  # at which differences stand out, all of them together


@dataclass(frozen=True)
class Run:
    """What is compared.

    Attributes:
        name: for tables and figures.
        table: its rows of the emergence table.
        settings: by dotted name; None of a table, which only says what its rows do.
        windows: reads the values of the single windows of a model on a corpus; empty where none was kept.
    """

    name: str
    table: pd.DataFrame
    settings: dict[str, str] | None
    windows: Callable[[str, str], pd.DataFrame]


@dataclass(frozen=True)
class Comparison:
    """The outcome.

    Attributes:
        table: per model and corpus (and as mean over models per corpus): emergence of both, difference, `std_error`
            and their `unit`, whether `errors` are paired, `p_value` and `p_corrected` (Holm, for how many rows were
            looked at), the verdict on the controls of both, resolution, and whether the `text` was the same token for
            token (else the hashes of both).
        settings: the settings that differ, one column per run.
        figure: the differences.
        words: how many differences stand out, in a sentence.
        notes: what was not compared, and what a reader must know, a sentence each.
    """

    table: pd.DataFrame = field(repr=False)
    settings: pd.DataFrame = field(repr=False)
    figure: Figure = field(repr=False)
    words: str
    notes: tuple[str, ...] = ()


def compare(
    runs: Sequence[str | pd.DataFrame],
    *,
    names: Sequence[str | None] | None = None,
    tracking_uri: str | None = None,
    resolution: float = DEFAULT_RESOLUTION,
) -> Comparison:
    """Compare runs with the first of them.

    Rows are matched by model and corpus; where each run holds a single model (corpus) and these differ, by the
    rest alone, so that two models can be compared on one corpus. Where one run holds a single model that the other
    lacks, each model of the other is compared with it. Where both read the same windows, the standard error
    is paired: it comes from the differences of single windows. Else (another seed or text, other windows sampled, a
    trained estimator, results of an earlier version) it is unpaired: both sides count as independent, each with
    its own sampling error. The error of a mean over models is that over the windows which they share, or that
    over the models where it is larger. Means are computed separately for models that saw the same text in both runs and
    for those that did not. Controls are columns, never models or corpora.

    What models say next (`predictive-20`, `output-20`, ...) is compared with the same reading of the same number of
    shown tokens, chats with chats, after windows of the same length. Where models were read after different windows,
    as those of different tokenizers are, the unit is bits per byte.

    Args:
        runs: two or more results folders, ids of MLflow runs (a sweep's, or one job's), or emergence tables.
        names: of the runs, for tables and messages; default that of the folder or MLflow run, else "table".
        tracking_uri: MLflow server or database for ids.
        resolution: compare at the one nearest to this.

    Raises:
        InputError: if a run is not found, nothing matches, or the observers differ: estimator, resolution, way of
            asking, or length of windows.

    >>> found = compare([str(results), str(results)])  # with itself
    >>> found.table[["model", "corpus", "difference", "text"]].values.tolist()
    [['gpt2-30k', 'animal', 0.0, 'same']]
    >>> len(found.settings)
    0
    """
    if len(runs) < 2:
        raise InputError(
            "A comparison needs two runs or more: results folders, emergence tables or ids of MLflow runs."
        )
    found = [_load(run, tracking_uri) for run in runs]
    called = [name or run.name for name, run in zip(names or [None] * len(found), found, strict=True)]
    found = [replace(run, name=name) for name, run in zip(distinct(called), found, strict=True)]
    parts, notes = zip(*(_against(found[0], other, resolution) for other in found[1:]), strict=True)
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise InputError(
            f"{', '.join(run.name for run in found)} have no model and corpus in common, so nothing can be compared; "
            "measure the same models, or compare single jobs by the ids of their runs."
        )
    table = _corrected(table)
    # A table knows less of how it was made than a folder: what both know is told apart.
    known = {run.name: run.settings for run in found if run.settings is not None}
    settings = changed(known if len(known) == len(found) else {run.name: settings_in(run.table) for run in found})
    said = tuple(dict.fromkeys(note for each in notes for note in each))
    return Comparison(table, settings, differences(table), _in_words(table), said)


def _against(base: Run, other: Run, resolution: float) -> tuple[pd.DataFrame, list[str]]:
    names = base.name, other.name
    ours, theirs = controls_as_columns(base.table), controls_as_columns(other.table)
    kept = comparable(ours, theirs, names)
    left, right = (_peaks_with_text(table, resolution) for table in kept)
    for run, found in zip(names, (left, right), strict=True):
        if found.empty:
            raise InputError(f"{run} holds no row with a finite emergence, so there is nothing to compare.")
    _check_estimators(base.name, left, other.name, right)
    notes = [note] if (note := left_out(ours, theirs, kept[0], names)) else []
    left, right, one_with_all = _matched(left, right, names)
    both = left.merge(right, on=MEASURED, suffixes=("_base", "_other"))
    if both.empty:
        return pd.DataFrame(), []
    _check_resolutions(base.name, other.name, both)
    notes += check_alike(both, names)
    unit = units(both)
    if PER_BYTE in unit:
        notes.append("Models were read after different windows, so their outputs are compared in bits per byte.")
    for side in ("base", "other"):
        size = np.where([each == PER_BYTE for each in unit], both[f"bytes_per_token_{side}"].astype("Float64"), 1.0)
        for name in ("emergence_bits", "emergence_bits_std_error"):
            both[f"{name}_{side}"] = both[f"{name}_{side}"] / size.astype(float)
    pairs = [_pair(base, other, row) for row in both.to_dict("records")]
    frame = pd.DataFrame(
        {
            "run": other.name,
            "against": base.name,
            **{name: both[name] for name in MEASURED},
            "emergence_bits": both["emergence_bits_other"].astype(float),
            "against_bits": both["emergence_bits_base"].astype(float),
            "difference": (both["emergence_bits_other"] - both["emergence_bits_base"]).astype(float),
            "std_error": [pair.error for pair in pairs],
            "unit": unit,
            "errors": ["paired" if pair.paired else "unpaired" for pair in pairs],
            "verdict": both["verdict_other"],
            "against_verdict": both["verdict_base"],
            "resolution": both["resolution_other"],
            "text": [pair.text for pair in pairs],
            "block": both["peak_layer_other"],
            "against_block": both["peak_layer_base"],
        }
    )
    means = [
        _mean(frame.loc[rows], [pairs[place] for place in rows])
        for rows in frame.groupby(["corpus", "estimator", "unit", frame["text"] == SAME]).groups.values()
        if len(rows) > 1 and not one_with_all
    ]
    if not means:
        return frame, notes
    whole = pd.concat([frame, pd.DataFrame(means)], ignore_index=True)
    return whole.astype({"block": "Int64", "against_block": "Int64"}), notes


def _matched(
    left: pd.DataFrame, right: pd.DataFrame, names: tuple[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame, bool]:
    """Give what is compared one name on both sides; says whether one model is compared with all of the other side.

    Raises:
        InputError: if a single model on a single corpus stands against another model on another corpus.
    """
    (models, others), (corpora, their_corpora) = ((set(left[name]), set(right[name])) for name in ("model", "corpus"))
    if len(corpora) == len(their_corpora) == 1 and corpora != their_corpora:
        if not models & others and min(len(models), len(others)) == 1:
            raise InputError(
                f"{names[0]} is of {_some(models)} on {_some(corpora)}, {names[1]} of {_some(others)} on "
                f"{_some(their_corpora)}: neither model nor corpus is the same; measure one of them alike."
            )
        change = f"{min(corpora)} → {min(their_corpora)}"
        left, right = left.assign(corpus=change), right.assign(corpus=change)
    if models & others or min(len(models), len(others)) != 1:
        return left, right, False
    if len(others) == 1:
        changes = {model: f"{model} → {min(others)}" for model in sorted(models)}
        left = left.assign(model=left["model"].map(changes))
        right = pd.concat([right.assign(model=change) for change in changes.values()], ignore_index=True)
    else:
        changes = {model: f"{min(models)} → {model}" for model in sorted(others)}
        right = right.assign(model=right["model"].map(changes))
        left = pd.concat([left.assign(model=change) for change in changes.values()], ignore_index=True)
    return left, right, len(changes) > 1


def _some(names: set[str]) -> str:
    return min(names) if len(names) == 1 else f"{len(names)} models"


@dataclass(frozen=True)
class _Pair:
    """One model on one corpus in two runs.

    Attributes:
        text: whether it was the same, or both hashes.
        error: standard error of the difference.
        paired: whether it is that over windows which both read.
        sides: windows read, and standard error, of each side; where paired, of their differences alone.
    """

    text: str
    error: float
    paired: bool
    sides: tuple[tuple[pd.DataFrame, float], ...]


def _pair(base: Run, other: Run, row: Mapping[Hashable, Any]) -> _Pair:
    text = _text(row["hash_base"], row["hash_other"])
    sides = [
        (_windows(run, row, side), float(pd.to_numeric(row[f"emergence_bits_std_error_{side}"], errors="coerce")))
        for run, side in ((base, "base"), (other, "other"))
    ]
    (left, left_error), (right, right_error) = sides
    paired = paired_error(left, left_error, right, right_error) if text == SAME else None
    if paired is None:
        return _Pair(text, float(np.hypot(left_error, right_error)), False, tuple(sides))
    return _Pair(text, paired, True, ((difference(left, right), paired),))


def _mean(rows: pd.DataFrame, pairs: Sequence[_Pair]) -> dict[str, Any]:
    """Return the mean over the models of a corpus, whose windows they share."""
    differences = rows["difference"].astype(float)
    if all(pair.paired for pair in pairs) or not any(pair.paired for pair in pairs):
        sides = zip(*(pair.sides for pair in pairs), strict=True)
        over_windows = math.hypot(*(mean_error(*map(list, zip(*side, strict=True))) for side in sides))
    else:
        over_windows = float(np.mean([pair.error for pair in pairs]))  # at most: as if all moved together
    over_models = float(differences.std(ddof=1) / np.sqrt(len(rows)))
    first = rows.iloc[0]
    return {
        **{name: first[name] for name in ("run", "against", "corpus", "estimator", "resolution", "unit")},
        "model": f"mean of {len(rows)} models",
        "emergence_bits": rows["emergence_bits"].mean(),
        "against_bits": rows["against_bits"].mean(),
        "difference": differences.mean(),
        "std_error": max(over_windows, over_models),
        "errors": "paired" if all(pair.paired for pair in pairs) else "unpaired",
        "text": SAME if pairs[0].text == SAME else "differs",
    }


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Add how often chance alone would give such a difference, and the same for the largest of all looked at (Holm)."""
    size = table["difference"].abs().to_numpy(dtype=float)
    error = table["std_error"].to_numpy(dtype=float, na_value=np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(size == 0, 0.0, size / error)
    p = np.array([math.erfc(value / math.sqrt(2)) for value in z])  # two-sided, NaN where the error is not known
    return table.assign(p_value=p, p_corrected=holm(p))


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number: each is the chance that any of all would look so by luck (Holm 1979).

    Args:
        p: (n,) p-values; NaN where there is none.

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan])).round(2).tolist()
    [0.03, 0.06, 0.06, nan]
    """
    found = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    found[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return found


def _in_words(table: pd.DataFrame) -> str:
    """Say how many differences stand out once it is counted how many were looked at."""
    known = table[table["p_corrected"].notna()]
    if known.empty:
        return "No difference has a known error, so none can be distinguished from chance."
    out = known[known["p_corrected"] < LEVEL]
    several = len(table["estimator"].unique()) > 1
    names = "; ".join(
        f"{row.model} on {row.corpus}" + (f" by {row.estimator}" if several else "")
        for row in out.head(SHOWN).itertuples()
    )
    more = f" and {len(out) - SHOWN} more" if len(out) > SHOWN else ""
    if len(known) == 1:
        return f"The difference {'is more than' if len(out) else 'may be'} chance (p = {known['p_value'].iloc[0]:.2g})."
    return (
        f"{len(known)} differences were looked at, and chance alone makes one in twenty look real. Corrected for that "
        f"(Holm, {LEVEL:.0%} for all together), "
        + (f"{len(out)} stand out: {names}{more}." if len(out) else "none stands out.")
    )


def _windows(run: Run, row: Mapping[Hashable, Any], side: str) -> pd.DataFrame:
    """Read the windows of one `side` of a compared row; a trained estimator kept none."""
    windows = run.windows(row[f"own_model_{side}"], row[f"own_corpus_{side}"])
    level = row[f"resolution_{side}"]
    return windows_at(
        windows, str(row["estimator"]), row[f"peak_layer_{side}"], None if pd.isna(level) else float(level)
    )


def _peaks_with_text(table: pd.DataFrame, resolution: float) -> pd.DataFrame:
    """Summarise each model on each corpus, with the hash of the tokens it was measured on ("" if not known).

    `own_model` and `own_corpus` stay what they are in this run, whatever the other run's are called.
    """
    found = peaks(table, resolution)
    peak = at_end(at_resolution(at_peak(table, found), resolution)).reset_index(drop=True)
    details = peak.reindex(columns=[*MEASURED, *DETAILS]).assign(verdict=verdicts(peak)).drop_duplicates(MEASURED)
    found = found.merge(details, on=MEASURED)
    hashes = found["corpus_hash"].fillna("").astype(str)
    return found.assign(own_model=found["model"], own_corpus=found["corpus"], hash=hashes)


def _text(base: str, other: str) -> str:
    if base and base == other:
        return SAME
    return f"{base[:8]} → {other[:8]}" if base and other else "not known"


def _check_estimators(base: str, left: pd.DataFrame, other: str, right: pd.DataFrame) -> None:
    """Refuse runs of different estimators, whose bits answer different questions."""
    ours, theirs = set(left["estimator"]), set(right["estimator"])
    if ours and theirs and not ours & theirs:
        shown = " or numbers of shown tokens" if all((side["peak_layer"] < 0).all() for side in (left, right)) else ""
        raise InputError(
            f"{base} was estimated by {', '.join(sorted(ours))}, {other} by {', '.join(sorted(theirs))}: bits of "
            f"different observers{shown} have no difference; measure both with one estimator."
        )


def _check_resolutions(base: str, other: str, both: pd.DataFrame) -> None:
    """Refuse rows at unequal resolutions, whose difference would be one of observers."""
    left, right = (both[f"resolution_{side}"].astype("Float64").fillna(-1.0) for side in ("base", "other"))
    unequal = both[((left - right).abs() > SAME_RESOLUTION).astype(bool)]
    if len(unequal):
        row = unequal.iloc[0]
        raise InputError(
            f"{row['model']} on {row['corpus']} was read at resolution {row['resolution_base']} in {base} and at "
            f"{row['resolution_other']} in {other}: a difference would be one between observers; choose a resolution "
            "that both hold (--resolution), or measure them in the same way."
        )


def settings_in(table: pd.DataFrame) -> dict[str, str]:
    """How the rows of an emergence table were measured, as far as the table records it.

    >>> settings_in(pd.DataFrame({"asked": ["weights"], "windows": [60], "prefix": ["<s>"]}))
    {'windows': '60', 'asked': 'weights', 'prefix': '<s>'}
    """
    values = {name: sorted(map(str, table[name].dropna().unique())) for name in OF_TABLE if name in table}
    return {name: ", ".join(each) for name, each in values.items() if any(each)}


def _load(run: str | pd.DataFrame, tracking_uri: str | None) -> Run:
    if isinstance(run, pd.DataFrame):
        if run.empty:
            raise InputError("A table without rows holds nothing to compare; give one that `emergence measure` wrote.")
        return Run("table", complete(run), None, lambda model, corpus: pd.DataFrame())
    if Path(run).is_dir():
        found = read_results(Path(run))
        if found.table.empty:
            raise InputError(f"{run} holds no finished job yet, so there is nothing to compare.")
        return Run(found.name, found.table, settings_of(found.record), found.windows)
    if not RUN_ID.fullmatch(run):
        raise InputError(
            f"{run} is neither a results folder, an emergence table nor the id of an MLflow run (32 digits and "
            "letters a-f)."
        )
    return _from_mlflow(run, tracking_uri)


def _from_mlflow(run_id: str, tracking_uri: str | None) -> Run:
    uri = store_uri(tracking_uri)
    client = open_store(uri)
    with clear_errors(uri, starting=True):
        run = client.get_run(run_id)
        names = {item.path for item in client.list_artifacts(run_id)}
        if "emergence.parquet" not in names:
            raise InputError(
                f"The run {run_id} ({run.info.run_name}) holds no emergence table: compare sweeps or their jobs."
            )
        with tempfile.TemporaryDirectory() as folder:
            table = _artifact(client, run_id, "emergence.parquet", folder)
            record = next((name for name in ("sweep.json", "job.json") if name in names), None)
            if record is None:  # of a table that was tracked by itself
                return Run(str(run.info.run_name), complete(table), None, lambda model, corpus: pd.DataFrame())
            text = Path(client.download_artifacts(run_id, record, folder)).read_text(encoding="utf-8")
    settings = json.loads(text)

    @cache
    def jobs() -> dict[tuple[str, str], str]:
        return _jobs_below(client, run)

    def windows(model: str, corpus: str) -> pd.DataFrame:
        with clear_errors(uri, starting=True):
            job = run_id if record == "job.json" else jobs().get((model, corpus))
            if job is None or WINDOWS_FILE not in {item.path for item in client.list_artifacts(job)}:
                return pd.DataFrame()
            with tempfile.TemporaryDirectory() as folder:
                return _artifact(client, job, WINDOWS_FILE, folder)

    return Run(str(run.info.run_name), table, settings_of(settings), windows)


def _artifact(client: Any, run_id: str, name: str, folder: str) -> pd.DataFrame:
    """Read a table among the artifacts of a run."""
    content = Path(client.download_artifacts(run_id, name, folder)).read_bytes()
    return decode_table(content, f"{name} of the run {run_id}")


def _jobs_below(client: Any, sweep: Any) -> dict[tuple[str, str], str]:
    """Return the runs below the run of a sweep, by model and corpus."""
    found: dict[tuple[str, str], str] = {}
    token = None
    while True:
        condition = f"tags.`mlflow.parentRunId` = '{sweep.info.run_id}'"
        page = client.search_runs([sweep.info.experiment_id], condition, page_token=token)
        found |= {(run.data.tags.get("model", ""), run.data.tags.get("corpus", "")): run.info.run_id for run in page}
        token = page.token
        if not token:
            return found
