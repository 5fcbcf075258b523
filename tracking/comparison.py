"""Two or more runs side by side: differences with paired errors, and what changed in their settings."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from estimators.base import InputError
from estimators.contracts.conventions import DEFAULT_RESOLUTION
from estimators.contracts.peaks import MEASURED, peaks
from tracking.mlflow.store import clear_errors, open_store, store_uri
from tracking.pairing import SAME_RESOLUTION, paired_error, windows_at
from tracking.reports.figures import differences
from tracking.results import WINDOWS_FILE, flatten, read_results

RUN_ID = re.compile(r"[0-9a-f]{32}")
SAME = "same"  # both runs saw the same tokens
SETTINGS = ("config", "seed", "versions", "git_revision", "hardware")


@dataclass(frozen=True)
class Run:
    """What is compared.

    Attributes:
        name: for tables and figures.
        table: its rows of the emergence table.
        settings: by dotted name.
        windows: reads the values of the single windows of a model on a corpus; empty where none was kept.
    """

    name: str
    table: pd.DataFrame
    settings: dict[str, str]
    windows: Callable[[str, str], pd.DataFrame]


@dataclass(frozen=True)
class Comparison:
    """The outcome.

    Attributes:
        table: per model and corpus (and as mean over models per corpus): emergence of both, difference, `std_error`
            and whether `errors` are paired, resolution, and whether the `text` was the same token for token (else
            the hashes of both).
        settings: the settings that differ, one column per run.
        figure: the differences.
    """

    table: pd.DataFrame
    settings: pd.DataFrame
    figure: Figure


def compare(runs: list[str], *, tracking_uri: str | None = None, resolution: float = DEFAULT_RESOLUTION) -> Comparison:
    """Compare runs with the first of them.

    Rows are matched by model and corpus; where each run holds a single model (corpus) and these differ, by the
    rest alone, so that two models can be compared on one corpus. Where both read the same windows, the standard error
    is paired: it comes from the differences of single windows. Else (another text, other windows sampled, a trained
    estimator, results of an earlier version) it is unpaired: both sides count as independent. The mean over models is
    paired: its error comes from the spread of their differences. It is taken apart for models that saw the same text
    in both runs and for those that did not.

    Args:
        runs: two or more results folders, or ids of MLflow runs (a sweep's, or one job's).
        tracking_uri: MLflow server or database for ids.
        resolution: compare at the one nearest to this.

    Raises:
        InputError: if a run is not found, nothing matches, or the observers differ: estimator or resolution.

    >>> found = compare([str(results), str(results)])  # with itself
    >>> found.table[["model", "corpus", "difference", "text"]].values.tolist()
    [['gpt2-30k', 'animal', 0.0, 'same']]
    >>> len(found.settings)
    0
    """
    if len(runs) < 2:
        raise InputError("A comparison needs two runs or more: results folders, or ids of MLflow runs.")
    found = [_load(run, tracking_uri) for run in runs]
    names = _distinct([run.name for run in found])
    found = [replace(run, name=name) for name, run in zip(names, found, strict=True)]
    parts = [_against(found[0], other, resolution) for other in found[1:]]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise InputError(
            f"{', '.join(names)} have no model and corpus in common, so nothing can be compared; measure the same "
            "models, or compare single jobs by the ids of their runs."
        )
    return Comparison(table, _changed(found), differences(table))


def _distinct(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names, 1)]


def _against(base: Run, other: Run, resolution: float) -> pd.DataFrame:
    left, right = _peaks_with_text(base.table, resolution), _peaks_with_text(other.table, resolution)
    _check_estimators(base.name, left, other.name, right)
    for name in ("model", "corpus"):
        ours, theirs = set(left[name]), set(right[name])
        if len(ours) == len(theirs) == 1 and ours != theirs:
            change = f"{ours.pop()} → {theirs.pop()}"
            left, right = left.assign(**{name: change}), right.assign(**{name: change})
    both = left.merge(right, on=MEASURED, suffixes=("_base", "_other"))
    if both.empty:
        return pd.DataFrame()
    _check_resolutions(base.name, other.name, both)
    texts = [_text(*hashes) for hashes in zip(both["hash_base"], both["hash_other"], strict=True)]
    errors = [
        both[f"emergence_bits_std_error_{side}"].to_numpy(dtype=float, na_value=np.nan) for side in ("base", "other")
    ]
    paired = [
        paired_error(_windows(base, row, "base"), left_error, _windows(other, row, "other"), right_error)
        if text == SAME
        else None
        for text, row, left_error, right_error in zip(texts, both.to_dict("records"), *errors, strict=True)
    ]
    unpaired = np.hypot(*errors)
    frame = pd.DataFrame(
        {
            "run": other.name,
            "against": base.name,
            "model": both["model"],
            "corpus": both["corpus"],
            "emergence_bits": both["emergence_bits_other"].astype(float),
            "against_bits": both["emergence_bits_base"].astype(float),
            "difference": (both["emergence_bits_other"] - both["emergence_bits_base"]).astype(float),
            "std_error": [one if one is not None else two for one, two in zip(paired, unpaired, strict=True)],
            "errors": ["unpaired" if one is None else "paired" for one in paired],
            "resolution": both["resolution_other"],
            "text": texts,
            "block": both["peak_layer_other"],
            "against_block": both["peak_layer_base"],
        }
    )
    means = []
    for (corpus, same), rows in frame.groupby(["corpus", frame["text"] == SAME]):
        if len(rows) < 2:
            continue
        means.append(
            {
                "run": other.name,
                "against": base.name,
                "model": f"mean of {len(rows)} models",
                "corpus": corpus,
                "emergence_bits": rows["emergence_bits"].mean(),
                "against_bits": rows["against_bits"].mean(),
                "difference": rows["difference"].mean(),
                "std_error": rows["difference"].std(ddof=1) / np.sqrt(len(rows)),
                "errors": "paired",
                "resolution": rows["resolution"].iloc[0],
                "text": SAME if same else "differs",
            }
        )
    if not means:
        return frame
    whole = pd.concat([frame, pd.DataFrame(means)], ignore_index=True)
    return whole.astype({"block": "Int64", "against_block": "Int64"})


def _windows(run: Run, row: Mapping[Hashable, Any], side: str) -> pd.DataFrame:
    """Read the windows behind one `side` of a compared row; a trained estimator, without a resolution, kept none."""
    if pd.isna(row[f"resolution_{side}"]):
        return pd.DataFrame()
    windows = run.windows(row[f"own_model_{side}"], row[f"own_corpus_{side}"])
    return windows_at(windows, row[f"peak_layer_{side}"], float(row[f"resolution_{side}"]))


def _peaks_with_text(table: pd.DataFrame, resolution: float) -> pd.DataFrame:
    """Summarise each model on each corpus, with the hash of the tokens it was measured on ("" if not known).

    `own_model` and `own_corpus` stay what they are in this run, whatever the other run's are called.
    """
    found = peaks(table, resolution)
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
        raise InputError(
            f"{base} was estimated by {', '.join(sorted(ours))}, {other} by {', '.join(sorted(theirs))}: bits of "
            "different observers have no difference; measure both with one estimator."
        )


def _check_resolutions(base: str, other: str, both: pd.DataFrame) -> None:
    """Refuse rows at unequal resolutions, whose difference would be one of observers."""
    left, right = (both[f"resolution_{side}"].astype("Float64").fillna(-1.0) for side in ("base", "other"))
    unequal = both[((left - right).abs() > SAME_RESOLUTION).astype(bool)]
    if len(unequal):
        row = unequal.iloc[0]
        raise InputError(
            f"{row['model']} on {row['corpus']} was read at resolution {row['resolution_base']} in {base} and at "
            f"{row['resolution_other']} in {other}: a difference would be one of observers; choose a resolution that "
            "both hold (--resolution), or measure them alike."
        )


def _changed(runs: list[Run]) -> pd.DataFrame:
    """List the settings in which the runs differ."""
    every = sorted({name for run in runs for name in run.settings})
    differ = [name for name in every if len({run.settings.get(name) for run in runs}) > 1]
    return pd.DataFrame(
        {"setting": differ, **{run.name: [run.settings.get(name, "") for name in differ] for run in runs}}
    )


def _load(run: str, tracking_uri: str | None) -> Run:
    if Path(run).is_dir():
        found = read_results(Path(run))
        settings = flatten({name: found.record.get(name) for name in SETTINGS})
        if found.table.empty:
            raise InputError(f"{run} holds no finished job yet, so there is nothing to compare.")
        return Run(found.name, found.table, settings, found.windows)
    if not RUN_ID.fullmatch(run):
        raise InputError(f"{run} is neither a results folder nor the id of an MLflow run (32 digits and letters a-f).")
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
            table = pd.read_parquet(client.download_artifacts(run_id, "emergence.parquet", folder))
            record = "sweep.json" if "sweep.json" in names else "job.json"
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
                return pd.read_parquet(client.download_artifacts(job, WINDOWS_FILE, folder))

    return Run(str(run.info.run_name), table, flatten({name: settings.get(name) for name in SETTINGS}), windows)


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
