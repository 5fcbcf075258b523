"""A sweep config: what it takes, and how it says what is wrong."""

import inspect
import re
from pathlib import Path

import pytest

from estimators.base import InputError
from proxy.sweeps.config import (
    Corpus,
    Measurement,
    Model,
    Resources,
    SweepConfig,
    Tracking,
    find_config,
    load_config,
    parse_config,
    shipped_sweeps,
)
from proxy.sweeps.strict import Strict

SMALL = {"name": "small", "models": ["gpt2-30k"], "corpora": ["animal"]}


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_bare_strings_stand_for_models_and_corpora() -> None:
    config = parse_config(SMALL)
    assert config.models == (Model(id="gpt2-30k"),)
    assert config.corpora == (Corpus(source="animal"),)


def test_a_config_is_frozen() -> None:
    config = parse_config(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]


def test_the_file_name_is_the_name_unless_one_is_given(tmp_path: Path) -> None:
    path = written(tmp_path, "models: [gpt2-30k]\ncorpora: [animal]\n")
    assert load_config(path).name == "mine"
    path.write_text("name: other\nmodels: [gpt2-30k]\ncorpora: [animal]\n")
    assert load_config(path).name == "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": []}, r"unknown key 'modles'; did you mean 'models'\?"),
        ({"zzz": 1}, "unknown key 'zzz'; known are name, description"),
        ({"models": [{"id": "a", "dtyp": "x"}]}, r"models\[0\]: unknown key 'dtyp'; did you mean 'dtype'\?"),
        ({"models": [{"id": "a", "dtype": "fp8"}]}, r"models\[0\].dtype: .*'bfloat16'.* got 'fp8'"),
        ({"models": []}, "models: .* at least 1"),
        ({"controls": ["random-weights"]}, "controls: this is true or false now: with true one job measures"),
        ({"corpora": [{"source": "animal", "windows": "many"}]}, r"corpora\[0\].windows: .* got 'many'"),
        ({"corpora": [{"source": "animal", "windows": 1}]}, r"corpora\[0\].windows: .* got 1"),
        ({"corpora": [7]}, r"corpora\[0\]: .* got 7"),
        ({"resources": {"gpus": 1.5}}, "more than one GPU comes in whole numbers, got 1.5"),
        ({"measurement": {"resolutions": [0.1, -1]}}, r"measurement.resolutions\[1\]: .* got -1"),
        ({"name": "../up"}, "a name is made of letters"),
        ({"seed": -1}, "seed: .* got -1"),
    ],
)
def test_a_wrong_config_says_where_and_what(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config({**SMALL, **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InputError, match="the key 'corpora' is missing"):
        parse_config({"name": "small", "models": ["a"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [a]\nmodels: [b]\n", "line 2: the key 'models' is given twice"),
        ("models: [a\n", "line 2: .*"),
        ("- a\n- b\n", "should hold 'models:' and 'corpora:', got a list"),
        ("", "got nothing"),
    ],
)
def test_a_file_that_is_no_mapping_says_so(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(written(tmp_path, text))


def test_shipped_sweeps_go_by_bare_name() -> None:
    assert find_config("demo") == shipped_sweeps()["demo"]
    assert find_config("ray_configs/sweeps/demo.yaml").name == "demo.yaml"


def test_an_unknown_config_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"No sweep config at dmo; .*did you mean demo\?"):
        find_config("dmo")


def test_a_config_survives_json() -> None:
    config = parse_config({**SMALL, "controls": True, "tracking": {"uri": "sqlite:///x.db"}})
    assert SweepConfig.model_validate_json(config.model_dump_json()) == config


def documented(section: type[Strict]) -> dict[str, str]:
    """The table rows that the manual should have for a section: its keys in order, defaults and descriptions."""
    attributes = inspect.getdoc(section).split("Attributes:\n")[1]  # type: ignore[union-attr]
    described = {
        key: " ".join(text.split())
        for key, text in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    }
    assert list(described) == list(section.model_fields)
    rows = {}
    for key, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True)
        nothing = default in (None, (), "", {}) or isinstance(default, Strict)
        shown = "required" if field.is_required() else "" if nothing else f"`{str(default).lower()}`"
        rows[key] = f"| `{key}` | {shown} | {described[key]} |"
    return rows


@pytest.mark.parametrize("section", [SweepConfig, Model, Corpus, Measurement, Resources, Tracking])
def test_the_manual_lists_every_key_with_its_default(section: type[Strict]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "sweep.md").read_text(encoding="utf-8")
    assert "\n".join(documented(section).values()) + "\n\n" in page + "\n"
