"""Every block of the manual does what the page says: Python runs, commands run, sweeps are valid, files are there.

A comment before a block says what it needs that a test does not have (`<!-- needs: hub -->`; its commands are then only
parsed by the real command line), or with which words it fails (`<!-- fails: unknown key -->`).
"""

import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
SLOW = {"docs/guides/closed-model.md", "docs/guides/compare.md", "docs/guides/sweep.md"}
SHELL = {"git", "make", "source", "export", "ray", "printf"}  # other programs that a page may name
RUN = {"printf"}  # of those, harmless ones that later blocks need
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>needs: \w+|fails: [^\n]+) -->\n)?"
    r"^```(?P<kind>\w+)(?: title=\"(?P<title>[\w.-]+)\")?\n(?P<text>.*?)^```$",
    re.M | re.S,
)
# The closed model's page in small: few prompts and windows, and a bundled model behind a real server of its own.
SMALLER = {
    "--prompts demo": "--prompts few.txt",
    "--corpus python-docs": "--corpus python-docs --windows 150",
    "gpt-4o-mini": "gemma-2m",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    text: str
    mark: str
    title: str

    @property
    def commands(self) -> list[str]:
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.split(" #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(found["kind"], found["text"], found["mark"] or "", found["title"] or "") for found in BLOCK.finditer(text)
    ]


def parsed(command: str) -> None:
    """Let the real command line parse `emergence ...` without running it; raises on an unknown command or option."""
    import typer

    from proxy.cli import app

    _, name, *arguments = shlex.split(command)
    typer.main.get_command(app).commands[name].make_context(name, arguments)


def run_shell(block: Block, emergence, small: bool) -> None:
    for command in block.commands:
        program = shlex.split(command)[0]
        if program == "emergence":
            parsed(command)
            if block.mark.startswith("needs") and not small:
                continue
            for usual, smaller in SMALLER.items() if small else ():
                command = command.replace(usual, smaller)
            done = emergence(*shlex.split(command)[1:])
            if block.mark.startswith("fails: "):
                assert (done.code, block.mark.removeprefix("fails: ") in done.err) == (2, True), (
                    f"{command}\n{done.err}"
                )
            else:
                assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
        elif program in RUN:
            subprocess.run(["bash", "-c", command], check=True)
        else:
            assert program in SHELL, command
            assert block.mark.startswith("needs"), f"{command}: say what it needs"


def run_page(page: str, emergence, *, small: bool = False) -> None:
    module = types.ModuleType("page")
    sys.modules["page"] = module  # where dataclasses look for the names of their annotations
    try:
        for number, block in enumerate(blocks(page)):
            if block.kind == "python":
                exec(compile(block.text, f"{page}, block {number}", "exec"), module.__dict__)  # noqa: S102
            elif block.kind == "bash":
                run_shell(block, emergence, small)
            elif block.kind == "yaml":
                from proxy.sweeps.config import parse_config

                assert block.title, "name the file"
                parse_config(yaml.safe_load(block.text), block.title)
                Path(block.title).write_text(block.text, encoding="utf-8")
            else:
                pytest.fail(f"{page}: a block of {block.kind} is tested by nothing")
    finally:
        del sys.modules["page"]


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page for page in PAGES if blocks(page)]
)
def test_every_block_of_the_page_runs(page, emergence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if page != "docs/guides/closed-model.md":
        run_page(page, emergence)
        return
    from extraction import prompts, reference_models
    from extraction.answers.serving import serve

    few = prompts("demo")["prompt"].iloc[[*range(10), *range(150, 154)]]
    Path("few.txt").write_text("\n".join(few), encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    with serve(reference_models.path("gemma-2m")) as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        run_page(page, emergence, small=True)


def test_the_pages_cover_every_use():
    named = {page.removeprefix("docs/") for page in PAGES}
    guides = {"closed-model", "sweep", "compare", "estimator", "corpus", "model-family", "cluster"}
    assert {"index.md", "start.md", "reading.md", "commands.md", *(f"guides/{name}.md" for name in guides)} <= named


def test_an_estimator_fits_in_thirty_lines():
    first = next(block for block in blocks("docs/guides/estimator.md") if block.kind == "python")
    assert len(first.text.splitlines()) < 30


@pytest.mark.parametrize("page", PAGES)
def test_files_a_page_names_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(
        r"(?<![\w/-])(?:benchmarks|docs|estimators|examples|extraction|proxy|ray_configs|tests)/[\w./-]*\w\b", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_a_page_names_exist(page):
    from proxy.cli import COMMANDS, GROUPS

    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^ *|^\$ )emergence ([a-z]+)\b", text, re.M)
    assert set(named) <= {*COMMANDS, *GROUPS}


@pytest.mark.parametrize("page", PAGES)
def test_lines_a_page_shows_without_running_them_would_run(page):
    """Benchmarks take too long, but a script has the options that a page gives it, and the Makefile its targets."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for script, line in re.findall(r"(?:`|^    |^)python (benchmarks/\w+\.py)([^`\n]*)", text, re.M):
        source = (ROOT / script).read_text(encoding="utf-8")
        options = re.findall(r"(?<=\s)--[a-z][a-z-]*", line.split(" #")[0])
        assert [option for option in options if f'"{option}"' not in source] == [], script
    for command in re.findall(r"^    (emergence [^\n]*)", text, re.M):
        parsed(command.split(" #")[0])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:`|^    |^)make ([a-z-]+)", text, re.M)) <= targets


def test_every_figure_of_a_page_is_there_and_every_figure_is_on_a_page():
    shown = {
        (ROOT / page).parent.joinpath(name).resolve()
        for page in PAGES
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+\.(?:png|svg))\)", (ROOT / page).read_text(encoding="utf-8"))
    }
    assert shown == {path.resolve() for path in (ROOT / "docs/images").rglob("*") if path.is_file()}


def test_help_in_the_manual_is_made_from_the_command_line(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from commands import MARK, on_page_markdown

    from proxy.cli import COMMANDS, GROUPS

    page = on_page_markdown((ROOT / "docs/commands.md").read_text(encoding="utf-8"))
    assert MARK not in page
    assert re.findall(r"^## `emergence (\w+)`$", page, re.M) == [*COMMANDS, *GROUPS]
    assert "`emergence bank build`" in page
    assert "`--base-url" in page
    assert on_page_markdown("another page") == "another page"
    sys.modules.pop("commands")


def test_the_citation_is_that_of_this_package():
    import tomllib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["title"], str(citation["version"])) == (project["name"], project["version"])
    assert citation["license"] == project["license"]


def test_the_picture_of_emergence_is_current():
    from docs.emergence_picture import PICTURE, picture

    assert PICTURE.read_text(encoding="utf-8") == picture(), "run `python docs/emergence_picture.py`"
