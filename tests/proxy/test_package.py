"""The package's public names are what they say, whatever was imported before."""

import importlib
import subprocess
import sys

import pytest

import proxy


@pytest.mark.parametrize("name", proxy.__all__)
def test_a_public_name_is_that_of_its_module(name):
    assert getattr(proxy, name) is getattr(importlib.import_module(f"proxy.{proxy._HOMES[name]}"), name)


def test_the_package_itself_loads_nothing_heavy():
    code = "import sys, proxy; sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
