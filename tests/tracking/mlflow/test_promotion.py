"""A champion for a reason."""

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from proxy.regression.proxy import fit_proxy
from tracking import track_proxy

SERVED = Path(__file__).parents[3] / "proxy" / "regression" / "served.py"


@pytest.fixture
def register(fresh_sqlite, tmp_path: Path, reference_table):
    """Fit, save and register a proxy; return the store."""
    uri = fresh_sqlite(tmp_path)

    def fit(label: str, candidate: str, target: str = "emergence_bits", noise: float = 1.0) -> str:
        table = reference_table().rename(columns={"emergence_bits": target})
        rng = np.random.default_rng(0)
        for number in range(6):  # each tells a part: together they beat the best of them, so that ridge is of use
            name = f"behaviour.part{number}"
            table[name] = table[target] + rng.normal(scale=noise * table[target].std(), size=len(table))
        table = table.drop(columns=[c for c in table if c.startswith(("small.", "behaviour.")) and ".part" not in c])
        proxy = fit_proxy(table, target=target, candidate=candidate)
        proxy.save(tmp_path / label)
        example = proxy.references[list(proxy.features)].head(2)
        store = {"tracking_uri": uri, "register": "emergence", "anyway": True}  # the mean beats no baseline
        track_proxy(tmp_path / label, model_code=SERVED, input_example=example, **store)
        return uri

    return fit


def test_champion_only_for_less_error(register, emergence) -> None:
    uri = register("first", "mean")
    client = MlflowClient(uri)

    def champion() -> str:
        return str(client.get_model_version_by_alias("emergence", "champion").version)

    refused = emergence("promote", "emergence", "--tracking-uri", uri)
    assert refused.code == 2
    assert "Version 1 of emergence did no better than its best baseline" in refused.err
    done = emergence("promote", "emergence", "--anyway", "--tracking-uri", uri)
    assert done.code == 0
    assert "Version 1 of emergence is the champion now, the first one" in done.err
    assert "champion already" in emergence("promote", "emergence", "--tracking-uri", uri).err

    register("better", "ridge")
    done = emergence("promote", "emergence", "--tracking-uri", uri)
    assert done.code == 0, done.err
    assert "mae" in done.out
    assert champion() == "2"
    assert "(better)" in client.get_model_version("emergence", "2").tags["promoted"]

    worse = emergence("promote", "emergence", "--version", "1", "--tracking-uri", uri)
    assert worse.code == 2
    assert "Version 1 of emergence did no better than its best baseline" in worse.err
    assert champion() == "2"
    register("noisier", "ridge", noise=1.3)
    worse = emergence("promote", "emergence", "--tracking-uri", uri)
    assert worse.code == 2
    assert "Version 3 of emergence is not better than champion 2" in worse.err
    assert champion() == "2"
    assert emergence("promote", "emergence", "--version", "1", "--anyway", "--tracking-uri", uri).code == 0
    assert champion() == "1"

    register("other", "ridge", target="win_rate")
    refused = emergence("promote", "emergence", "--tracking-uri", uri)
    assert refused.code == 2
    assert "estimates win_rate, the champion emergence_bits" in refused.err
    assert "no version 9" in emergence("promote", "emergence", "--version", "9", "--tracking-uri", uri).err
    assert "No proxy nothing is registered" in emergence("promote", "nothing", "--tracking-uri", uri).err
