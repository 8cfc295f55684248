"""The C modules and the abi3 tag; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["pyminuteman/ipvs/_ffi_build.py:ffibuilder", "pyminuteman/host/_ffi_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
