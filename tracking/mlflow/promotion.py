"""The one way to the alias `champion`: by saying what got better."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from estimators.base import InputError
from estimators.contracts.secrets import masked
from tracking.mlflow.proxy_run import CANDIDATE, CHAMPION, USEFUL
from tracking.mlflow.store import clear_errors, open_store, store_uri

# Scores of left-out models: whether less (-1) or more (+1) is better.
BETTER = {"mae": -1, "rmse": -1, "r2": 1, "spearman": 1}
DECIDES = "mae"


@dataclass(frozen=True)
class Promotion:
    """What was promoted, and why.

    Attributes:
        version: the new champion.
        before: the version that was champion; None if there was none.
        table: score, before, now, better.
        remarks: what makes the two hard to compare.
    """

    version: str
    before: str | None
    table: pd.DataFrame = field(repr=False)
    remarks: tuple[str, ...]


def promote(
    name: str, *, version: str | None = None, anyway: bool = False, tracking_uri: str | None = None
) -> Promotion:
    """Make a registered proxy the champion, if it is of use and its error on left-out models got smaller.

    Of use is one that did better than every baseline; the error is the mean absolute one.

    Args:
        name: of the registered model.
        version: the version; default the one with alias `candidate`.
        anyway: promote even if it is of no use or not better.
        tracking_uri: MLflow server or database.

    Raises:
        InputError: if there is no such model or version, it estimates a different target than the champion, or it did
            no better than its best baseline or than the champion and `anyway` is not given.

    >>> import proxy
    >>> from pathlib import Path
    >>> from tracking import track_proxy
    >>> proxy.fit_proxy(references, target="emergence_bits", candidate="best_feature").save(scratch / "first")
    >>> how = {"model_code": Path(proxy.__file__).with_name("regression") / "served.py"}
    >>> how |= {"input_example": references.head(2), "tracking_uri": f"sqlite:///{scratch}/mlflow.db"}
    >>> track_proxy(scratch / "first", register="candidates", anyway=True, **how).version
    '1'
    >>> promote("candidates", anyway=True, tracking_uri=how["tracking_uri"]).before is None  # there was no champion
    True
    """
    uri = store_uri(tracking_uri)
    client = open_store(uri)
    with clear_errors(uri, starting=True):
        entry = _version(client, name, CANDIDATE if version is None else version, uri)
        if entry is None:
            raise InputError(
                f"{name} in {masked(uri)} has no {CANDIDATE if version is None else f'version {version}'}; register "
                "one with `emergence fit --register`."
            )
        before = _version(client, name, CHAMPION, uri)
        now, then = _evidence(client, entry), _evidence(client, before) if before else {}
    number, old = str(entry.version), str(before.version) if before else None
    if number == old:
        raise InputError(f"Version {number} of {name} is the champion already.")
    if not anyway and now["useful"] != "yes":
        raise InputError(
            f"Version {number} of {name} did no better than its best baseline on left-out models: {now['verdict']} "
            "Promote it all the same with --anyway."
        )
    remarks = []
    if before is not None:
        if now["target"] != then["target"]:
            raise InputError(
                f"Version {number} of {name} estimates {now['target']}, the champion {then['target']}; register "
                "proxies of different targets under different names."
            )
        if now["references_hash"] != then["references_hash"]:
            remarks.append(
                "the two were checked on different reference tables, so their scores are only roughly comparable"
            )
    table = _scores(now["scores"], then.get("scores", {}))
    decisive = table[table["score"] == DECIDES]
    if before is not None and not anyway and not (len(decisive) and bool(decisive["better"].iloc[0])):
        row = decisive.iloc[0] if len(decisive) else {"now": None, "before": None}
        raise InputError(
            f"Version {number} of {name} is not better than champion {old}: mean absolute error {row['now']} against "
            f"{row['before']} on left-out models; promote it all the same with --anyway."
        )
    with clear_errors(uri):
        client.set_registered_model_alias(name, CHAMPION, entry.version)
        client.set_model_version_tag(name, entry.version, "promoted", _sentence(table, old))
    return Promotion(number, old, table, tuple(remarks))


def _version(client: Any, name: str, which: str, uri: str) -> Any:
    """Return a version by number or alias, None if there is none of that kind.

    Raises:
        InputError: if the model itself is not there.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"No proxy {name} is registered in {masked(uri)}; see `emergence fit --register`.") from error
    try:
        if which.isdigit():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _evidence(client: Any, entry: Any) -> dict[str, Any]:
    data = client.get_run(entry.run_id).data
    return {
        "target": data.params.get("target"),
        "references_hash": data.params.get("references_hash"),
        "useful": data.tags.get(USEFUL),
        "verdict": data.tags.get("verdict", "it has no verdict; fit it again."),
        "scores": data.metrics,
    }


def _scores(now: dict[str, float], before: dict[str, float]) -> pd.DataFrame:
    rows = []
    for score, sign in BETTER.items():
        new, old = now.get(score), before.get(score)
        better = None if new is None or old is None else sign * (new - old) > 0
        rows.append({"score": score, "before": old, "now": new, "better": better})
    for score in ("coverage", "interval_width"):  # neither more nor less is better by itself
        rows.append({"score": score, "before": before.get(score), "now": now.get(score), "better": None})
    frame = pd.DataFrame(rows)
    return frame.astype({"before": "Float64", "now": "Float64", "better": "boolean"})


def _sentence(table: pd.DataFrame, old: str | None) -> str:
    if old is None:
        return "the first champion"
    said = {True: "better", False: "worse"}
    parts = [
        f"{row['score']} {row['before']:.4g} -> {row['now']:.4g} ({said[bool(row['better'])]})"
        for row in table[table["better"].notna()].to_dict("records")
    ]
    return f"against version {old}: {', '.join(parts)}"
