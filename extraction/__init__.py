"""From models and text to states, behaviour and answers.

What needs transformers is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# At once, since each is a function in a module of the same name, which the name would mean otherwise.
from extraction.collect import collect
from extraction.prompts import prompts

if TYPE_CHECKING:
    from extraction.behaviour import Behaviour, accuracy_by_shots, behaviour_table
    from extraction.categories import CATEGORIES
    from extraction.corpora import text_windows, windows
    from extraction.drawn import Windows
    from extraction.generation import generate_answers
    from extraction.lists import list_windows
    from extraction.models import LanguageModel, load_model
    from extraction.states import States, extract, spill_notice, spilled_bytes
    from extraction.statistics import Statistics
    from extraction.twin import random_twin

_HOMES = {
    "Behaviour": "behaviour",
    "CATEGORIES": "categories",
    "LanguageModel": "models",
    "States": "states",
    "Statistics": "statistics",
    "Windows": "drawn",
    "accuracy_by_shots": "behaviour",
    "behaviour_table": "behaviour",
    "extract": "states",
    "generate_answers": "generation",
    "list_windows": "lists",
    "load_model": "models",
    "random_twin": "twin",
    "spill_notice": "states",
    "spilled_bytes": "states",
    "text_windows": "corpora",
    "windows": "corpora",
}

__all__ = [
    "CATEGORIES",
    "Behaviour",
    "LanguageModel",
    "States",
    "Statistics",
    "Windows",
    "accuracy_by_shots",
    "behaviour_table",
    "collect",
    "extract",
    "generate_answers",
    "list_windows",
    "load_model",
    "prompts",
    "random_twin",
    "spill_notice",
    "spilled_bytes",
    "text_windows",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'extraction' has no attribute {name!r}")
    return getattr(importlib.import_module(f"extraction.{_HOMES[name]}"), name)
