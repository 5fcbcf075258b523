"""Sweep configs that no one meant: one sentence each."""

from pathlib import Path

import pytest

from estimators.base import InputError
from proxy.sweeps.config import load_config

GOOD = "models: [gpt2-30k]\ncorpora: [color]\n"


@pytest.mark.parametrize(
    "text",
    [
        "[a, b]: 1\n" + GOOD,
        "? {a: 1}\n: 2\n" + GOOD,
        "[" * 5000,
        "{a: " * 5000,
        "- " * 5000 + "a",
        GOOD + "seed: " + "1" * 5000,
        GOOD + "seed: 1e400",
        GOOD + "seed: .nan",
        GOOD + "seed: -1",
        GOOD + "seed: 0x" + "f" * 5000,
        GOOD + "seed: 2026-13-45",
        GOOD + "retries: true",
        GOOD + "a: &x [*x]",
        GOOD + "models: 3",
        GOOD + "models: [null]",
        GOOD + "resources: {memory_gb: .inf}",
        GOOD + "resources: {memory_gb: 1.0e+308}",
        GOOD + "resources: {states_gb: 1.0e+308}",
        GOOD + "resources: {gpus: 1.0e+30}",
        GOOD + f"resources: {{cpus: {10**30}}}",
        GOOD + f"workers: {10**30}",
        GOOD + f"measurement: {{queries: {10**30}}}",
        f"models: [{{id: gpt2-30k, parameters: {10**30}}}]\ncorpora: [color]\n",
        f"models: [gpt2-30k]\ncorpora: [{{source: color, windows: {10**30}}}]\n",
        GOOD + "name: ../../outside",
        GOOD + "measurement: {options: {a: [1]}}",
        GOOD + "measurement: {resolutions: [nan]}",
        GOOD + "description: !!python/object/apply:os.system ['echo hacked']",
        GOOD + "description: !!python/name:os.system",
        GOOD + "<<: 3",
        "\t",
        "\x00",
        "\ud83d",
        "a: b: c",
        "%YAML 9.9\n---\n" + GOOD + "x: 1",
        "",
        "3",
        "null",
    ],
)
def test_an_odd_config_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_billion_laughs_are_not_laughed(tmp_path: Path) -> None:
    """Anchors are shared, not copied: the text grows tenfold with each level only when it is written out."""
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    (tmp_path / "laughs.yaml").write_text("a0: &a0 [lol]\n" + levels + GOOD)
    with pytest.raises(InputError, match="unknown key"):
        load_config(tmp_path / "laughs.yaml")


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_config(tmp_path / "a.yaml").models[0].id == "gpt2-30k"


def test_a_config_that_would_take_minutes_to_read_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(GOOD + "x: [" + "1, " * 700_000 + "1]\n")
    with pytest.raises(InputError, match="more than the 2,000,000 that such a file can have"):
        load_config(tmp_path / "long.yaml")
