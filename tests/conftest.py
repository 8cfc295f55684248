"""Profiles of Hypothesis, and the root of the tree on the path, so that tests can import what they share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

# The workers of a parallel run are measured from their first import; what the tests start is not: it would only be slower.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_START", None)

# Fixtures that tests of a backend share among examples are meant to: each example goes on from where the last one stopped.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
settings.register_profile("ci", _COMMON, derandomize=True, max_examples=60, print_blob=True)
settings.register_profile("dev", _COMMON, max_examples=40)
settings.register_profile("sanitizer", _COMMON, derandomize=True, max_examples=15, database=None)
settings.register_profile("long", _COMMON, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
