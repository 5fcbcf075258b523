"""Loading: what comes out, and one clear sentence for each thing that cannot be loaded."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from estimators.base import InputError
from extraction import reference_models
from extraction.corpora.loading import windows
from extraction.models.blocks import run_decoder, watch
from extraction.models.devices import QUANTIZATIONS
from extraction.models.head import find_head
from extraction.models.load import NO_LIMIT, LanguageModel, load_model, model_tokenizer
from extraction.models.twin import random_twin
from extraction.states.extracting import Projection, extract

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def save(folder: Path, config: Any, tokenizer: Any | None = None) -> str:
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_folder_gives_all_that_extraction_needs(gpt2: LanguageModel, gpt2_folder: Path) -> None:
    assert (gpt2.name, gpt2.path) == (gpt2_folder.name, gpt2_folder.resolve())
    assert (gpt2.family, gpt2.revision, gpt2.width, gpt2.context, len(gpt2.blocks)) == ("gpt2", None, 32, 64, 3)
    assert gpt2.vocabulary == len(gpt2.tokenizer)
    weights = {id(p): p.numel() for p in gpt2.model.parameters()}  # tied weights once
    assert gpt2.parameters == sum(weights.values())
    assert gpt2.prefix == ()
    assert not gpt2.model.training


def test_a_bundled_model_loads_by_name() -> None:
    model = load_model("gpt2-30k")
    assert (model.name, model.family, model.revision) == ("gpt2-30k", "gpt2", None)
    assert model.model.dtype == (torch.float32 if model.device.type == "cpu" else torch.bfloat16)


def test_what_the_tokenizer_puts_in_front_is_found(
    save_gpt2: Callable[..., Path], bos_tokenizer: Any, tmp_path: Path
) -> None:
    model = load_model(str(save_gpt2(tmp_path / "bos", bos_tokenizer)))
    assert model.prefix == (bos_tokenizer.bos_token_id,)


def test_options_reach_the_model(gpt2_folder: Path) -> None:
    model = load_model(str(gpt2_folder), dtype="bfloat16", attention="eager", device="spread")
    assert model.model.dtype == torch.bfloat16
    assert model.model.config._attn_implementation == "eager"


def test_a_model_without_longest_input_says_so(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4, eos_token_id=0)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).context == NO_LIMIT


def test_an_unknown_bundled_name_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no bundled model gpt2-28k\. .*nearest: gpt2-280k\.") as caught:
        load_model("gpt2-28k")
    assert all(name in str(caught.value) for name in reference_models.names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/model", "No model folder at '/no/such/model', and it is not a valid hub id"),
        ("./model", "No model folder at './model', and it is not a valid hub id"),
        ("a/b/c", "No model folder at 'a/b/c', and it is not a valid hub id"),
        ("", "The name of a model is empty"),
    ],
)
def test_an_unknown_folder_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_model(str(tmp_path))
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(InputError, match=r"is a file; give a \.gguf file, or the folder"):
        load_model(str(file))


def test_a_broken_folder_is_named(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="could not be loaded"):
        load_model(str(folder))
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="could not be loaded"):
        load_model(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "nonesuch"}), encoding="utf-8")
    with pytest.raises(InputError, match="nonesuch"):
        load_model(str(folder))


def test_weights_that_do_not_fit_are_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "misfit")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 4}), encoding="utf-8")
    with pytest.raises(InputError, match=r"lacks .* weights"):
        load_model(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 1}), encoding="utf-8")
    with pytest.raises(InputError, match="of misfit names 1 blocks, but its checkpoint holds weights of 3; give"):
        load_model(str(folder))


def test_an_encoder_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import BertConfig

    folder = save(tmp_path, BertConfig(vocab_size=99, **TINY), tokenizer)
    with pytest.raises(InputError, match="is an encoder; information emergence needs a causal, decoder-only model"):
        load_model(folder)


def test_a_decoder_that_says_it_is_none_is_loaded(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "denies")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "is_decoder": False}), encoding="utf-8")
    assert len(load_model(str(folder)).blocks) == 3


PIXTRAL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
           "image_size": 28, "patch_size": 14, "model_type": "pixtral"}  # fmt: skip


def test_a_model_for_images_and_text_is_its_text_model(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {**TINY, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": len(tokenizer), "model_type": "mistral",
            "max_position_embeddings": 64}  # fmt: skip
    config = Mistral3Config(text_config=text, vision_config=PIXTRAL, image_token_index=5)
    torch.manual_seed(0)
    whole = Mistral3ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), device="cpu")
    inner = whole.model.language_model
    assert model.parameters == inner.num_parameters() < whole.num_parameters()  # the head is tied
    assert (model.family, model.width, model.context, len(model.blocks)) == ("mistral3", 16, 64, 2)
    found = windows("animal", model.tokenizer, tokens=6, count=20)
    with extract(model, found, projection=Projection(None), likelihoods=True) as states, torch.inference_mode():
        hidden = inner(torch.from_numpy(found.tokens), output_hidden_states=True).hidden_states
        logits = whole(input_ids=torch.from_numpy(found.tokens)).logits
        assert states.blocks == 2
        entropy = torch.special.entr(torch.softmax(logits, -1)).sum(-1) / torch.log(torch.tensor(2.0))
        assert states.likelihoods is not None
        torch.testing.assert_close(states.likelihoods.entropy_bits, entropy, atol=1e-5, rtol=1e-4)
    seen: list[torch.Tensor] = []
    with torch.inference_mode(), watch(model.blocks, lambda point, h: seen.append(h.clone())):
        run_decoder(model.model, torch.from_numpy(found.tokens))
    assert torch.equal(seen[0], hidden[0])
    assert torch.equal(seen[1], hidden[1])
    assert random_twin(model).blocks[0] is not model.blocks[0]
    assert find_head(model).output is model.model.lm_head


@pytest.mark.parametrize("key", ["n_layer", "num_hidden_layers"])
def test_a_depth_that_is_never_built_is_refused_at_once(gpt2_folder: Path, tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "deep")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["n_layer"]
    (folder / "config.json").write_text(json.dumps({**config, key: 10_000_000}), encoding="utf-8")
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"configuration of deep says \w+ 10,000,000, more than any model has"):
        load_model(str(folder))
    assert time.perf_counter() - started < 10


def with_config(model: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Copy a model to `folder`, with changes to its config.json."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_layer": 0}, "holds no list of 0 blocks"),
        ({"text_config": {"model_type": "llama"}}, "holds an invalid text_config"),
        ({"n_embd": 10**6}, "do not have the sizes that its config.json gives"),
        ({"n_inner": 10**12}, "do not have the sizes that its config.json gives"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_one_sentence(
    gpt2_folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    folder = with_config(gpt2_folder, tmp_path / "odd", changes)
    with pytest.raises(InputError, match=sentence):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_embd": 32.5}, "n_embd"),
        ({"n_layer": True}, "n_layer"),
        ({"dtype": "banana"}, "banana"),
        ({"model_type": ["gpt2"]}, "list"),
        ({"quantization_config": 5}, "int"),
    ],
)
def test_an_invalid_config_is_not_blamed_on_the_tokenizer(
    gpt2_folder: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    folder = with_config(gpt2_folder, tmp_path / "odd", changes)
    with pytest.raises(InputError, match=f"The config.json of odd cannot be used .*{said}"):
        model_tokenizer(str(folder))
    with pytest.raises(InputError, match=f"odd could not be loaded: .*{said}"):
        load_model(str(folder))


def test_experts_that_are_never_built_are_refused_at_once(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import Qwen3MoeConfig

    shape = {**TINY, "num_hidden_layers": 200, "num_experts": 9_000}
    Qwen3MoeConfig(vocab_size=len(tokenizer), **shape).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"says \w+ 200 and num_(local_)?experts 9,000, more than any model has"):
        load_model(str(tmp_path))


def test_weights_that_are_no_numbers_have_their_own_sentence(gpt2_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(gpt2_folder, tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"hold NaN or infinity, first in transformer\.h\.1\.mlp\.c_fc\.weight"):
        load_model(str(folder), device="cpu")


def test_an_encoder_decoder_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import T5Config

    folder = save(tmp_path, T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2), tokenizer)
    with pytest.raises(InputError, match="is an encoder-decoder"):
        load_model(folder)


def test_a_folder_without_a_fast_tokenizer_is_refused(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "slow")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"no fast tokenizer.*put the tokenizer\.json"):
        load_model(str(folder))


def test_pickle_weights_only_when_allowed(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "pickled")
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights in the safetensors format.*allow_pickle"):
        load_model(str(folder))
    assert load_model(str(folder), allow_pickle=True).parameters > 0


def test_code_of_the_model_runs_only_when_asked_for(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["architectures"]
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}), encoding="utf-8")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    with pytest.raises(InputError, match="comes with its own code; read it, then allow it by trust_remote_code"):
        load_model(str(folder))
    assert not (tmp_path / "ran").exists()


OWN = """
from transformers import GPT2Config, GPT2LMHeadModel
class OwnConfig(GPT2Config):
    model_type = "own"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""


def test_the_twin_of_a_model_with_its_own_code_is_of_that_code(gpt2_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2_folder, tmp_path / "remote")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps({**config, **own}), encoding="utf-8")
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    model = load_model(str(folder), trust_remote_code=True)
    assert type(model.model).__name__ == "OwnModel"
    twin = random_twin(model)
    assert type(twin.model) is type(model.model)
    assert twin.model.num_parameters() == model.parameters


def test_a_twin_is_spread_as_its_model_is(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    model = load_model(str(gpt2_folder), device="cpu")
    spread: list[dict[str, Any]] = []
    monkeypatch.setattr(
        accelerate, "dispatch_model", lambda twin, device_map: spread.append(device_map) or twin, raising=True
    )
    model.model.hf_device_map = {"transformer": 0, "lm_head": 1}
    random_twin(model)
    assert spread == [{"transformer": 0, "lm_head": 1}]
    model.model.hf_device_map = {"transformer": "cpu", "lm_head": "disk"}
    with pytest.raises(InputError, match="is partly offloaded to disk"):
        random_twin(model)


def test_a_quantised_model_has_no_twin(gpt2_folder: Path) -> None:
    model = load_model(str(gpt2_folder), device="cpu")
    model.model.hf_quantizer = object()  # as transformers leaves it
    with pytest.raises(InputError, match="is quantised, and a twin with random weights would not be"):
        random_twin(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "abacus"}, "device abacus cannot be used"),
        ({"dtype": "int8"}, "not a floating-point type of torch"),
        ({"dtype": "nonsense"}, "not a floating-point type of torch"),
        ({"attention": "nonsense"}, "could not be loaded"),
        ({"quantization": "nonsense"}, "Unknown quantization nonsense; choose one of bitsandbytes-8bit"),
    ],
)
def test_options_that_make_no_sense(gpt2_folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(str(gpt2_folder), **options)


def test_a_missing_quantization_library_is_named(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs bitsandbytes; pip install bitsandbytes"):
        load_model(str(gpt2_folder), quantization="bitsandbytes-4bit")


def test_cuda_that_is_not_there(gpt2_folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    with pytest.raises(InputError, match=r"device cuda cannot be used here.*Try cpu"):
        load_model(str(gpt2_folder), device="cuda")


def test_no_network_is_touched_for_a_folder(gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a local model asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_model(str(gpt2_folder))


@pytest.mark.parametrize("quantization", ["torchao-int8", "bitsandbytes-8bit"])
def test_quantised_where_the_library_is_installed(quantization: str) -> None:
    pytest.importorskip(QUANTIZATIONS[quantization])
    small, full = (load_model("gemma-280k", quantization=kind, device="cpu") for kind in (quantization, None))
    assert any(type(weight) is not torch.nn.Parameter for weight in small.model.parameters())
    found = windows("animal", full.tokenizer, count=50)
    with extract(small, found) as rough, extract(full, found) as fine:
        error = (rough.leaving(3, 10) - fine.leaving(3, 10)).norm() / fine.leaving(3, 10).norm()
    assert 0 < error < 0.1  # 8 bits a weight: 0.4 % each, more where weights of one row differ in size


def test_quantisation_that_changes_nothing_is_refused() -> None:
    pytest.importorskip("torchao")
    with pytest.raises(InputError, match="left every weight of gpt2-30k as it was"):
        load_model("gpt2-30k", quantization="torchao-int8", device="cpu")  # GPT-2's layers are none of torchao's


def test_a_name_that_is_neither_here_nor_reached_is_not_blamed_on_its_tokenizer() -> None:
    """The tokenizer is what is loaded first of a model."""
    for load in (load_model, model_tokenizer):
        with pytest.raises(InputError, match=r"owner/no-such-model is not a bundled model, a folder or .* cache"):
            load("owner/no-such-model")
