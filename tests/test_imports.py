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

from docs.architecture_picture import PACKAGES, PICTURE, arrows, code_map, modules, picture, room_arrows, room_of

ROOT = Path(__file__).parents[1]
CONTRACTS = {
    "estimators.base",
    *(f"estimators.contracts.{path.stem}" for path in (ROOT / "estimators" / "contracts").glob("[!_]*.py")),
}


ROOMS = code_map()  # by docs/architecture.md: which rooms of its own package a room may import


def test_every_folder_of_modules_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in modules().values()}
    assert sorted(folders) == sorted(listed)


def test_no_circle_of_modules() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_the_code_map_has_every_module_and_no_room_that_is_not_there() -> None:
    every = modules()
    assert [name for name in every if not room_of(name, ROOMS) and name not in {*PACKAGES, "ray_configs"}] == []
    assert [room for room in ROOMS if room not in every] == []
    assert [(room, other) for room, allowed in ROOMS.items() for other in allowed if other not in ROOMS] == []


def test_rooms_import_only_what_their_row_of_the_code_map_allows() -> None:
    bad = []
    for room, named in room_arrows(ROOMS).items():
        own = {other for other in named if other.split(".")[0] == room.split(".")[0]}
        bad += [f"{room} imports {other}, which its row of docs/architecture.md lacks" for other in own - ROOMS[room]]
    assert not bad


def test_the_rooms_have_no_circle() -> None:
    TopologicalSorter(ROOMS).prepare()


def test_the_picture_of_the_rooms_is_current() -> None:
    assert PICTURE.read_text(encoding="utf-8") == picture(), "run `python docs/architecture_picture.py`"


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
def test_no_file_has_the_name_of_what_its_package_exports(package: str) -> None:
    files = {name.rpartition(".")[2] for name in modules() if name.startswith(f"{package}.")}
    commands = {name.rpartition(".")[2] for name in modules() if name.startswith("proxy.cli.")}
    assert (files - commands) & set(importlib.import_module(package).__all__) == set()


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
