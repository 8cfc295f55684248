# The compiled boundary. What is behind it is written down once, in csrc/pmm_ipvs.h; netlink.py alone imports it.
from typing import Any

ffi: Any
lib: Any
