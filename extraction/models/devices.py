"""What loading a model takes besides the model: devices, number types, quantisation, quiet."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from estimators.base import InputError

QUANTIZATIONS = {
    "bitsandbytes-8bit": "bitsandbytes",
    "bitsandbytes-4bit": "bitsandbytes",
    "torchao-int8": "torchao",
    "torchao-int4": "torchao",
}


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, as a sentence; with the next where the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2]) if lines and lines[0].endswith(":") else lines[0] if lines else type(error).__name__
    return said.rstrip(".") + "."


def chosen_device(device: str) -> torch.device:
    """Return the device of this name; ``auto`` is CUDA, else MPS, else CPU.

    Raises:
        InputError: if there is none here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"The device {device} cannot be used here: {first_line(error)} Try cpu.") from error
    return place


def where_ids_go_in(model: Any, place: torch.device) -> torch.device:
    """Return the device that token ids are handed to; `place` for a model that is moved as it is needed."""
    device: torch.device = model.get_input_embeddings().weight.device
    return place if device.type == "meta" else device  # meta: offloaded, moved by accelerate as it is needed


def chosen_dtype(dtype: str, place: torch.device, quantization: str | None) -> torch.dtype | str:
    """Return the type of number of this name; ``auto`` as `load_model` says.

    Raises:
        InputError: if it is no floating type.
    """
    if dtype == "auto" and quantization in ("bitsandbytes-8bit", "bitsandbytes-4bit"):
        return torch.float16  # what its kernels compute in
    if dtype == "auto":
        return torch.float32 if place.type == "cpu" else "auto"
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise InputError(
            f"dtype {dtype} is not a floating-point type of torch; use auto, float32, bfloat16 or float16."
        )
    return kind


def quantization_config(quantization: str) -> Any:
    """Return what from_pretrained takes for one of `QUANTIZATIONS`.

    Raises:
        InputError: if it is none of them, or its library is not installed.
    """
    library = QUANTIZATIONS.get(quantization)
    if library is None:
        raise InputError(f"Unknown quantization {quantization}; choose one of {', '.join(QUANTIZATIONS)}.")
    if importlib.util.find_spec(library) is None:
        raise InputError(f"The quantization {quantization} needs {library}; pip install {library}.")
    if library == "bitsandbytes":
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(**{f"load_in_{quantization.removeprefix('bitsandbytes-')}": True})
    import torchao.quantization as torchao  # type: ignore[import-not-found]
    from transformers import TorchAoConfig

    kinds = {"torchao-int8": torchao.Int8WeightOnlyConfig, "torchao-int4": torchao.Int4WeightOnlyConfig}
    return TorchAoConfig(kinds[quantization]())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages of transformers and the hub; errors are still raised."""
    from transformers.utils import logging as transformers_logging

    hub = logging.getLogger("huggingface_hub")
    level, hub_level = transformers_logging.get_verbosity(), hub.level
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
