"""Makes the slow references importable by name."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def reference():
    """The module attention_reference.py."""
    path = pathlib.Path(__file__).parent / "attention_reference.py"
    spec = importlib.util.spec_from_file_location("attention_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
