"""The page on security names tests that exist, at least 150 attacks, and 20 kinds of faults."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<tried>.+) \| (?P<ends>.+) \| `(?P<file>tests/[\w/]+\.py)::(?P<test>\w+)` \|$", re.MULTILINE)

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_attack_on_the_page_is_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    kinds, _, tables = page.partition("## What was tried")
    rows = [*ROW.finditer(tables)]
    assert len(rows) >= 150
    assert f"({len(rows)} attacks" in page
    assert tables.count("\n| ") == len(rows) + 2 * tables.count("\n### ")
    for heading, count in re.findall(r"^### (.+) \((\d+)\)$", tables, re.MULTILINE):
        section = tables.partition(f"### {heading} ")[2].partition("\n### ")[0]
        assert len(ROW.findall(section)) == int(count), heading
    assert len(re.findall(rf"^\| .+ \| .+ \| \d+ \| {TEST.pattern}", kinds, re.MULTILINE)) == 20
    tests: dict[str, set[str]] = {}
    for path, test in TEST.findall(page):
        if path not in tests:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            tests[path] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in tests[path], f"{path} has no {test}"
    tried = [row["tried"] for row in rows]
    assert len({*tried}) >= 150
