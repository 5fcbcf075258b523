"""Models in GGUF files: what their headers say, read before any weight is."""

from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from estimators.base import InputError
from estimators.contracts.files import check_file

ENDING = ".gguf"
SIZES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # bytes of a value, by the number of its type
TEXT, ARRAY = 8, 9
MOST_ENTRIES = 10_000_000  # of an array; the largest vocabularies have a million


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
        _check_lengths(path)
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


def _check_lengths(path: Path) -> None:
    """Refuse a header that claims more than the file holds: the library would look for it without end.

    Raises:
        ValueError: saying so.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(4)
        order = "<" if struct.unpack("<I", file.read(4))[0] & 0xFFFF else ">"

        def number(code: str) -> int:
            return int(struct.unpack(order + code, file.read(struct.calcsize(order + code)))[0])

        def count() -> int:
            found = number("Q")
            if found > MOST_ENTRIES:
                raise ValueError(f"it claims {found:,} entries")
            return found

        def skip(length: int) -> None:
            if length > size - file.tell():
                raise ValueError(f"it claims {length:,} bytes that are not there")
            file.seek(length, 1)

        def skip_value(kind: int) -> None:
            if kind == TEXT:
                skip(number("Q"))
            elif kind == ARRAY:
                inner, length = number("I"), count()
                if inner in SIZES:
                    skip(length * SIZES[inner])
                else:
                    for _ in range(length):
                        skip_value(inner)
            else:
                skip(SIZES[kind])

        tensors, keys = count(), count()
        for _ in range(keys):
            skip(number("Q"))
            skip_value(number("I"))
        for _ in range(tensors):
            skip(number("Q"))
            skip(8 * number("I") + 12)  # sides, then type and place


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
