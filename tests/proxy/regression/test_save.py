import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io

from estimators.base import InputError
from estimators.contracts.seals import sealed
from proxy import Proxy, ProxyRegressor, load_proxy
from proxy.regression.candidates import CANDIDATES
from proxy.regression.intervals import Intervals
from proxy.regression.load import TRUSTED
from proxy.regression.references import SIZE
from proxy.regression.save import PACKAGES


@pytest.fixture(scope="module")
def saved(fitted: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "proxy"
    fitted.save(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "proxy"))


def test_a_loaded_proxy_is_the_saved_one(saved: Path, fitted: Proxy) -> None:
    again = load_proxy(saved)
    pd.testing.assert_frame_equal(again.predict(fitted.references), fitted.predict(fitted.references))
    pd.testing.assert_frame_equal(again.explain(fitted.references), fitted.explain(fitted.references))
    pd.testing.assert_frame_equal(again.validation, fitted.validation)
    pd.testing.assert_frame_equal(again.scores, fitted.scores)
    pd.testing.assert_frame_equal(again.coverage, fitted.coverage)
    for name in ("target", "mode", "features", "level", "bounds", "unit", "remarks", "chosen"):
        assert getattr(again, name) == getattr(fitted, name), name


@pytest.mark.parametrize("candidate", [*CANDIDATES])
def test_every_candidate_predicts_the_same_after_loading(candidate: str) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(10, 3)), columns=["small.a", "small.b", SIZE])
    X = X.assign(model=[f"m{i}" for i in range(10)], family=list("aabbccddee"))
    y = 0.5 + 0.1 * X["small.a"].to_numpy()
    regressor = ProxyRegressor(candidate, (0.0, 1.0), "model", "family", SIZE)
    intervals = Intervals.fit(regressor, X, y, np.ones(10), X["model"].to_numpy(dtype=str))
    regressor, without = skops.io.loads(skops.io.dumps([intervals.regressor, list(intervals.without)]), trusted=TRUSTED)
    stored = replace(intervals, regressor=regressor, without=tuple(without))
    for again, before in zip(stored.predict(X), intervals.predict(X), strict=True):
        np.testing.assert_array_equal(again, before)


def test_nothing_is_overwritten(folder: Path) -> None:
    before = (folder / "proxy.json").read_bytes()
    with pytest.raises(InputError, match="is not empty"):
        load_proxy(folder).save(folder)
    assert (folder / "proxy.json").read_bytes() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["proxy"]


def test_a_changed_file_is_not_loaded(folder: Path) -> None:
    path = folder / "model.skops"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match="was changed"):
        load_proxy(folder)


def test_foreign_types_are_not_loaded(folder: Path) -> None:
    class Foreign:
        pass

    skops.io.dump({"regressor": Foreign()}, folder / "model.skops")
    description = json.loads((folder / "proxy.json").read_text())
    description["sha256"]["model.skops"] = hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest()
    (folder / "proxy.json").write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match="was not loaded"):
        load_proxy(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"versions": dict.fromkeys(PACKAGES, "0.1.0")}, "scikit-learn 0.1.0"),
        ({"versions": {}}, "lacks versions"),
        ({"versions": []}, "lacks versions"),
        ({"sha256": {}}, "lacks versions or hashes"),
        ({"sha256": None}, "lacks versions or hashes"),
        ({"bounds": 3}, "holds no proxy"),
        ({"bounds": [0, 1, 2]}, "holds no proxy"),
        ({"unit": "nobody"}, "holds no proxy"),
        ({"unit": []}, "holds no proxy"),
        ({"features": None}, "holds no proxy"),
        ({"scores": 1}, "holds no proxy"),
        ({"references_hash": "0"}, "not the table"),
    ],
)
def test_schema_versions_and_table_are_checked(folder: Path, change: dict[str, object], message: str) -> None:
    description = json.loads((folder / "proxy.json").read_text()) | change
    (folder / "proxy.json").write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match=message):
        load_proxy(folder)


def test_an_empty_folder_is_no_proxy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no proxy.json"):
        load_proxy(tmp_path)


def test_no_changed_value_of_the_description_is_believed(folder: Path) -> None:
    path = folder / "proxy.json"
    text = path.read_text()
    for old, new in (
        ('"level": 0.9', '"level": 0.8'),
        ('"seed": 0', '"seed": 1'),
        ('"useful": true', '"useful": false'),
    ):
        if old in text:
            path.write_text(text.replace(old, new, 1))
            with pytest.raises(InputError, match=r"proxy.json was changed after the proxy was saved"):
                load_proxy(folder)
    path.write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "record_sha256"}))
    with pytest.raises(InputError, match="written by an earlier version, without a hash; fit it again"):
        load_proxy(folder)


@pytest.mark.parametrize("text", ["[1]", "3", "null", "{", "[" * 100_000, "1" * 10_000, "\x00"])
def test_a_description_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "proxy.json").write_text(text)
    with pytest.raises(InputError, match=r"proxy.json"):
        load_proxy(folder)


@pytest.mark.parametrize(
    "schema",
    [
        "[" * 50_000,
        '{"__class__": "dict"}',
        '{"__class__": 3, "__module__": [], "__loader__": "DictNode", "content": 1}',
        '{"__class__": "x", "__module__": "os", "__loader__": "TypeNode", "__id__": 1, "protocol": 2}',
        "3",
    ],
)
def test_a_stored_model_of_odd_form_is_refused(folder: Path, schema: str) -> None:
    with zipfile.ZipFile(folder / "model.skops", "w") as archive:
        archive.writestr("schema.json", schema)
    _seal(folder)
    with pytest.raises(InputError, match="was not loaded"):
        load_proxy(folder)


def test_a_stored_model_that_unpacks_without_end_is_refused(folder: Path) -> None:
    with (
        zipfile.ZipFile(folder / "model.skops", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("schema.json", "w", force_zip64=True) as file,
    ):
        for _ in range(1100):
            file.write(bytes(2**20))
    _seal(folder)
    with pytest.raises(InputError, match=r"would take 1\.1 GiB in memory"):
        load_proxy(folder)


def _seal(folder: Path) -> None:
    description = json.loads((folder / "proxy.json").read_text())
    description["sha256"]["model.skops"] = hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest()
    (folder / "proxy.json").write_text(json.dumps(sealed(description)))
