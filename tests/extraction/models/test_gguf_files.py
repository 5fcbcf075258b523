"""GGUF files as models: headers of files written here, and the real models where they lie."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from estimators.base import InputError
from extraction import load_model, random_twin
from extraction.models.gguf_files import read_header
from extraction.models.names import resolve_model

REAL = Path(os.environ.get("EMERGENCE_REAL_MODELS", ""))
real = pytest.mark.skipif(
    not os.environ.get("EMERGENCE_REAL_MODELS"), reason="EMERGENCE_REAL_MODELS names no folder of real models"
)


def written(path: Path, *, tensors: int = 1, architecture: str = "llama") -> Path:
    """Write a GGUF file of `tensors` weights of 2 x 32 numbers, in the real format."""
    import gguf

    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    for number in range(tensors):
        writer.add_tensor(f"blk.{number}.attn_q.weight", np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_header_tells_size_and_shape(tmp_path: Path) -> None:
    header = read_header(written(tmp_path / "tiny.gguf", tensors=3))
    assert (header.architecture, header.parameters, header.blocks, header.width) == ("llama", 3 * 64, 2, 32)


def test_a_file_is_called_by_its_stem_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "tiny.gguf")
    monkeypatch.chdir(tmp_path)
    assert {resolve_model(name) for name in (str(path), "tiny.gguf", "./tiny.gguf")} == {resolve_model(path)}
    assert resolve_model(path).display_name == "tiny"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: path.write_bytes(b"not a model"), "is not a GGUF file"),
        (lambda path: path.write_bytes(written(path).read_bytes()[:60]), "ends early or is damaged"),
        (lambda path: path.write_bytes(written(path).read_bytes()[:-40]), "ends early or is damaged"),
        (lambda path: written(path, tensors=0), "holds a vocabulary but no weights"),
        (lambda path: written(path, architecture="unheard-of"), "could not be loaded|cannot read from GGUF"),
    ],
    ids=["other", "header", "weights", "vocabulary", "architecture"],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(content, message: str, tmp_path: Path, emergence) -> None:
    path = tmp_path / "broken.gguf"
    content(path)
    with pytest.raises(InputError, match=message):
        load_model(path)
    done = emergence("measure", path, "--corpus", "python-docs", "--out", tmp_path / "rows.parquet")
    assert done.code == 2
    assert [line for line in done.err.splitlines() if line.strip()][-1].startswith("Error: ")
    assert [file.name for file in tmp_path.iterdir()] == ["broken.gguf"]  # nothing is written


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "tiny.gguf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'emergence-proxy\[gguf\]'"):
        load_model(path)


@real
@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "parameters", "blocks"),
    [("SmolLM2-135M-Instruct.gguf", 134_515_008, 30), ("gemma-3-270m.gguf", 268_098_176, 18)],
)
def test_real_models_load_and_have_twins(file: str, parameters: int, blocks: int) -> None:
    path = REAL / file
    model = load_model(path, device="cpu")
    assert (model.name, model.parameters, len(model.blocks)) == (path.stem, parameters, blocks)
    assert model.revision == hashlib.sha256(path.read_bytes()).hexdigest()
    ids = model.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    likely = model.model(input_ids=ids).logits[0, -1].topk(5).indices
    assert "Paris" in {model.tokenizer.decode(token).strip() for token in likely}
    assert random_twin(model).parameters == parameters


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


HUGE = 2**60
ARCHITECTURE = _text(b"general.architecture")
CLAIMS = {
    "tensors": struct.pack("<QQ", HUGE, 0),
    "keys": struct.pack("<QQ", 1, HUGE),
    "the length of a name": struct.pack("<QQQ", 1, 1, HUGE),
    "numbers in an array": struct.pack("<QQ", 1, 1) + ARCHITECTURE + struct.pack("<IIQ", 9, 4, HUGE),
    "texts in an array": struct.pack("<QQ", 1, 1) + ARCHITECTURE + struct.pack("<IIQ", 9, 8, HUGE),
    "numbers of an array, fewer": struct.pack("<QQ", 1, 1) + ARCHITECTURE + struct.pack("<IIQ", 9, 4, 10**7),
    "arrays in arrays": struct.pack("<QQ", 1, 1)
    + ARCHITECTURE
    + struct.pack("<I", 9)
    + struct.pack("<IQ", 9, 1) * 5000,
    "sides of a tensor": struct.pack("<QQ", 1, 0) + _text(b"a") + struct.pack("<I", 2**31),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_header_that_claims_more_than_the_file_holds_is_refused_at_once(what: str, tmp_path: Path) -> None:
    """The library would look for an array of 2**60 numbers without end."""
    path = tmp_path / "huge.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + CLAIMS[what])
    with pytest.raises(InputError, match="ends early or is damaged"):
        read_header(path)
