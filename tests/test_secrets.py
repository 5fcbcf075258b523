"""Marked secrets in every place that takes one; afterwards nothing that a run leaves behind holds any of them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import fit_proxy
from tests.fuzz.test_no_traceback import _frame as reference_frame

# One mark per place, so that a leak says where it began.
IN_CONFIG = {"uri": "PWinURI", "token": "TOKENinURI", "storage": "PWinSTORAGE", "description": "KEYinTEXT"}
IN_ENVIRONMENT = {
    name: f"SECRETof{name.replace('_', '')}"
    for name in (
        "OPENAI_API_KEY",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_KEY",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "WANDB_API_KEY",
        "PGPASSWORD",
    )
}
IN_OPTIONS = ("PWinOPTION", "KEYinBASEURL", "USERinBASEURL", "PWinRESULTS")
MARKS = (*IN_CONFIG.values(), *IN_ENVIRONMENT.values(), *IN_OPTIONS)
CONFIG = f"""
name: secrets
description: see http://wiki/page?key={IN_CONFIG["description"]}
models: [gpt2-30k]
corpora: [{{source: color, windows: 50}}]
measurement: {{estimator: sample-propagation, queries: 40, resolutions: [0.18]}}
tracking: {{uri: "http://me:{IN_CONFIG["uri"]}@127.0.0.1:9/?token={IN_CONFIG["token"]}"}}
"""


def _run(folder: Path, *arguments: str) -> tuple[int, str]:
    code = "import sys; from proxy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **IN_ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "200"},
    )
    return done.returncode, done.stdout + done.stderr


def _leaks(text: bytes) -> Iterator[str]:
    yield from (mark for mark in MARKS if mark.encode() in text)


def _assert_clean(folder: Path, said: str, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert not [*_leaks(said.encode())], said
    found = {
        (str(path.relative_to(folder)), mark)
        for path in folder.rglob("*")
        if path.is_file() and path.name not in but
        for mark in _leaks(path.read_bytes())
    }
    assert not found


@pytest.mark.slow
def test_a_tracked_sweep_leaves_no_secret_behind(tmp_path: Path) -> None:
    (tmp_path / "secrets.yaml").write_text(CONFIG)
    code, said = _run(tmp_path, "sweep", "secrets.yaml", "--dry-run", "--results", "results")
    assert code == 0, said
    _assert_clean(tmp_path, said, {"secrets.yaml"})
    code, said = _run(tmp_path, "sweep", "secrets.yaml", "--results", "results")
    assert code == 1, said  # done, and not tracked: nobody answers there
    assert "http://***@127.0.0.1:9" in said
    code, more = _run(tmp_path, "track", "results", "--tracking-uri", "sqlite:///mlflow.db")
    assert code == 0, more
    code, report = _run(tmp_path, "report", "results", "--out", "report.html")
    assert code == 0, report
    assert {"results", "mlflow.db", "mlartifacts", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    _assert_clean(tmp_path, said + more + report, {"secrets.yaml"})


@pytest.mark.parametrize(
    "arguments",
    [
        ("track", "results", "--tracking-uri", "http://me:PWinOPTION@127.0.0.1:9"),
        ("track", "results", "--tracking-uri", "postgresql://me:a@PWinOPTION@127.0.0.1:9/db"),
        ("track", "results", "--tracking-uri", "mysql+pymysql://me:a/PWinOPTION@127.0.0.1:9/db"),
        ("track", "results", "--tracking-uri", "ftp://me:PWinOPTION@127.0.0.1:9"),
        ("compare", "a", "b", "--tracking-uri", "http://127.0.0.1:9/?token=PWinOPTION"),
        ("promote", "name", "--tracking-uri", "http://me:PWinOPTION@127.0.0.1:9"),
        ("ui", "--tracking-uri", "http://me:PWinOPTION@127.0.0.1:9", "--no-browser"),
        ("estimate", "models:/x/1", "a.parquet", "--tracking-uri", "http://me:PWinOPTION@127.0.0.1:9"),
        ("report", "s3://key:PWinRESULTS@127.0.0.1:9/x"),
        ("report", "nosuch://key:PWinRESULTS@127.0.0.1:9/x"),
        ("track", "http://me:PWinRESULTS@127.0.0.1:9/x", "--tracking-uri", "sqlite:///x.db"),
        ("sweep", "demo", "--dry-run", "--results", "nosuch://key:PWinRESULTS@127.0.0.1:9/x"),
        ("sweep", "http://me:PWinOPTION@127.0.0.1/a.yaml"),
        ("sweep", "demo", "--address", "ray://me:PWinOPTION@127.0.0.1:9"),
        ("measure", "http://me:PWinOPTION@127.0.0.1/model", "--corpus", "color"),
        ("measure", "gpt2-30k", "--corpus", "http://me:PWinOPTION@127.0.0.1/text.txt"),
        ("features", "http://me:PWinOPTION@127.0.0.1/a.json"),
        ("collect", "m", "--out", "a.csv", "--base-url", "http://127.0.0.1:9/v1?key=KEYinBASEURL"),
        ("collect", "m", "--out", "a.csv", "--base-url", "http://USERinBASEURL:PWinOPTION@127.0.0.1:9/v1"),
        ("collect", "m", "--out", "a.csv", "--base-url", "http://127.0.0.1:9/v1;key=KEYinBASEURL"),
        ("fit", "a.csv", "--target", "y", "--out", "http://127.0.0.1:9/x?token=PWinOPTION"),
        ("measure", "gpt2-30k", "--corpus", "color", "--out", "http://127.0.0.1:9/x?token=PWinOPTION.csv"),
        ("collect", "m", "--out", "a.csv", "--base-url", "ftp://127.0.0.1:9/v1?key=KEYinBASEURL"),
    ],
    ids=lambda arguments: " ".join(arguments[:1]),
)
def test_no_message_shows_a_secret_of_an_option(tmp_path: Path, arguments: tuple[str, ...], capfd, monkeypatch) -> None:
    from proxy.cli import main

    for name, secret in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setattr("proxy.sweeps.store.storage.PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr("sys.argv", ["emergence", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capfd.readouterr()
    # 2 where what was given cannot be used, 1 where it failed on the way; never without a sentence that says why.
    assert captured.err.splitlines()[-1].startswith({1: "Failed: ", 2: "Error: "}[stopped.value.code])
    _assert_clean(tmp_path, captured.out + captured.err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("http://me:PWinOPTION@127.0.0.1:9/x?token=PWinOPTION",),
        ("measure", "gpt2-30k", "--http://me:PWinOPTION@127.0.0.1:9"),
        ("collect", "m", "--out", "a.csv", "http://me:PWinOPTION@127.0.0.1:9"),
        ("bank", "http://me:PWinOPTION@127.0.0.1:9"),
    ],
    ids=lambda arguments: " ".join(arguments[:1]),
)
def test_a_typing_error_shows_no_secret(tmp_path: Path, arguments: tuple[str, ...], capfd, monkeypatch) -> None:
    from proxy.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["emergence", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    captured = capfd.readouterr()
    assert "127.0.0.1" in captured.err.replace("\n", "")
    _assert_clean(tmp_path, captured.out + captured.err)


def test_a_card_holds_no_secret_and_no_markup_of_names(tmp_path: Path) -> None:
    frame = reference_frame()
    frame["model"] = [f"http://me:PWinRESULTS@host/m{i}" for i in range(12)]
    frame["family"] = ["<script>alert(1)</script>", "a|b", "[x](javascript:alert(1))"] * 4
    fit_proxy(frame, target="bits").save(tmp_path / "proxy")
    card = (tmp_path / "proxy" / "card.md").read_text(encoding="utf-8")
    assert "PWinRESULTS" not in card
    assert not re.search(r"(?<!\\)<script", card)
    assert not re.search(r"(?<!\\)\]\(javascript", card)
