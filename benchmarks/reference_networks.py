"""The networks of the reference models: their sizes, how they begin, how well they predict, and how they are kept."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from reference_text import CONTEXT, VOCABULARY, Data
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

BLOCKS = 4  # one depth for all, so that width alone separates the sizes


@dataclass(frozen=True)
class Size:
    """Shape of one size of the family; head width is `width / heads` in all architectures."""

    name: str
    width: int
    heads: int
    gated: int
    """Width of a gated feed-forward layer, so that its block has about as many parameters as the GPT-2 block."""


SIZES = (
    Size("30k", 16, 2, 48),
    Size("90k", 32, 2, 96),
    Size("280k", 64, 4, 192),
    Size("750k", 112, 4, 320),
    Size("2m", 192, 6, 544),
)


def _shape(size: Size, **more: Any) -> dict[str, Any]:
    """Fields of a configuration by the names that most architectures use, without dropout."""
    shared = {"num_hidden_layers": BLOCKS, "num_attention_heads": size.heads, "max_position_embeddings": CONTEXT}
    return {"hidden_size": size.width, **shared, "attention_dropout": 0.0, **more}


def _gated(size: Size) -> dict[str, Any]:
    return _shape(size, intermediate_size=size.gated, num_key_value_heads=size.heads, head_dim=size.width // size.heads)


def _plain(size: Size) -> dict[str, Any]:
    return _shape(size, intermediate_size=4 * size.width)


def _gpt2(size: Size) -> dict[str, Any]:
    shape = {"n_positions": CONTEXT, "n_embd": size.width, "n_layer": BLOCKS, "n_head": size.heads}
    return {**shape, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def _opt(size: Size) -> dict[str, Any]:
    return _shape(size, ffn_dim=4 * size.width, word_embed_proj_dim=size.width, dropout=0.0)


def _bloom(size: Size) -> dict[str, Any]:
    return {"hidden_size": size.width, "n_layer": BLOCKS, "n_head": size.heads}


# Fields of the configuration by transformers' name of the architecture. Two are bundled. Of the others only what is
# measured of them is kept, in the bank, which would else know two families: positions that are learned, rotated (all or
# a part), or a slope of attention; norms before or behind, of the stream or of queries and keys; blocks in sequence or
# in parallel; feed-forward layers with a gate or without.
ARCHITECTURES: dict[str, Callable[[Size], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "gemma": _gated,
    "llama": _gated,
    "qwen3": _gated,
    "olmo2": _gated,
    "gpt_neox": _plain,
    "phi": _plain,
    "falcon": _plain,
    "opt": _opt,
    "bloom": _bloom,
}
BUNDLED = [f"{architecture}-{size.name}" for architecture in ("gpt2", "gemma") for size in SIZES]
MODELS = {f"{architecture}-{size.name}": (architecture, size) for architecture in ARCHITECTURES for size in SIZES}


def build(name: str, end: int, seed: int) -> PreTrainedModel:
    """The untrained model of that name."""
    architecture, size = MODELS[name]
    torch.manual_seed(seed)
    spread = round(0.4 / math.sqrt(size.width), 4)
    config = AutoConfig.for_model(
        architecture,
        **ARCHITECTURES[architecture](size),
        vocab_size=VOCABULARY,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=None,  # else the embedding of the end token would be held at zero
        **{"init_std" if architecture == "opt" else "initializer_range": spread},
        tie_word_embeddings=True,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def bits_per_token(model: PreTrainedModel, sequences: torch.Tensor) -> float:
    """Mean of -log2 p(token | tokens before) over every token but the first of each sequence."""
    total = 0.0
    with torch.inference_mode():
        for batch in sequences.split(16):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
            total += cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
    return total / (sequences.shape[0] * (sequences.shape[1] - 1)) / math.log(2)


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: Data, folder: Path, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write a `from_pretrained` folder in bf16 and training.json with the losses of the weights as written."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rounded = type(model)(model.config)
    rounded.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in model.state_dict().items()})
    rounded.eval()
    text_bits = bits_per_token(rounded, data.held_out)
    facts = {
        **facts,
        "parameters": model.num_parameters(),
        "bits_per_token": round(text_bits, 4),
        "bits_per_byte": round(text_bits / data.bytes_per_token, 4),
        "bits_per_token_lists": round(bits_per_token(rounded, data.lists), 4),
    }
    rounded.generation_config.pad_token_id = tokenizer.pad_token_id
    rounded.to(torch.bfloat16).save_pretrained(partial)
    (partial / "model.safetensors").chmod(0o644)  # safetensors leaves it to its owner alone
    tokenizer.save_pretrained(partial)
    (partial / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return facts
