"""The page on security names tests that exist, and at least 150 attacks."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<tried>.+) \| (?P<ends>.+) \| `(?P<file>tests/[\w/]+\.py)::(?P<test>\w+)` \|$", re.MULTILINE)


def test_every_attack_on_the_page_is_a_test() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [*ROW.finditer(page)]
    assert len(rows) >= 150
    assert f"({len(rows)} attacks" in page
    tables = page.partition("## What was tried")[2]
    assert tables.count("\n| ") == len(rows) + 2 * tables.count("\n### ")
    tests: dict[str, set[str]] = {}
    for row in rows:
        path = row["file"]
        if path not in tests:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            tests[path] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert row["test"] in tests[path], f"{path} has no {row['test']}"
    tried = [row["tried"] for row in rows]
    assert len({*tried}) >= 150
