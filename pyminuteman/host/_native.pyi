# The compiled boundary. What is behind it is written down once, in csrc/pmm_route.h; links.py alone imports it.
from typing import Any

ffi: Any
lib: Any
