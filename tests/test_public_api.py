"""The public names: listed, re-exported from one place, typed, documented; and importing them is cheap."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pyminuteman
import pyminuteman.ipvs

PACKAGE = Path(pyminuteman.__file__).parent
DAILY = {
    "ConfigurationError",
    "Destination",
    "DrainPolicy",
    "ForwardingMethod",
    "IPVSTable",
    "MinutemanError",
    "Persistence",
    "Scope",
    "Service",
    "ServiceFlags",
    "ServiceKey",
    "Tunnel",
    "TunnelFlags",
    "TunnelType",
}


def reexported(module: ModuleType) -> set[str]:
    """Names imported in the form ``X as X``: what type checkers take for public."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    return {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }


def modules() -> list[ModuleType]:
    """Every shipped module below ``pyminuteman.ipvs``, and the top ones."""
    skipped = {"pyminuteman.ipvs._ffi_build", "pyminuteman.ipvs._native"}
    names = [info.name for info in pkgutil.walk_packages(pyminuteman.ipvs.__path__, "pyminuteman.ipvs.")]
    return [
        importlib.import_module(name) for name in ["pyminuteman.addresses", "pyminuteman.errors", *names] if name not in skipped
    ]


def test_the_daily_names_are_these() -> None:
    assert reexported(pyminuteman) == DAILY


def test_the_daily_names_are_those_of_the_layers() -> None:
    for name in DAILY - {"MinutemanError", "ConfigurationError"}:
        assert getattr(pyminuteman, name) is getattr(pyminuteman.ipvs, name)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_every_listed_name_exists_and_is_documented(module: ModuleType) -> None:
    assert module.__doc__
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module.__name__}.{name} has no docstring"


def test_the_names_of_ipvs_come_from_lists_of_its_modules() -> None:
    listed = {name for module in modules() if module.__name__.startswith("pyminuteman.ipvs.") for name in module.__all__}
    assert reexported(pyminuteman.ipvs) <= listed


def test_errors_are_all_of_one_family() -> None:
    errors = importlib.import_module("pyminuteman.ipvs.errors")
    for name in errors.__all__:
        value = getattr(errors, name)
        if inspect.isclass(value):
            assert issubclass(value, pyminuteman.MinutemanError)
    assert issubclass(errors.KernelError, OSError)
    assert issubclass(errors.InvalidServiceError, ValueError)
    assert issubclass(errors.InvalidDestinationError, ValueError)


def test_importing_loads_neither_the_c_module_nor_anything_that_is_not_needed() -> None:
    script = (
        "import sys; before = set(sys.modules); import pyminuteman, pyminuteman.ipvs; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} & "
        "{'cffi', '_cffi_backend', 'trio', 'msgpack', 'cryptography', 'click', 'rich', 'ipaddress'})); "
        "print('pyminuteman.ipvs._native' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == "\nFalse\n"


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_one_module_alone_imports_the_c_module() -> None:
    importers = [path.name for path in PACKAGE.rglob("*.py") if "ipvs._native import" in path.read_text()]
    assert importers == ["netlink.py"]
