"""A path may be a text in every public function and class."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from proxy import fit_proxy, load_proxy
from tests.tracking.conftest import make_references, make_rows
from tracking import report

ROOMS = ("estimators", "extraction", "proxy", "tracking")
SEAMS = {"Tracker"}  # called by the product alone


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isfunction(item):
                yield f"{room}.{name}", item
            elif inspect.isclass(item) and name not in SEAMS:
                for method, function in inspect.getmembers(
                    item, lambda m: inspect.isfunction(m) or inspect.ismethod(m)
                ):
                    own = inspect.isfunction(function) or inspect.ismethod(function)
                    if own and (method == "__init__" or not method.startswith("_")):
                        yield f"{room}.{name}.{method}", function


def test_no_public_function_takes_a_path_alone() -> None:
    names = []
    for name, function in public_functions():
        for parameter in inspect.signature(function).parameters.values():
            kinds = str(parameter.annotation).replace("PathLike", "")
            if "Path" in kinds and "str" not in kinds:
                names.append(f"{name}({parameter.name})")
    # what a model was loaded from is told by the loader, which takes a text
    assert set(names) <= {"extraction.LanguageModel.__init__(path)"}


def test_paths_as_texts_do_what_paths_do(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit_proxy(make_references(), target="emergence_bits", candidate="mean").save("q")
    assert load_proxy("q").target == "emergence_bits"
    assert report(make_rows("m", "animal", parameters=10, blocks=2), out="report.html").is_file()
