"""The import rules: data flows one way, and `import estimators` stays light."""

import ast
import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("estimators", "extraction", "proxy", "tracking")


def _imports(package: str) -> list[tuple[Path, str]]:
    found = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found += [(path, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.append((path, node.module))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_upstream(package: str) -> None:
    others = {
        "estimators": set(),
        "extraction": {"estimators.base"},
        "tracking": {"estimators.base"},
        "proxy": {"estimators", "extraction", "tracking", "ray_configs"},
    }[package]
    bad = []
    for path, module in _imports(package):
        top = module.split(".")[0]
        ours = top in {*PACKAGES, "ray_configs", "tests", "benchmarks"}
        if ours and top != package and module not in others and top not in others:
            bad.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not bad


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_listed_in_one_place_and_say_what_they_are(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        value = getattr(module, name)
        assert not isinstance(value, types.ModuleType), f"{package}.{name} is the module of that name"
        if callable(value):
            assert value.__doc__, f"{package}.{name} says nothing"


def test_estimators_need_only_torch_and_numpy() -> None:
    allowed = {"torch", "numpy", "estimators", *sys.stdlib_module_names}
    bad = [f"{path.name}: {module}" for path, module in _imports("estimators") if module.split(".")[0] not in allowed]
    assert not bad


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("estimators", "ray mlflow openai transformers"),
        ("proxy.cli", "torch ray mlflow openai transformers pandas sklearn matplotlib"),
    ],
)
def test_import_stays_light(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({heavy.split()}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""
