"""Synthetic reference models whose law is known, and llama.cpp's server."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

if TYPE_CHECKING:
    from proxy import Proxy


@pytest.fixture(scope="session")
def families() -> Callable[..., pd.DataFrame]:
    """Make reference tables: `bits` = 2 + 0.5 x ability + noise, features = loadings x ability + noise."""

    def make(count: int = 2, each: int = 5, *, features: int = 12, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        loadings = rng.normal(size=features)
        rows = []
        for family in range(count):
            shift = rng.normal() * 0.2
            for member in range(each):
                log_size = 4.5 + 2.5 * member / max(each - 1, 1)
                ability = log_size - 5.5 + shift
                values = loadings * ability + rng.normal(size=features) * 0.2
                rows.append(
                    {
                        "model": f"family{family}-{member}",
                        "family": f"family{family}",
                        "parameters": round(10**log_size),
                        **{f"behaviour.b{i}": value for i, value in enumerate(values)},
                        "bits": 2 + 0.5 * ability + rng.normal() * noise,
                    }
                )
        return pd.DataFrame(rows)

    return make


@pytest.fixture(scope="session")
def fitted(families: Callable[..., pd.DataFrame]) -> Proxy:
    """A proxy fitted on ten models of two families."""
    from proxy import fit_proxy

    return fit_proxy(families(features=6), target="bits")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], str]:
    """A name of a server that is not on this machine, as far as the command can see; and a cache folder of its own."""
    resolve = socket.getaddrinfo

    def resolved(host: str | bytes, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if host in ("models.example", b"models.example") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setenv("EMERGENCE_CACHE", str(tmp_path / "cache"))
    return lambda url: url.replace("127.0.0.1", "models.example")


@pytest.fixture(scope="session")
def llama_server() -> Iterator[Callable[..., str]]:
    """Serve a GGUF file or a bundled GPT-2 by llama.cpp in a process of its own; returns the base URL."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("llama.cpp's server comes with xllamacpp, which is not installed")
    script = Path(__file__).parents[2] / "benchmarks" / "llama_server.py"
    with ExitStack() as undo:
        running: dict[tuple[str, ...], str] = {}

        def serve(model: str | Path, *options: object) -> str:
            command = (sys.executable, str(script), str(model), *map(str, options))
            if command not in running:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                undo.enter_context(process)  # closes stdin, at which it ends, and waits
                address = process.stdout.readline().strip()
                assert address, "the server did not start"
                running[command] = f"{address}/v1"
            return running[command]

        yield serve
