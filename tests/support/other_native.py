"""pytest plugin: take the C modules below $PMM_NATIVE_MODULES in place of the installed ones (tests/csrc builds some with sanitizers)."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

for package in ("ipvs", "host"):
    name = f"pyminuteman.{package}._native"
    assert name not in sys.modules, "loaded before this plugin"
    if place := os.environ.get("PMM_NATIVE_MODULES"):
        (path,) = Path(place).glob(f"pyminuteman/{package}/_native*.so")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
