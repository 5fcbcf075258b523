"""The settings of runs, and which of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tracking.results import flatten

SETTINGS = ("config", "seed", "versions", "git_revision", "hardware")
LISTS = {"models": "id", "corpora": "source"}  # lists in a config, and what names their entries


def settings_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Flatten the settings of a run; models and corpora go by their names, whatever their places in the config.

    >>> settings_of({"config": {"models": [{"id": "gpt2", "dtype": "auto"}], "seed": 0}, "seed": 0})
    {'config.models.gpt2.id': 'gpt2', 'config.models.gpt2.dtype': 'auto', 'config.seed': '0'}
    """
    settings = {name: record.get(name) for name in SETTINGS}
    config = settings["config"]
    if isinstance(config, dict):
        named = dict(config)
        if "seed" in named:  # which the record repeats
            del settings["seed"]
        for part, key in LISTS.items():
            entries = config.get(part)
            if isinstance(entries, list) and all(isinstance(entry, dict) and key in entry for entry in entries):
                names = distinct([str(entry[key]) for entry in entries])
                named[part] = dict(zip(names, entries, strict=True))
        settings["config"] = named
    return flatten(settings)


def changed(settings: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """List the settings in which runs differ; of models and corpora that only some of them have, the names alone.

    Args:
        settings: of each run, as `settings_of` gives them.

    >>> one, two = ({"config": {"models": [{"id": name, "dtype": "auto"} for name in names]}} for names in ("ab", "b"))
    >>> changed({"one": settings_of(one), "two": settings_of(two)}).values.tolist()
    [['config.models', 'only a', '']]
    """
    runs = [*settings.values()]
    rows: list[list[str]] = []
    partial: list[str] = []  # beginnings of the settings of entries that some lack
    for part, key in LISTS.items():
        prefix, end = f"config.{part}.", f".{key}"
        entries = [
            {name[len(prefix) : -len(end)] for name in run if name.startswith(prefix) and name.endswith(end)}
            for run in runs
        ]
        common = {name for name in entries[0] if all(name in names for names in entries)}
        partial += [f"{prefix}{name}." for names in entries for name in names - common]
        if any(names - common for names in entries):
            only = ["only " + ", ".join(sorted(names - common)) if names - common else "" for names in entries]
            rows.append([f"config.{part}", *only])
    for name in {name for run in runs for name in run}:
        values = [run.get(name) for run in runs]
        if len(set(values)) > 1 and not name.startswith(tuple(partial)):
            rows.append([name, *(value or "" for value in values)])
    return pd.DataFrame(sorted(rows), columns=["setting", *settings])


def distinct(names: Sequence[str]) -> list[str]:
    """Return the names, those that occur more than once followed by their number.

    >>> distinct(["a", "b", "a"])
    ['a (1)', 'b', 'a (3)']
    """
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names, 1)]
