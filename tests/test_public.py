"""What the four packages export: each shows an example, which the tests run, and takes few arguments."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

PACKAGES = ("estimators", "extraction", "proxy", "tracking")
MOST = 8  # parameters; what belongs together is one frozen object
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]
NO_EXAMPLE: dict[str, str] = {}  # public names without an example, and why
LONGER: dict[str, str] = {}  # functions of more parameters, and why


def public(package: str, name: str) -> object:
    return getattr(importlib.import_module(package), name)


CALLABLE = [(package, name) for package, name in NAMES if callable(public(package, name))]


@pytest.mark.parametrize(("package", "name"), CALLABLE)
def test_every_public_name_has_an_example(package: str, name: str) -> None:
    found = doctest.DocTestFinder(recurse=False).find(public(package, name), f"{package}.{name}", globs={})
    assert sum(len(one.examples) for one in found) > 0 or f"{package}.{name}" in NO_EXAMPLE


def shown_whole(cls: object) -> list[str]:
    """Fields that the repr of a dataclass writes out although they are pages of numbers."""
    generated = hasattr(cls.__repr__, "__wrapped__")  # else the class has its own
    kinds = r"(torch\.)?Tensor|(pd\.)?(DataFrame|Series)|Figure|Array|NDArray.*"
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) and generated else ()
    return [each.name for each in fields if each.repr and re.fullmatch(rf"({kinds})( \| None)?", str(each.type))]


@pytest.mark.parametrize(("package", "name"), CALLABLE)
def test_what_is_public_and_what_it_returns_is_shown_in_a_line(package: str, name: str) -> None:
    item = public(package, name)
    assert shown_whole(item) == []
    made = inspect.signature(item).return_annotation if inspect.isfunction(item) else None
    returned = getattr(inspect.getmodule(item), str(made), None)
    assert returned is None or shown_whole(returned) == []


def parameters(of: object) -> int:
    return len(inspect.signature(of).parameters)  # type: ignore[arg-type]


FUNCTIONS = [(package, name) for package, name in CALLABLE if inspect.isfunction(public(package, name))]


@pytest.mark.parametrize(("package", "name"), FUNCTIONS)
def test_public_functions_take_few_parameters(package: str, name: str) -> None:
    assert parameters(public(package, name)) <= MOST or f"{package}.{name}" in LONGER


def longer_functions(package: str) -> list[str]:
    """Functions of more than `MOST` parameters, commands of the command line aside: their options are flat."""
    found = []
    for path in Path(__file__).parent.parent.joinpath(package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                given = [one for one in given if one.arg not in ("self", "cls")]
                command = any("typer." in ast.unparse(one.annotation) for one in given if one.annotation is not None)
                if len(given) > MOST and not command and f"{package}.{node.name}" not in LONGER:
                    found.append(f"{path.name}: {node.name}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_within_take_few_parameters_too(package: str) -> None:
    assert longer_functions(package) == []


def test_exceptions_are_needed() -> None:
    assert set(NO_EXAMPLE) <= {f"{package}.{name}" for package, name in CALLABLE}
    for name in LONGER:
        assert parameters(public(*name.split("."))) > MOST, f"{name} is an exception no more"
