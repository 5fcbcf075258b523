"""A synthetic bank whose law is known: emergence falls with the cost of the next token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proxy.features.output import SAMPLES, needed_readings

BLOCKS, TOKENS, WINDOWS = 3, 8, 400


def measurements(
    names: list[str], *, corpus: str = "python-docs", seed: int = 0, asked: str = "weights", noise: float = 0.02
) -> pd.DataFrame:
    """Blocks and output of models `FAMILY-NUMBER[@STAGE]`: E = 3 - cost, cost from 2.6 down to 1.2 by number."""
    rng = np.random.default_rng(0)
    rows = []
    for name in names:
        family, _, rest = name.partition("-")
        number, _, stage = rest.partition("@")
        cost = 2.6 - 0.15 * int(number) + (0.2 if stage else 0.0) + rng.normal() * noise
        common = {
            "model": name, "family": family, "parameters": round(10 ** (4.5 + 0.25 * int(number))), "corpus": corpus,
            "position": TOKENS, "seed": seed, "windows": WINDOWS, "asked": asked, "flags": "", "bytes_per_token": 2.0,
            "ie_std_error": 0.05, "macro_std_error": 0.05, "micro_std_error": 0.05,
        }  # fmt: skip
        for layer in range(BLOCKS):
            e = (3.0 - cost) * (layer + 1) / BLOCKS + rng.normal() * noise
            rows.append({**common, "layer": layer, "estimator": "predictive", "ie_bits": e, "macro_bits": e + 0.5,
                         "micro_bits": 0.5})  # fmt: skip
        for shown in (20, SAMPLES):
            for reading in needed_readings(shown):
                rows.append(
                    {
                        **common, "layer": -1, "estimator": reading, "macro_ceiling_bits": 8.0,
                        "micro_ceiling_bits": 8.0, "macro_bits": 8.0 - 2 * cost, "micro_bits": 8.0 - 2 * cost - 1.5,
                        "ie_bits": (3.0 - cost) - 0.2 + rng.normal() * noise,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows).assign(resolution=pd.array([pd.NA] * len(rows), dtype="Float64"))


NAMES = [f"one-{i}" for i in range(6)] + [f"two-{i}" for i in range(6)] + ["one-1@25", "two-2@25"]


@pytest.fixture(scope="session")
def table() -> Callable[..., pd.DataFrame]:
    return measurements


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bank of fourteen models of twelve runs."""
    from proxy.banks.building import build_bank

    folder = tmp_path_factory.mktemp("banks")
    measurements(NAMES).to_parquet(folder / "measured.parquet")
    build_bank([folder / "measured.parquet"], folder / "bank", name="made", licence="CC0-1.0", provenance="a test")
    return folder / "bank"
