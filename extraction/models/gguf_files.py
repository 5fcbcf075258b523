"""Models in GGUF files: what their headers say, read before any weight is."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from estimators.base import InputError
from estimators.contracts.files import check_file

ENDING = ".gguf"


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the header of a GGUF file says of the model in it.

    Attributes:
        architecture: llama.cpp's name of the architecture.
        parameters: numbers in all tensors.
        blocks: how many blocks; None where the header does not say.
        width: features of the residual stream; None where it does not say.
    """

    architecture: str
    parameters: int
    blocks: int | None
    width: int | None


def is_gguf(path: Path | None) -> bool:
    """Whether a path names a GGUF file by its ending."""
    return path is not None and path.suffix.lower() == ENDING and path.is_file()


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file.

    Raises:
        InputError: if the library is missing, or the file is none, ends early, or holds a vocabulary and no weights.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{path.name} is read by the library gguf; pip install 'emergence-proxy[gguf]'.")
    check_file(path)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise InputError(f"{path} is not a GGUF file; give the file that llama.cpp runs.")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(path), "r")
    except Exception as error:  # it checks little: a file that ends early fails anywhere in it
        raise InputError(
            f"{path} ends early or is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "fetch it again."
        ) from error

    def field(name: str) -> object:
        found = reader.get_field(name)
        return None if found is None else found.contents()

    architecture = str(field("general.architecture"))
    if not reader.tensors:
        raise InputError(f"{path} holds a vocabulary but no weights; give the file with the model.")
    sizes = [field(f"{architecture}.{name}") for name in ("block_count", "embedding_length")]
    blocks, width = (int(size) if isinstance(size, int) else None for size in sizes)
    total = sum(math.prod(int(side) for side in tensor.shape) for tensor in reader.tensors)
    return GgufHeader(architecture, total, blocks, width)


@contextmanager
def without_bar() -> Iterator[None]:
    """Hide the progress bar that transformers shows while it reads such a file, whatever its settings."""
    import transformers.modeling_gguf_pytorch_utils as reading

    bar = reading.tqdm
    reading.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        reading.tqdm = bar
