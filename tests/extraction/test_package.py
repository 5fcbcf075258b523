"""The public names of the package."""

import subprocess
import sys
import types

import pytest

import extraction


@pytest.mark.parametrize("name", extraction.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert not isinstance(getattr(extraction, name), types.ModuleType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = extraction.nonsense


def test_importing_loads_neither_transformers_nor_openai() -> None:
    code = "import extraction, sys; print(*{'openai', 'transformers', 'ray', 'mlflow'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
