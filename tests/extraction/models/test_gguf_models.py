"""Models in GGUF files against the models written into them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from estimators.base import InputError
from extraction import load_model
from extraction.models.gguf_files import read_header
from extraction.models.names import display_names, model_version, resolve_model, same_model
from extraction.models.twin import random_twin
from proxy.sweeps.config import Model
from proxy.sweeps.sizes import count_parameters, shape

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
}


def source(tokenizer: Any) -> Any:
    """A tiny Qwen2 with as many words as `tokenizer`, and weights from a seed."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, rms_norm_eps=1e-6, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).eval()


def write(path: Path, model: Any, tokenizer: Any) -> Path:
    """Write what llama.cpp's converter would."""
    config = model.config
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(merges_of(tokenizer))
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        stem, kind = name.rsplit(".", 1)
        for ours, theirs in NAMES.items():
            stem = stem.replace(ours, theirs)
        writer.add_tensor(f"{stem.replace('model.layers', 'blk')}.{kind}", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def merges_of(tokenizer: Any) -> list[str]:
    """The merges of a byte-level tokenizer, in the form of GGUF."""
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in merges] or ["a b"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", source(tokenizer), tokenizer)


def test_a_gguf_file_is_the_model_written_into_it(file: Path, tokenizer: Any) -> None:
    model = load_model(file, device="cpu")
    expected = source(tokenizer)
    assert (model.name, model.family, len(model.blocks), model.width) == ("tiny", "qwen2", 3, 32)
    assert model.revision == hashlib.sha256(file.read_bytes()).hexdigest()
    assert model.parameters == expected.num_parameters() == read_header(file).parameters
    assert model.model.dtype == torch.float32
    ids = torch.tensor([[5, 70, 71, 200]])
    with torch.inference_mode():
        # Written and read as 32-bit numbers: nothing is lost.
        torch.testing.assert_close(model.model(ids).logits, expected(ids).logits, rtol=0, atol=0)


def test_its_twin_has_other_weights_of_the_same_shapes(file: Path) -> None:
    model = load_model(file, device="cpu")
    twin = random_twin(model, seed=1)  # the file holds what seed 0 draws
    assert twin.parameters == model.parameters

    random, trained = (one.model.model.layers[0].mlp.up_proj.weight for one in (twin, model))
    assert random.shape == trained.shape
    assert not torch.equal(random, trained)


def test_sizes_and_versions_of_a_sweep_are_read_from_its_header(file: Path, tokenizer: Any) -> None:
    assert count_parameters(Model(id=str(file))) == source(tokenizer).num_parameters()
    assert (shape(Model(id=str(file))).blocks, shape(Model(id=str(file))).width) == (3, 32)
    assert model_version(resolve_model(file)) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_names_of_files_that_are_called_alike_are_distinguished(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny.gguf"
    other.write_bytes(file.read_bytes())
    names = display_names([resolve_model(file), resolve_model(other)])
    assert list(names.values()) == [f"{file.parent.name}/tiny", f"{tmp_path.name}/tiny"]
    assert same_model(str(file), "tiny")


def test_nothing_is_drawn_while_it_loads(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(file, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_a_gguf_file_is_not_quantised_again(file: Path) -> None:
    with pytest.raises(InputError, match="leave out torchao-int8"):
        load_model(file, device="cpu", quantization="torchao-int8")


def test_every_command_that_takes_a_model_takes_it(file: Path, tmp_path: Path, emergence: Any) -> None:
    import pandas as pd

    from proxy.sweeps.config import parse_config
    from proxy.sweeps.jobs import make_jobs
    from proxy.sweeps.worker import Worker

    bits, answers, features = (tmp_path / f"{name}.parquet" for name in ("bits", "answers", "features"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Tell me of a dog.\nWhat is a cat?\n", encoding="utf-8")
    for command in (
        ("measure", file, "--corpus", "python-docs", "--windows", 120, "--out", bits),
        ("answer", file, "--prompts", prompts, "--max-tokens", 8, "--samples", 8, "--out", answers),
        ("features", answers, "--readers", file, "--out", features),
    ):
        done = emergence(*command)
        assert done.code == 0, (command[0], done.err)
    assert set(pd.read_parquet(bits)["revision"]) == {hashlib.sha256(file.read_bytes()).hexdigest()}
    assert set(pd.read_parquet(answers)["model"]) == {"tiny"}
    assert any(name.startswith("small.tiny.") for name in pd.read_parquet(features))
    config = {"name": "t", "models": [str(file)], "corpora": [{"source": "python-docs", "windows": 120}]}
    outcome = Worker().run(make_jobs(parse_config(config))[0])
    assert outcome.table is not None, outcome.record["traceback"]
