"""The import rules: data flows one way, and what needs only contracts loads no torch."""

import ast
import importlib
import subprocess
import sys
import tomllib
import types
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("estimators", "extraction", "proxy", "tracking")
CONTRACTS = {
    "estimators.base",
    *(f"estimators.contracts.{path.stem}" for path in (ROOT / "estimators" / "contracts").glob("[!_]*.py")),
}


# Which rooms of its own package a room may import; what it may import of others says `test_packages_...` below.
# A room is a folder, or a file that lies in a package itself. A package's __init__ names them all and is none.
ROOMS: dict[str, set[str]] = {
    "estimators.base": set(),
    "estimators.contracts": {"estimators.base"},
    "estimators": {"estimators.base", "estimators.contracts"},
    "extraction.reading": set(),
    "extraction.tables": {"extraction.reading"},
    "extraction.reference_models": set(),
    "extraction.versions": set(),
    "extraction.models": {"extraction.reference_models", "extraction.tables", "extraction.versions"},
    "extraction.corpora": {
        "extraction.models",
        "extraction.reading",
        "extraction.tables",
        "extraction.versions",
    },
    "extraction.states": {"extraction.models", "extraction.corpora", "extraction.tables"},
    "extraction.answers": {"extraction.models", "extraction.corpora", "extraction.reading", "extraction.tables"},
    "proxy.schemas": set(),
    "proxy.measurement": {"proxy.schemas"},
    "proxy.features": {"proxy.schemas", "proxy.measurement"},
    "proxy.regression": {"proxy.schemas", "proxy.measurement"},
    "proxy.sweeps.store": {"proxy.schemas", "proxy.measurement"},
    "proxy.sweeps": {"proxy.schemas", "proxy.measurement", "proxy.sweeps.store"},
    "proxy.cli": {
        "proxy.schemas",
        "proxy.measurement",
        "proxy.features",
        "proxy.regression",
        "proxy.sweeps",
        "proxy.sweeps.store",
    },
    "tracking.results": {"tracking.summary"},
    "tracking.summary": set(),
    "tracking.pairing": set(),
    "tracking.comparison": {
        "tracking.results",
        "tracking.summary",
        "tracking.pairing",
        "tracking.mlflow",
        "tracking.reports",
    },
    "tracking.reports": {"tracking.results", "tracking.summary"},
    "tracking.mlflow": {"tracking.results", "tracking.summary", "tracking.reports"},
    "ray_configs": set(),
}


def _modules() -> dict[str, Path]:
    """Return every module of the packages by its dotted name."""
    found = {}
    for package in (*PACKAGES, "ray_configs"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _arrows() -> dict[str, set[str]]:
    """Return which modules each one imports: also inside functions, and for the eyes of the type checker alone."""
    modules = _modules()
    arrows: dict[str, set[str]] = {}
    for name, path in modules.items():
        named: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                # a name is a module, or lives in the one that it is imported from
                inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
                named |= {dotted if dotted in modules else node.module for dotted in inner.values()}
        arrows[name] = (named & modules.keys()) - {name}
    return arrows


def _room(module: str) -> str:
    """Return the room of a module: the longest name in `ROOMS` that it starts with, "" for a package's __init__."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default="")


def test_every_folder_of_modules_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in _modules().values()}
    assert sorted(folders) == sorted(listed)


def test_no_circle_of_modules() -> None:
    try:
        TopologicalSorter(_arrows()).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_every_module_is_in_a_room() -> None:
    homeless = [module for module in _modules() if not _room(module) and module not in PACKAGES]
    assert not homeless


def test_rooms_import_only_what_their_row_allows() -> None:
    bad = []
    for module, named in _arrows().items():
        room = _room(module)
        for other in named:
            same_package = module.split(".")[0] == other.split(".")[0]
            if room and same_package and _room(other) not in {room, *ROOMS[room]}:
                bad.append(f"{module} imports {other}, but {room} may import {sorted(ROOMS[room]) or 'no other room'}")
    assert not bad


def test_the_rooms_have_no_circle() -> None:
    TopologicalSorter(ROOMS).prepare()


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
        "extraction": CONTRACTS,
        "tracking": CONTRACTS,
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


def test_estimators_need_only_torch_and_numpy_and_contracts_only_tables() -> None:
    bad = []
    for path, module in _imports("estimators"):
        needed = {"numpy", "pandas", "pyarrow"} if path.parent.name == "contracts" else {"torch", "numpy"}
        if module.split(".")[0] not in {*needed, "estimators", *sys.stdlib_module_names}:
            bad.append(f"{path.name}: {module}")
    assert not bad


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("estimators", "torch numpy pandas ray mlflow openai transformers"),
        ("estimators.base", "torch numpy pandas ray mlflow openai transformers"),
        ("tracking", "torch ray openai transformers"),
        ("proxy.cli", "torch ray mlflow openai transformers pandas sklearn matplotlib"),
    ],
)
def test_import_stays_light(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({heavy.split()}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == ""
