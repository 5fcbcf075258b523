"""The random-weights twin: the control that tells what a network learned from what any network would do."""

from __future__ import annotations

from dataclasses import replace

import torch

from extraction.blocks import find_blocks
from extraction.models import LanguageModel

SUFFIX = "~random"  # marks a twin's rows in every table


def random_twin(model: LanguageModel, *, seed: int = 0) -> LanguageModel:
    """Return a model of the same architecture, size and tokenizer with the weights training starts from.

    A number that this twin reaches as well is no sign of learning (it measures, for instance, that a network keeps
    distinct inputs distinct).

    Args:
        model: the trained model; it is left as it is.
        seed: draws the weights; the same seed gives the same twin.
    """
    from transformers import AutoModelForCausalLM

    trained = model.model
    with torch.random.fork_rng(devices=[]):  # nobody else's random numbers change
        torch.manual_seed(seed)
        twin = AutoModelForCausalLM.from_config(trained.config)
    twin.to(device=model.device, dtype=trained.dtype).eval().requires_grad_(False)
    return replace(model, model=twin, name=model.name + SUFFIX, blocks=find_blocks(twin, model.name))
