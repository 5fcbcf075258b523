"""The states of every architecture are those that a forward hook on its block sees, to the bit."""

from typing import Any

import pytest
import torch
from torch import nn

from estimators.base import InputError
from extraction.models.blocks import check_stream, find_blocks, run_decoder, watch

TINY = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 99}
PLAIN = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = {**TINY, **PLAIN, "intermediate_size": 32, "max_position_embeddings": 64}
GROUPED = {**LLAMA, "num_key_value_heads": 1, "head_dim": 8}
GPT = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "vocab_size": 99, **PLAIN}
VISION = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
# model type: configuration, and where its blocks are according to its source.
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "gpt2": (GPT, "transformer.h"),
    "gpt_neox": (LLAMA, "gpt_neox.layers"),
    "gptj": ({**GPT, "rotary_dim": 4}, "transformer.h"),
    "opt": (
        {**TINY, **PLAIN, "ffn_dim": 32, "max_position_embeddings": 64, "word_embed_proj_dim": 8},
        "model.decoder.layers",
    ),
    "llama": (LLAMA, "model.layers"),
    "mistral": (GROUPED, "model.layers"),
    "qwen2": ({**LLAMA, "num_key_value_heads": 1}, "model.layers"),
    "qwen3": (GROUPED, "model.layers"),
    "qwen3_moe": (
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8},
        "model.layers",
    ),
    "gemma": (GROUPED, "model.layers"),
    "gemma2": (GROUPED, "model.layers"),
    "gemma3_text": (GROUPED, "model.layers"),
    "gemma3": (
        {"text_config": GROUPED, "vision_config": {**VISION, "image_size": 28, "patch_size": 14}},
        "model.language_model.layers",
    ),
    "phi": (LLAMA, "model.layers"),
    "phi3": (LLAMA, "model.layers"),
    "falcon": ({**TINY, **PLAIN}, "transformer.h"),
    "olmo": (LLAMA, "model.layers"),
    "olmo2": (LLAMA, "model.layers"),
    "bloom": ({"hidden_size": 16, "n_layer": 3, "n_head": 2, "vocab_size": 99, **PLAIN}, "transformer.h"),
    "mpt": ({"d_model": 16, "n_layers": 3, "n_heads": 2, "vocab_size": 99, **PLAIN}, "transformer.blocks"),
    "mixtral": ({**GROUPED, "num_local_experts": 2}, "model.layers"),
    "openai-gpt": ({**GPT}, "transformer.h"),
    "mamba": (
        {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 99, "state_size": 4, **PLAIN},
        "backbone.layers",
    ),
}
CPU = torch.device("cpu")


def build(model_type: str, changes: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **changes)).eval()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_states_are_those_of_a_forward_hook(model_type: str) -> None:
    changes, path = FAMILIES[model_type]
    model = build(model_type, changes)
    ids = torch.randint(3, 99, (4, 7), generator=torch.Generator().manual_seed(0))
    expected: list[torch.Tensor] = []
    handles = []
    for index, block in enumerate(model.get_submodule(path)):

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any, index: int = index) -> None:
            if index == 0:
                expected.append((args[0] if args else kwargs["hidden_states"]).clone())
            expected.append((output[0] if isinstance(output, tuple | list) else output).clone())

        handles.append(block.register_forward_hook(hook, with_kwargs=True))
    with torch.inference_mode():
        model(input_ids=ids)  # the whole model, as anyone runs it
    for handle in handles:
        handle.remove()

    blocks = find_blocks(model, model_type)
    assert check_stream(model, blocks, CPU, model_type) == 16
    for head in (False, True):
        seen: dict[int, torch.Tensor] = {}
        with torch.inference_mode(), watch(blocks, lambda point, h, seen=seen: seen.update({point: h.clone()})):
            run_decoder(model, ids, head=head)
        assert list(seen) == list(range(4))
        assert all(torch.equal(seen[point], expected[point]) for point in seen)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks)


def test_the_last_state_is_before_the_final_norm() -> None:
    model = build("llama", LLAMA)
    blocks = find_blocks(model, "llama")
    seen: dict[int, torch.Tensor] = {}
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode(), watch(blocks, lambda point, h: seen.update({point: h.clone()})):
        hidden = model.model(ids, output_hidden_states=True).hidden_states
    assert torch.equal(model.model.norm(seen[3]), hidden[-1])
    assert not torch.equal(seen[3], hidden[-1])


def test_a_model_that_reads_both_ways_is_refused() -> None:
    model = build("bert", {**LLAMA, "is_decoder": False})
    with pytest.raises(InputError, match="reads text in both directions"):
        check_stream(model, find_blocks(model, "bert"), CPU, "bert")
    model = build("bert", {**LLAMA, "is_decoder": True})
    assert check_stream(model, find_blocks(model, "bert"), CPU, "bert") == 16


def test_a_stream_changed_between_blocks_is_refused() -> None:
    model = build("rwkv", {**TINY, **PLAIN, "attention_hidden_size": 16, "rescale_every": 1})
    with pytest.raises(InputError, match="changes its states between blocks"):
        check_stream(model, find_blocks(model, "rwkv"), CPU, "rwkv")


def test_states_that_are_not_one_vector_per_token_are_refused() -> None:
    class Doubled(nn.Module):
        """Hands on two vectors per token, as models with several streams do."""

        def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return hidden.unsqueeze(2) if hidden.dim() == 3 else hidden

    model = build("gpt2", GPT)
    model.transformer.h = nn.ModuleList([Doubled(), Doubled(), Doubled()])
    with pytest.raises(InputError, match="do not each pass one vector per token"):
        check_stream(model, find_blocks(model, "doubled"), CPU, "doubled")


def test_a_model_that_cannot_run_is_refused() -> None:
    model = build("gpt2", GPT)
    model.transformer.h[1].mlp.c_fc = nn.Linear(3, 3)
    with pytest.raises(InputError, match="gpt2 was loaded, but failed on a first run of three tokens"):
        check_stream(model, find_blocks(model, "gpt2"), CPU, "gpt2")


def test_a_model_without_a_list_of_blocks_is_refused() -> None:
    model = build("gpt2", GPT)
    model.config.n_layer = 7
    with pytest.raises(InputError, match="no list of 7 blocks"):
        find_blocks(model, "gpt2")
