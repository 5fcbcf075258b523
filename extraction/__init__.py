"""From models and text to states, likelihoods and answers.

What needs transformers is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators.contracts.exports import lazy_exports

if TYPE_CHECKING:
    from extraction.answers.collecting.budget import Budget
    from extraction.answers.collecting.options import Limits, Server
    from extraction.answers.collecting.run import collect
    from extraction.answers.generation import generate_answers
    from extraction.answers.prompt_sets import prompts
    from extraction.answers.sampling import Sampling
    from extraction.corpora.categories import CATEGORIES
    from extraction.corpora.lists import list_windows
    from extraction.corpora.loading import text_windows, windows
    from extraction.corpora.spec import CorpusOptions
    from extraction.corpora.token_windows import Windows
    from extraction.models.load import LanguageModel, load_model
    from extraction.models.twin import random_twin
    from extraction.states.budget import StateBudget
    from extraction.states.extracting import Projection, States, extract, spill_notice, spilled_bytes
    from extraction.states.likelihoods import Likelihoods, accuracy_by_shots, likelihood_table
    from extraction.states.statistics import Statistics

_HOMES = {
    "Likelihoods": "states.likelihoods",
    "Budget": "answers.collecting.budget",
    "CATEGORIES": "corpora.categories",
    "CorpusOptions": "corpora.spec",
    "LanguageModel": "models.load",
    "Limits": "answers.collecting.options",
    "Sampling": "answers.sampling",
    "Server": "answers.collecting.options",
    "StateBudget": "states.budget",
    "Projection": "states.extracting",
    "States": "states.extracting",
    "Statistics": "states.statistics",
    "Windows": "corpora.token_windows",
    "accuracy_by_shots": "states.likelihoods",
    "likelihood_table": "states.likelihoods",
    "collect": "answers.collecting.run",
    "extract": "states.extracting",
    "generate_answers": "answers.generation",
    "list_windows": "corpora.lists",
    "load_model": "models.load",
    "prompts": "answers.prompt_sets",
    "random_twin": "models.twin",
    "spill_notice": "states.extracting",
    "spilled_bytes": "states.extracting",
    "text_windows": "corpora.loading",
    "windows": "corpora.loading",
}

__all__ = [
    "CATEGORIES",
    "Budget",
    "CorpusOptions",
    "LanguageModel",
    "Likelihoods",
    "Limits",
    "Projection",
    "Sampling",
    "Server",
    "StateBudget",
    "States",
    "Statistics",
    "Windows",
    "accuracy_by_shots",
    "collect",
    "extract",
    "generate_answers",
    "likelihood_table",
    "list_windows",
    "load_model",
    "prompts",
    "random_twin",
    "spill_notice",
    "spilled_bytes",
    "text_windows",
    "windows",
]

__getattr__, __dir__ = lazy_exports("extraction", _HOMES)
