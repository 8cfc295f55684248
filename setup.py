"""The C modules, the abi3 tag, and what lies beside the package; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

# Made by tools/build_backend.py for a wheel; an editable install has none.
manual = Path("build/manual")
shipped = {str(path): str(path.parent.relative_to(manual)) for path in sorted(manual.rglob("*")) if path.is_file()}
shipped |= {
    str(path): str(Path("share/minuteman") / path.parent.relative_to("contrib"))
    for path in sorted(Path("contrib").rglob("*"))
    if path.is_file()
}

setup(
    cffi_modules=["pyminuteman/ipvs/_ffi_build.py:ffibuilder", "pyminuteman/host/_ffi_build.py:ffibuilder"],
    data_files=[(directory, [path]) for path, directory in shipped.items()],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
