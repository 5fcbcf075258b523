"""The public names of the package."""

import subprocess
import sys

import pytest

import extraction


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = extraction.nonsense


def test_importing_loads_neither_transformers_nor_openai() -> None:
    code = "import extraction, sys; print(*{'openai', 'transformers', 'ray', 'mlflow'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
