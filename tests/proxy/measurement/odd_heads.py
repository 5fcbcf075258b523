"""Models whose head no lens can be read through."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from extraction import LanguageModel, load_model


def without_head(model: LanguageModel) -> LanguageModel:
    """Return the model, which shares its weights, without an output head."""
    headless = replace(model, model=copy.copy(model.model))
    headless.model.get_output_embeddings = lambda: None
    return headless


def with_bent_head(name: str) -> LanguageModel:
    """Load a model whose logits are not linear in what its norm gives."""
    bent = load_model(name, device="cpu")
    forward = bent.model.forward

    def squashed(*args: Any, **options: Any) -> Any:
        said = forward(*args, **options)
        said.logits = said.logits.abs().sqrt()
        return said

    bent.model.forward = squashed
    return bent
