"""What a model does behind its last block, for families with different heads."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from transformers import AutoConfig, AutoModelForCausalLM

from estimators.base import InputError
from extraction.models.blocks import find_blocks, watch
from extraction.models.head import find_head
from extraction.models.load import LanguageModel, load_model

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**SMALL, "intermediate_size": 32, "num_key_value_heads": 2},
    "gpt_neox": {**SMALL, "intermediate_size": 32},
    "opt": {**SMALL, "ffn_dim": 32, "word_embed_proj_dim": 8},  # a projection behind the last block
    "gemma2": {**SMALL, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8},  # a soft cap on the logits
    "cohere": {**SMALL, "intermediate_size": 32, "num_key_value_heads": 2, "logit_scale": 0.25},
    "modernbert-decoder": {**SMALL, "intermediate_size": 32},  # a layer and an activation behind the final norm
    "granite": {**SMALL, "intermediate_size": 32, "num_key_value_heads": 2, "logits_scaling": 4.0},
}


def made(kind: str, **settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **tokens, **settings)).eval()
    known = load_model("gpt2-30k", device="cpu")
    blocks = find_blocks(model, kind)
    return replace(known, model=model, name=kind, blocks=blocks, width=16, vocabulary=64)


@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_are_the_models_own(kind: str) -> None:
    model = made(kind, **FAMILIES[kind])
    head = find_head(model)
    ids = torch.tensor([[5, 9, 2, 7], [1, 1, 3, 60]])
    left: list[torch.Tensor] = []
    with torch.inference_mode(), watch(model.blocks, lambda point, state: left.append(state.clone())):
        own = model.model(input_ids=ids, use_cache=False).logits
    with torch.inference_mode():
        torch.testing.assert_close(head.logits(left[-1].flatten(0, 1)), own.flatten(0, 1), atol=1e-4, rtol=1e-4)


def test_weights_that_are_moved_as_they_are_needed() -> None:
    model = made("gemma2", **FAMILIES["gemma2"])
    states = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        held = find_head(model).logits(states)
    offloaded = cpu_offload(model.model, execution_device=torch.device("cpu"))
    with torch.inference_mode():
        moved = find_head(replace(model, model=offloaded)).logits(states)
    torch.testing.assert_close(moved, held)


def test_bundled_models_have_one() -> None:
    for name in ("gpt2-30k", "gemma-30k"):
        assert len(find_head(load_model(name, device="cpu")).before) == 1  # the final norm


def test_a_model_without_a_head_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("llama", **FAMILIES["llama"])
    monkeypatch.setattr(model.model, "get_output_embeddings", lambda: None)
    with pytest.raises(InputError, match=r"llama \(llama\) has no output head, so it predicts no next token"):
        find_head(model)


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = made("llama", **FAMILIES["llama"])

    class Squared(torch.nn.Module):
        """Squares the logits behind the output layer, which no lens could know."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config = inner, inner.config

        def get_output_embeddings(self) -> Any:
            return self.inner.get_output_embeddings()

        def get_decoder(self) -> Any:
            return self.inner.get_decoder()

        def forward(self, **given: Any) -> Any:
            return SimpleNamespace(logits=self.inner(**given).logits ** 2)

    with pytest.raises(InputError, match="are not those of a norm and a linear output layer"):
        find_head(replace(model, model=Squared(model.model)))
