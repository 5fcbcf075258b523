"""Sections of a config in which nothing is taken silently, and words for what is wrong in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator

from estimators.contracts.numbers import LARGEST


class Strict(BaseModel):
    """A frozen section of the config in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key(str(key), cls.model_fields))
                _check_number(key, value[key], cls.model_fields[key].annotation)
        return value


class Named(Strict):
    """A section for which a bare text may stand: its first field."""

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: Any) -> Any:
        return {next(iter(cls.model_fields)): value} if isinstance(value, str) else value


def _check_number(key: str, value: object, wanted: Any) -> None:
    """Refuse what pydantic accepts as a number: true and false, and whole numbers that are too large."""
    if isinstance(value, bool) and wanted is not bool and {int, float} & {wanted, *get_args(wanted)}:
        raise ValueError(f"{key} is a number, got {str(value).lower()}.")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{key} is a number of at most {LARGEST}, got one of {value.bit_length()} bits.")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Word the error for `key`, naming the nearest of `known`."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"unknown key '{key}'; " + (f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}.")


def explained(detail: Any) -> str:
    """Put one pydantic error into a sentence that begins with its place, e.g. `models[2].dtype`."""
    place = ""
    for part in detail["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    message = str(detail["msg"]).removeprefix("Value error, ").rstrip(".?")
    mark = "?" if str(detail["msg"]).endswith("?") else "."
    if detail["type"] == "missing":
        return f"the key '{place}' is missing."
    given = detail.get("input")
    shown = "" if detail["type"] == "value_error" else f", got {given!r}" if _scalar(given) else f", got {kind(given)}"
    return f"{place}: {message}{shown}{mark}" if place else f"{message}{shown}{mark}"


def _scalar(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def kind(value: object) -> str:
    """Call a value what YAML calls it."""
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), f"'{value}'")
