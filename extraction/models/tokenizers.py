"""A tokenizer without its model: of a bundled model, a folder, a GGUF file, a model of the hub, or of tiktoken."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from estimators.base import InputError
from extraction.models.devices import first_line, quiet
from extraction.models.names import resolve_model

REFERENCE = "gemma-2m"  # bundled; cuts the windows of models for which no tokenizer is named
_OPENAI = re.compile(r"(gpt-[345]|chatgpt-|o[134](-|$)|davinci-|babbage-)")


def load_tokenizer(name: str) -> Any:
    """Load a fast tokenizer.

    Args:
        name: a bundled model, a folder, a ``.gguf`` file, an id of the hub, or ``tiktoken:ENCODING``.

    Raises:
        InputError: if there is none, or it cannot tell where in a text its tokens lie.

    >>> load_tokenizer("gpt2-30k")("a")["input_ids"] != []
    True
    """
    if name.startswith("tiktoken:"):
        return Tiktoken(_encoding(name.removeprefix("tiktoken:"), by_model=False))
    from transformers import AutoTokenizer

    path = Path(name)
    try:
        with quiet():
            if path.suffix == ".gguf" and path.is_file():
                tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
            else:
                place = name if path.is_dir() else resolve_model(name).location
                tokenizer = AutoTokenizer.from_pretrained(place)
    except InputError:
        raise
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The tokenizer {name} could not be loaded ({first_line(error)}); give a bundled model, a folder, a .gguf "
            "file, a model of the hub or tiktoken:ENCODING."
        ) from error
    if not tokenizer.is_fast:
        raise InputError(f"{name} has no fast tokenizer, which is needed to place windows in text; give another.")
    return tokenizer


def tokenizer_of_closed(model: str, name: str | None) -> tuple[Any, bool, str]:
    """The tokenizer for a model behind an API: the one named, else tiktoken's for OpenAI's names, else the reference.

    Args:
        model: name at the server.
        name: as for `load_tokenizer`; None: by itself.

    Returns:
        Tokenizer, whether it is the model's own, and what it is called.

    Raises:
        InputError: as `load_tokenizer`.
    """
    if name is not None:
        return load_tokenizer(name), True, name
    why = ""
    if _OPENAI.match(model):
        try:
            return Tiktoken(_encoding(model, by_model=True)), True, f"tiktoken's for {model}"
        except InputError as error:  # the reference cuts the windows, and the rows say so
            why = f" ({str(error).rstrip('.')})"
    return load_tokenizer(REFERENCE), False, f"the reference tokenizer, {REFERENCE}'s{why}"


def _encoding(name: str, *, by_model: bool) -> Any:
    try:
        import tiktoken
    except ImportError as error:
        raise InputError(f"The encoding {name} needs the package tiktoken; pip install tiktoken.") from error
    try:
        return tiktoken.encoding_for_model(name) if by_model else tiktoken.get_encoding(name)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"tiktoken has no encoding for {name}, or could not fetch it: {first_line(error)}.") from error


class Tiktoken:
    """An encoding of tiktoken with the part of the tokenizers' interface that windows need.

    Args:
        encoding: a ``tiktoken.Encoding``.
    """

    is_fast = True

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of the special tokens."""
        return sorted(self._encoding.special_tokens_set)

    def __len__(self) -> int:
        return int(self._encoding.n_vocab)

    def __call__(self, text: Any, *, return_offsets_mapping: bool = False, **_: Any) -> dict[str, Any]:
        """Token ids of a text or of several, with the characters of each token where asked."""
        if isinstance(text, str):
            return {name: rows[0] for name, rows in self([text], return_offsets_mapping=return_offsets_mapping).items()}
        ids = [self._encoding.encode_ordinary(one) for one in text]
        if not return_offsets_mapping:
            return {"input_ids": ids}
        offsets = []
        for row in ids:
            whole, starts = self._encoding.decode_with_offsets(row)
            offsets.append(list(zip(starts, [*starts[1:], len(whole)], strict=True)))
        return {"input_ids": ids, "offset_mapping": offsets}

    def decode(self, ids: list[int], **_: Any) -> str:
        """Text of token ids; a part of a character is the replacement character."""
        text: str = self._encoding.decode(ids, errors="replace")
        return text
