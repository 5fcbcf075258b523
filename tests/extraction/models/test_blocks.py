"""The states of every architecture are those that a forward hook on its block sees, to the bit."""

from typing import Any

import pytest
import torch
from torch import nn

from estimators.base import InputError
from extraction.models.blocks import (
    check_beginnings,
    check_stream,
    decoder_of,
    find_blocks,
    run_decoder,
    used_blocks,
    watch,
)
from extraction.models.load import loader

TINY = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 99}
PLAIN = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LLAMA = {**TINY, **PLAIN, "intermediate_size": 32, "max_position_embeddings": 64}
GROUPED = {**LLAMA, "num_key_value_heads": 1, "head_dim": 8}
GPT = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "vocab_size": 99, **PLAIN}
VISION = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
LATENT = {
    **LLAMA, "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
LINEAR = {
    **GROUPED, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}  # fmt: skip
MAMBA2 = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 4, "mamba_chunk_size": 16}
TOWER = {
    "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 16,
    "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
}  # fmt: skip
SECTIONS = {**GROUPED, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
SMALL_IMAGES = {**VISION, "image_size": 28, "patch_size": 14}
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
    "mamba2": (
        {
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "vocab_size": 99,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 16,
            **PLAIN,
        },
        "backbone.layers",
    ),
    "bamba": ({**GROUPED, **MAMBA2, "attn_layer_indices": [1]}, "model.layers"),  # state space and attention
    "falcon_h1": ({**GROUPED, **MAMBA2, "mamba_d_ssm": 32}, "model.layers"),  # both in every block
    "qwen3_next": (
        {
            **LINEAR,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
        },
        "model.layers",
    ),
    "lfm2": ({**GROUPED, "layer_types": ["conv", "full_attention", "conv"]}, "model.layers"),
    "recurrent_gemma": (
        {**GROUPED, "lru_width": 16, "attention_window_size": 4, "block_types": ["recurrent", "attention"]},
        "model.layers",
    ),
    "cohere2": (
        {**GROUPED, "sliding_window": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "model.layers",
    ),
    "gpt_oss": ({**GROUPED, "sliding_window": 3, "num_local_experts": 2, "num_experts_per_tok": 1}, "model.layers"),
    "deepseek_v3": ({**LATENT, **ROUTED}, "model.layers"),
    "longcat_flash": (  # two sublayers a block
        {
            **{name: value for name, value in LATENT.items() if name != "num_hidden_layers"},
            "head_dim": 4,
            "num_layers": 3,
            "ffn_hidden_size": 32,
            "expert_ffn_hidden_size": 8,
            "n_routed_experts": 2,
            "zero_expert_num": 1,
            "moe_topk": 2,
        },
        "model.layers",
    ),
    "modernbert-decoder": (LLAMA, "model.layers"),  # its `get_decoder()` is the output layer
    "llama4_text": (
        {**GROUPED, "intermediate_size_mlp": 32, "num_local_experts": 2, "moe_layers": [1]},
        "model.layers",
    ),
    "rwkv": (
        {"hidden_size": 16, "num_hidden_layers": 3, "vocab_size": 99, "attention_hidden_size": 16, **PLAIN},
        "rwkv.blocks",
    ),
    "mistral3": (
        {
            "text_config": {**GROUPED, "model_type": "mistral"},
            "vision_config": {**SMALL_IMAGES, "model_type": "pixtral"},
            "image_token_index": 98,
        },
        "model.language_model.layers",
    ),
    "llava": (
        {
            "text_config": {**LLAMA, "model_type": "llama"},
            "image_token_index": 98,
            "vision_config": {**SMALL_IMAGES, "model_type": "clip_vision_model"},
        },
        "model.language_model.layers",
    ),
    "qwen2_5_vl": ({"text_config": SECTIONS, "vision_config": TOWER}, "model.language_model.layers"),
    "qwen2_audio": (
        {
            "text_config": {**GROUPED, "model_type": "qwen2"},
            "audio_token_index": 98,
            "audio_config": {
                "d_model": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 16,
                "num_mel_bins": 8,
                "max_source_positions": 16,
            },
        },
        "model.language_model.layers",
    ),
    "qwen3_vl": ({"text_config": SECTIONS, "vision_config": TOWER}, "model.language_model.layers"),
}
CPU = torch.device("cpu")


def build(model_type: str, changes: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **changes)
    return loader(config).from_config(config).eval()


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
    assert used_blocks(model, blocks, CPU) == blocks
    assert check_stream(model, blocks, CPU, model_type) == 16
    for head in (False, True):
        seen: dict[int, torch.Tensor] = {}
        with torch.inference_mode(), watch(blocks, lambda point, h, seen=seen: seen.update({point: h.clone()})):
            run_decoder(model, ids, head=head)
        assert list(seen) == list(range(4))
        assert all(torch.equal(seen[point], expected[point]) for point in seen)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks)


def test_cross_attention_to_images_is_no_block_of_text() -> None:
    text = {**LLAMA, "num_key_value_heads": 1, "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}  # fmt: skip
    vision = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_global_layers": 1, "attention_heads": 2, "image_size": 28,
        "intermediate_size": 16, "patch_size": 14, "vision_output_dim": 32, "intermediate_layers_indices": [0],
        "supported_aspect_ratios": [[1, 1]],
    }  # fmt: skip
    model = build("mllama", {"text_config": text, "vision_config": vision})
    every = find_blocks(model, "mllama")
    blocks = used_blocks(model, every, CPU)
    assert [type(block).__name__ for block in every] == [
        "MllamaSelfAttentionDecoderLayer",
        "MllamaCrossAttentionDecoderLayer",
        "MllamaSelfAttentionDecoderLayer",
    ]
    assert blocks == [every[0], every[2]]
    assert check_stream(model, blocks, CPU, "mllama") == 16
    ids = torch.tensor([[3, 4, 5]])
    seen: dict[int, torch.Tensor] = {}
    with torch.inference_mode(), watch(blocks, lambda point, h: seen.update({point: h.clone()})):
        hidden = model.model(ids, output_hidden_states=True).hidden_states
    assert torch.equal(seen[1], hidden[1])
    assert torch.equal(decoder_of(model).norm(seen[2]), hidden[-1])


def test_a_block_that_runs_more_than_once_is_refused() -> None:
    model = build("gpt2", GPT)
    inner = model.transformer.h[1]
    model.transformer.h[0].mlp.forward = lambda hidden: inner(hidden)  # a module keeps its hooks
    with pytest.raises(InputError, match="runs its 3 blocks 4 times for one token"):
        check_stream(model, find_blocks(model, "gpt2"), CPU, "gpt2")


def test_weights_that_are_no_numbers_are_named() -> None:
    model = build("llama", LLAMA)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    message = r"The weights of llama \(llama\) hold NaN or infinity, first in model\.layers\.1\.mlp\.up_proj\.weight"
    with pytest.raises(InputError, match=message):
        check_stream(model, find_blocks(model, "llama"), CPU, "llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:] = 3e38
    with pytest.raises(InputError, match="overflow to NaN or infinity though its weights are finite"):
        check_stream(model, find_blocks(model, "llama"), CPU, "llama")


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_states_that_depend_on_the_length_of_a_run_are_refused(kind: str) -> None:
    """Scores of an index are sums over heads of what passes a ReLU: with one head many are 0, with many heads none."""
    index = {"index_topk": 4, "index_head_dim": 8}
    ids = torch.randint(3, 99, (4, 12), generator=torch.Generator().manual_seed(0))
    ties = build(kind, {**LATENT, **ROUTED, **index, "index_n_heads": 1})
    with pytest.raises(InputError, match="attends to the 4 best-scored tokens and breaks ties"):
        check_beginnings(ties, find_blocks(ties, kind), ids, kind)
    check_beginnings(ties, find_blocks(ties, kind), ids[:, :4], kind)
    published = build(kind, {**LATENT, **ROUTED, **index, "index_n_heads": 32})  # as published: 64, and 32
    blocks = find_blocks(published, kind)
    check_beginnings(published, blocks, ids, kind)
    seen: list[torch.Tensor] = []
    with torch.inference_mode(), watch(blocks, lambda point, h: seen.append(h.clone())):
        for length in range(1, 13):
            run_decoder(published, ids[:, :length])
    for length in range(1, 13):  # ours is a check of one length; this is all of them
        torch.testing.assert_close(seen[4 * length - 1], seen[-1][:, :length], atol=1e-4, rtol=1e-4)


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
    model.transformer.h = nn.ModuleList([nn.Identity(), nn.Identity()])
    with pytest.raises(InputError, match="no list of 7 blocks"):
        find_blocks(model, "gpt2")
