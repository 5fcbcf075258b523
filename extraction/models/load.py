"""Loading a causal language model, with all that extraction needs to know of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from estimators.base import InputError
from estimators.contracts.files import check_file
from extraction.models.blocks import check_stream, decoder_of, find_blocks, used_blocks
from extraction.models.devices import (
    chosen_device,
    chosen_dtype,
    first_line,
    quantization_config,
    quiet,
    where_ids_go_in,
)
from extraction.models.gguf_files import is_gguf, read_header, without_bar
from extraction.models.names import bundled, resolve_model
from extraction.versions import content_hash

NO_LIMIT = 2**31 - 1  # context of models without a longest input, such as Mamba
UNREACHABLE = ("couldn't connect", "offline mode", "Max retries")  # in what transformers says of the hub
UNKNOWN = "not a valid model identifier"  # likewise, of a name that the hub does not have


@dataclass(frozen=True, eq=False, repr=False)
class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: the transformers model, in evaluation mode.
        tokenizer: its fast tokenizer.
        name: what tables call it: the bundled name, the folder's own name, or the id on the hub.
        revision: commit or branch on the hub, sha256 of a GGUF file; None for bundled models and folders.
        family: name of the bundled family, else the model type of the configuration.
        parameters: number of weights, tied ones once; of a model for images or sound and text, those that text passes.
        blocks: the blocks l = 0 ... L-1 that the residual stream passes.
        width: features of the residual stream.
        vocabulary: token ids the model knows.
        device: where token ids go in.
        context: longest input in tokens.
        prefix: token ids that the tokenizer puts before every text, such as BOS.
        path: path of a model on disk; None for bundled models and those of the hub.

    >>> model = load_model("gpt2-30k", device="cpu")
    >>> len(model.blocks), model.width, model.family, model.prefix
    (4, 16, 'gpt2', ())
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str | None
    family: str
    parameters: int
    blocks: list[nn.Module]
    width: int
    vocabulary: int
    device: torch.device
    context: int
    prefix: tuple[int, ...]
    path: Path | None = None

    def __repr__(self) -> str:
        """One line; what transformers prints of a model is a page."""
        return (
            f"<LanguageModel {self.name}: {self.parameters:,} parameters, {len(self.blocks)} blocks of width "
            f"{self.width}, on {self.device}>"
        )


def load_model(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attention: str | None = None,
    quantization: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> LanguageModel:
    """Load a bundled model, a local folder or GGUF file, or a model of the hub.

    Args:
        name: name of a bundled model, path of a folder or of a .gguf file (its weights become plain numbers), or id on
            the hub.
        revision: branch, tag or commit on the hub.
        dtype: a torch floating type such as ``bfloat16``; ``auto`` is float32 on CPU, where half precision has no
            advantage, and the checkpoint's own type elsewhere.
        device: a torch device; ``auto`` takes CUDA, else MPS, else CPU; ``spread`` spreads a model that no single
            device holds over all of them.
        attention: attention implementation of transformers, such as ``eager`` or ``flash_attention_2``.
        quantization: one of `extraction.models.devices.QUANTIZATIONS`, done by the library of that name where it is
            installed.
        trust_remote_code: run code that comes with the model.
        allow_pickle: load weights that exist only as pickle, which can run code of their author.

    Raises:
        InputError: if there is no such model, it is not a causal decoder, or it cannot be loaded as asked.

    >>> load_model("gpt2-30k", device="cpu")
    <LanguageModel gpt2-30k: 33,632 parameters, 4 blocks of width 16, on cpu>
    """
    source = resolve_model(name)
    name, family = source.display_name, source.family
    spread = device == "spread"
    place = chosen_device("auto" if spread else device)
    file = source.path if is_gguf(source.path) else None
    if file is not None and quantization is not None:
        raise InputError(f"{name} is a GGUF file, which is already quantised; leave out {quantization}.")
    where, options = _place(source, revision, trust_remote_code=trust_remote_code)
    with quiet(), without_bar() if file else nullcontext():
        config = _config(name, where, options)
        tokenizer = _tokenizer(name, where, options)
        weights = dict(options, dtype=chosen_dtype(dtype, place, quantization))
        if file is None:
            weights["use_safetensors"] = None if allow_pickle else True
        if attention is not None:
            weights["attn_implementation"] = attention
        if quantization is not None:
            weights["quantization_config"] = quantization_config(quantization)
        if spread:
            weights["device_map"] = "auto"
        elif quantization is not None:
            weights["device_map"] = {"": place}
        try:
            model, loaded = loader(config).from_pretrained(where, config=config, output_loading_info=True, **weights)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{name} does not fit on {place}; try device='spread', a smaller dtype or a quantization."
            ) from error
        except Exception as error:  # transformers checks little: files of odd content fail anywhere in it
            raise _explained(name, str(file or where), error, weights=True) from error
    if file is not None:
        _forget_quantization(model)
    if missing := sorted(loaded["missing_keys"]):
        raise InputError(
            f"The checkpoint of {name} lacks {len(missing)} weights, such as {missing[0]}, which would be random; give "
            "the whole checkpoint, with the configuration that belongs to it."
        )
    if quantization is not None and all(type(weight) is nn.Parameter for weight in model.parameters()):
        raise InputError(
            f"{quantization} left every weight of {name} as it was: it does not know this kind of layer or its size; "
            "use another quantization."
        )
    if "device_map" not in weights:
        model.to(place)
    model.eval().requires_grad_(False)
    input_device = where_ids_go_in(model, place)
    blocks = find_blocks(model, name)
    if held := _blocks_held(model, blocks[0], loaded["unexpected_keys"]):
        raise InputError(
            f"The configuration of {name} names {len(blocks)} blocks, but its checkpoint holds weights of {held}; give "
            "the configuration that belongs to it."
        )
    blocks = used_blocks(model, blocks, input_device)
    width = check_stream(model, blocks, input_device, name)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return LanguageModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=content_hash(file) if file else _commit(config, revision) if family is None else None,
        family=family or str(config.model_type),
        parameters=_parameters(model),
        blocks=blocks,
        width=width,
        vocabulary=int(model.get_input_embeddings().num_embeddings),
        device=input_device,
        context=int(context) if context else NO_LIMIT,
        prefix=added_prefix(tokenizer),
        path=source.path if source.kind == "disk" else None,
    )


def model_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a model, and nothing else of it.

    Args:
        name: as for `load_model`.
        revision: as for `load_model`.
        trust_remote_code: as for `load_model`.

    Raises:
        InputError: as `load_model`.

    >>> len(model_tokenizer("gpt2-30k"))
    1024
    """
    source = resolve_model(name)
    where, options = _place(source, revision, trust_remote_code=trust_remote_code)
    with quiet():
        return _tokenizer(source.display_name, where, options)


def _place(source: Any, revision: str | None, *, trust_remote_code: bool) -> tuple[str, dict[str, Any]]:
    """Where a model is found, and what transformers is told of it."""
    if is_gguf(source.path):
        read_header(source.path)
        return str(source.path.parent), {"gguf_file": source.path.name}
    if source.path is not None and source.path.is_dir():
        for file in source.path.iterdir():  # the libraries would wait for the end of a pipe
            check_file(file)
    return source.location, {"revision": revision or "main", "trust_remote_code": trust_remote_code}


def _blocks_held(model: Any, first: nn.Module, unread: Iterable[str]) -> int:
    """Return how many blocks a checkpoint holds where weights of some were not read, else 0.

    What transformers leaves out by design, such as blocks that predict several tokens, is not among `unread`.
    """
    path = next(name for name, part in model.named_modules() if part is first).rpartition(".")[0]
    _, _, bare = path.partition(".")  # checkpoints name weights with or without the prefix of the base model
    pattern = re.compile(rf"(?:{re.escape(path)}|{re.escape(bare)})\.(\d+)\.")
    return max((int(match[1]) + 1 for match in map(pattern.match, unread) if match), default=0)


def _commit(config: Any, revision: str | None) -> str | None:
    commit: str | None = getattr(config, "_commit_hash", None)
    return commit or revision


def _forget_quantization(model: Any) -> None:
    """Take the marks off a model that was read from a GGUF file: its weights are plain numbers again."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def added_prefix(tokenizer: Any) -> tuple[int, ...]:
    """Return the token ids that `tokenizer` puts before every text, such as BOS; often none."""
    plain = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    full = tokenizer("a", verbose=False)["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    return ()


def loader(config: Any) -> Any:
    """Return the class of transformers that loads a model of this configuration with its head."""
    # Late: takes about two seconds and is not needed to read this module's names.
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM

    return AutoModelForMultimodalLM if _wraps_text(config) else AutoModelForCausalLM


def _wraps_text(config: Any) -> bool:
    """Whether this is a model for images or sound and text that has no class for text alone."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    return kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _parameters(model: Any) -> int:
    """Count the weights; of a wrapper those of its text decoder and head."""
    if model.config.get_text_config() is model.config:
        return int(model.num_parameters())
    parts = [decoder_of(model), model.get_output_embeddings()]
    return sum({id(weight): weight.numel() for part in parts if part for weight in part.parameters()}.values())


def _config(name: str, where: str, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    try:
        config: Any = AutoConfig.from_pretrained(where, **options)
    except Exception as error:  # a config.json can hold anything
        raise _explained(name, where, error) from error
    remote = options.get("trust_remote_code") and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # Families like BERT are encoders unless their configuration says otherwise; a decoder that denies it is run to see.
    both_ways = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    text = config.get_text_config()
    if not hasattr(text, "model_type"):
        raise InputError(f"The configuration of {name} holds an invalid text_config; correct its config.json.")
    if getattr(config, "is_encoder_decoder", False) or getattr(text, "is_encoder_decoder", False):
        kind = "an encoder-decoder"
    elif both_ways and getattr(text, "is_decoder", None) is False:
        kind = "an encoder"
    elif not (known or remote or _wraps_text(config)):
        kind = "not a model that continues text, as far as transformers knows"
    else:
        _check_size(name, config)
        return config
    raise InputError(
        f"{name} ({config.model_type}) is {kind}; information emergence needs a causal, decoder-only model."
    )


MOST_BLOCKS = 10_000  # or experts; the deepest models have some hundred
MOST_PARTS = 1_000_000  # blocks times experts
_COUNTS = re.compile(r"(n|num)_(\w+_)?(layers?|blocks)|depth|layers")
_EXPERTS = re.compile(r"(n|num)_(\w+_)?experts")


def _check_size(name: str, config: Any) -> None:
    """Refuse a configuration that would take for ever to build, by mistake or on purpose.

    Raises:
        InputError: naming the number that is too large.
    """
    counts, experts = [("", 1)], [("", 1)]
    for part in (config, config.get_text_config()):
        for key in [*vars(part), *getattr(part, "attribute_map", {})]:
            value = getattr(part, key, None)
            if isinstance(value, int | float) and value > 0:
                number = int(min(value, 10**15))  # infinity is written too
                counts += [(key, number)] if _COUNTS.fullmatch(key) else []
                experts += [(key, number)] if _EXPERTS.fullmatch(key) else []
    (key, most), (expert_key, each) = (max(found, key=lambda one: one[1]) for found in (counts, experts))
    if max(most, each) > MOST_BLOCKS or most * each > MOST_PARTS:
        too_many = [f"{what} {number:,}" for what, number in ((key, most), (expert_key, each)) if number > MOST_BLOCKS]
        said = " and ".join(too_many or [f"{key} {most:,} and {expert_key} {each:,}"])
        raise InputError(
            f"The configuration of {name} says {said}, more than any model has, and would never be built; correct its "
            "config.json."
        )


def _check_config(name: str, where: str, options: dict[str, Any]) -> None:
    """Refuse a config.json that the library cannot read: a tokenizer is loaded by it, too, and would be blamed."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(where, **options)
    except OSError:  # there is none, or the hub is out of reach
        return
    except Exception as error:
        raise InputError(
            f"The config.json of {name} cannot be used ({first_line(error)}); correct it, or copy the model again."
        ) from error


def _tokenizer(name: str, where: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where, **options)
        usable = tokenizer.is_fast and tokenizer("a", add_special_tokens=False)["input_ids"]
    except Exception as error:  # a tokenizer.json can hold anything
        _check_config(name, where, options)
        if not os.path.exists(where) and any(words in str(error) for words in (*UNREACHABLE, UNKNOWN)):
            raise _explained(name, where, error) from error
        raise InputError(
            f"The tokenizer of {name} could not be loaded ({first_line(error)}); "
            "a tokenizer.json must be in the model's folder."
        ) from error
    if not usable:
        raise InputError(
            f"{name} has no fast tokenizer, which is needed to place windows in text; put the tokenizer.json that "
            "belongs to it with the model, or convert the one it has."
        )
    return tokenizer


def _explained(name: str, where: str, error: Exception, *, weights: bool = False) -> InputError:
    """Word a failure of from_pretrained for a person."""
    text = str(error)
    if "GGUF" in text and "not supported" in text:
        return InputError(f"{name} has an architecture that transformers cannot read from GGUF: {first_line(error)}")
    if "trust_remote_code" in text:
        return InputError(f"{name} comes with its own code; read it, then allow it by trust_remote_code.")
    if any(words in text for words in UNREACHABLE):
        return InputError(
            f"{name} is not a bundled model, a folder or a model in the local cache, and the hub could not be reached. "
            "Connect, or download it elsewhere and give its folder; HF_HUB_OFFLINE=1 uses the cache alone. "
            + bundled(name)
        )
    if weights and "safetensors" in text and ("no file named" in text or "does not appear to have" in text):
        return InputError(
            f"{name} has no weights in the safetensors format; if you trust its author, allow pickle weights by "
            "allow_pickle, which can run code."
        )
    if "ignore_mismatched_sizes" in text:
        return InputError(
            f"The weights of {name} do not have the sizes that its config.json gives; use the config.json that belongs "
            "to them."
        )
    if os.path.exists(where):
        return InputError(f"The model in {where} could not be loaded: {first_line(error)}")
    return InputError(f"{name} could not be loaded: {first_line(error)} {bundled(name)}")
