"""pytest plugin: take the C module at $PMM_NATIVE_MODULE in place of the installed one (tests/csrc builds one with sanitizers)."""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "pyminuteman.ipvs._native"

assert NAME not in sys.modules, "loaded before this plugin"
if path := os.environ.get("PMM_NATIVE_MODULE"):
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
