"""Serve a GGUF file, or a bundled GPT-2, by llama.cpp's server: a real OpenAI-compatible server that shows logprobs.

    python benchmarks/llama_server.py gpt2-90k                 # writes the bundled model as a GGUF file first
    python benchmarks/llama_server.py path/to/model.gguf --parallel 8

The address is the first line on stdout; the server ends with stdin. Needs the package xllamacpp (extra `dev`).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

# What llama.cpp calls the tensors of GPT-2, and which of them it keeps the other way round.
TENSORS = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
NORMAL, CONTROL = 1, 3  # llama.cpp's kinds of token


def write_gguf(name: str, path: Path) -> Path:
    """Write a bundled GPT-2 with its tokenizer and chat template as a GGUF file of float32 weights.

    Args:
        name: of the bundled model.
        path: file to write.
    """
    from gguf import GGUFWriter

    from extraction import load_model

    model = load_model(name, device="cpu")
    config, tokenizer = model.model.config, model.tokenizer
    writer = GGUFWriter(str(path), "gpt2")
    writer.add_name(name)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(0)  # all float32
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    writer.add_token_types([CONTROL if one in special else NORMAL for one in range(len(tokenizer))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    for key, weight in model.model.state_dict().items():
        if key == "lm_head.weight":  # the embedding's
            continue
        stem, _, kind = key.rpartition(".")
        if stem in TENSORS:
            renamed = TENSORS[stem]
        else:
            _, _, block, part = stem.split(".", 3)
            renamed = f"blk.{block}.{TENSORS[part]}"
        values = weight.float().numpy()
        if ".c_" in key and kind == "weight":
            values = values.T  # GPT-2 multiplies from the other side
        writer.add_tensor(f"{renamed}.{kind}", np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file, or name of a bundled GPT-2")
    parser.add_argument("--context", type=int, default=256, help="tokens of each call, default 256")
    parser.add_argument("--parallel", type=int, default=4, help="calls at once, which is also the largest n")
    parser.add_argument("--threads", type=int, default=1, help="they spin while they wait: no more than are idle")
    given = parser.parse_args()
    from xllamacpp import CommonParams, Server

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(given.model)
        if not file.is_file():
            file = write_gguf(given.model, Path(scratch) / f"{given.model}.gguf")
        params = CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel = given.context * given.parallel, given.parallel
        params.cpuparams.n_threads = given.threads
        params.port = 0
        server = Server(params)
        print(server.listening_address, flush=True)
        sys.stdin.read()
        del server


if __name__ == "__main__":
    main()
