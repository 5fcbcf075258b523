"""The random-weights twin: the control that separates what a network learned from what any network does."""

from __future__ import annotations

from dataclasses import replace

import torch

from estimators.base import InputError
from estimators.contracts.conventions import TWIN
from extraction.models.load import LanguageModel


def random_twin(model: LanguageModel, *, seed: int = 0) -> LanguageModel:
    """Return a model of the same architecture, size and tokenizer with the weights training starts from.

    A number that this twin reaches as well is not evidence of learning (it measures, for instance, that a network keeps
    distinct inputs distinct). A model spread over several devices has its twin spread in the same way.

    Args:
        model: the trained model; it is left as it is.
        seed: of the weights; the same seed gives the same twin.

    Raises:
        InputError: if the model is quantised or partly on disk, so that it has no comparable twin.

    >>> from extraction import load_model
    >>> random_twin(load_model("gpt2-30k", device="cpu"))
    <LanguageModel gpt2-30k~random: 33,632 parameters, 4 blocks of width 16, on cpu>
    """
    trained = model.model
    if getattr(trained, "hf_quantizer", None) is not None:
        raise InputError(
            f"{model.name} is quantised, and a twin with random weights would not be; leave out the twin, or the "
            "quantization."
        )
    places = getattr(trained, "hf_device_map", None) or {}
    if "disk" in places.values():
        raise InputError(
            f"{model.name} is partly offloaded to disk, so there is no memory for its twin; use a machine with more "
            "memory."
        )
    kind = type(trained)  # the class that was loaded, perhaps of the model's own code
    with torch.random.fork_rng(devices=[]):  # random numbers of other code stay as they are
        torch.manual_seed(seed)
        twin = kind._from_config(trained.config)
    twin.to(dtype=trained.dtype).eval().requires_grad_(False)
    if len(set(places.values())) > 1:
        from accelerate import dispatch_model

        twin = dispatch_model(twin, device_map=places)
    else:
        twin.to(device=model.device)
    paths = {id(part): path for path, part in trained.named_modules()}
    blocks = [twin.get_submodule(paths[id(block)]) for block in model.blocks]
    return replace(model, model=twin, name=model.name + TWIN, blocks=blocks)
