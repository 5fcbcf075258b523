"""The estimators a user names, as a list separated by commas; loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from estimators.base import InputError

DEFAULT_ESTIMATOR = "predictive"
PREDICTIVE_WINDOWS = 20_000  # most that the predictive observer uses: its errors are below .05 bits there
SCORED = "predictive"  # of the output: the whole probability of what followed, where a server scores any text
_OUTPUT = re.compile(r"(output|predictive)-(\d+)|output-2-of-(\d+)")


def estimator_names(estimator: str) -> list[str]:
    """Return the estimators that a comma-separated list names, each once.

    Raises:
        InputError: if one is empty.

    >>> estimator_names("predictive, sample-propagation")
    ['predictive', 'sample-propagation']
    """
    names = list(dict.fromkeys(part.strip() for part in estimator.split(",")))
    if not all(names):
        raise InputError(f"Estimators are names separated by commas, such as predictive,mine; got {estimator!r}.")
    return names


def check_options(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse estimators that do not exist and options that they do not take, before any work.

    Raises:
        InputError: saying which.

    >>> check_options(["predictive", "mine"], {"full": True, "steps": 50})
    """
    from estimators import estimator as known_estimator

    if "full" in options and not {"predictive", "sample-propagation"} & set(names):
        raise InputError(
            f"full is an option of predictive and sample-propagation; {' and '.join(names)} takes no such option."
        )
    if not isinstance(options.get("full", False), bool):
        raise InputError(f"full is true or false; got {options['full']!r}.")
    options = trained_options(options)
    trained = [name for name in names if name not in ("predictive", "sample-propagation") and not is_output(name)]
    for name in trained:
        known_estimator(name, **options)
    if options and not trained:
        raise InputError(f"Options are for trained estimators, such as mine; {' and '.join(names)} takes none.")


def trained_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of trained estimators: all but that of the other observers.

    >>> trained_options({"full": True, "steps": 50})
    {'steps': 50}
    """
    return {name: value for name, value in options.items() if name != "full"}


def is_output(name: str) -> bool:
    """Whether an estimator reads the output alone.

    >>> is_output("output-2-of-20"), is_output("mine")
    (True, False)
    """
    return _OUTPUT.fullmatch(name) is not None


def check_names(names: Sequence[str]) -> None:
    """Refuse readings of the output that do not exist.

    Raises:
        InputError: with those there are.

    >>> check_names(["output-20", "output-2", "predictive-20"])
    """
    for name in names:
        if name != SCORED and not is_output(name):
            raise InputError(
                "The output is read by output-2 (collisions), output-2-of-K (among K tokens shown), output-K or "
                f"predictive-K, such as output-20, and predictive where text is scored; got {name}."
            )
