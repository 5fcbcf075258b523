"""What the four packages export: each shows an example, which the tests run, and takes few arguments."""

import doctest
import importlib
import inspect

import pytest

PACKAGES = ("estimators", "extraction", "proxy", "tracking")
MOST = 8  # parameters; what belongs together is one frozen object
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]
NO_EXAMPLE: dict[str, str] = {}  # public names without an example, and why
LONGER = {
    "proxy.measure": "its groups are already objects: propagation, budget and listeners",
}


def public(package: str, name: str) -> object:
    return getattr(importlib.import_module(package), name)


CALLABLE = [(package, name) for package, name in NAMES if callable(public(package, name))]


@pytest.mark.parametrize(("package", "name"), CALLABLE)
def test_every_public_name_has_an_example(package: str, name: str) -> None:
    found = doctest.DocTestFinder(recurse=False).find(public(package, name), f"{package}.{name}", globs={})
    assert sum(len(one.examples) for one in found) > 0 or f"{package}.{name}" in NO_EXAMPLE


def parameters(of: object) -> int:
    return len(inspect.signature(of).parameters)  # type: ignore[arg-type]


FUNCTIONS = [(package, name) for package, name in CALLABLE if inspect.isfunction(public(package, name))]


@pytest.mark.parametrize(("package", "name"), FUNCTIONS)
def test_public_functions_take_few_parameters(package: str, name: str) -> None:
    assert parameters(public(package, name)) <= MOST or f"{package}.{name}" in LONGER


def test_exceptions_are_needed() -> None:
    assert set(NO_EXAMPLE) <= {f"{package}.{name}" for package, name in CALLABLE}
    for name in LONGER:
        assert parameters(public(*name.split("."))) > MOST, f"{name} is an exception no more"
