"""What the web page has of others, fetched anew: python tools/vendor_web.py. Needs npm; nothing else ever does.

The four packages of d3's force layout are bundled into one minified ES module, for their own modules name each other in a way that
browsers understand only with an import map, and an import map would be an inline script. Only what the page calls is in it.
`vendor.json` records versions, licences, sources and hashes; a test compares them with the files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).resolve().parent.parent / "pyminuteman/daemon/web/vendor"
PACKAGES = {"d3-force": "3.0.0", "d3-quadtree": "3.0.1", "d3-dispatch": "3.0.1", "d3-timer": "3.0.1"}
ESBUILD = "0.25.12"
EXPORTS = "forceCollide, forceLink, forceManyBody, forceSimulation, forceX, forceY"
FILE = "d3-force.js"


def _run(directory: Path, *command: str) -> str:
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


def _package(directory: Path, lock: dict[str, Any], name: str) -> dict[str, str]:
    about = json.loads((directory / "node_modules" / name / "package.json").read_text())
    repository = about["repository"]["url"].removeprefix("git+").removesuffix(".git")
    return {
        "name": name,
        "version": about["version"],
        "licence": about["license"],
        "source": repository,
        "package_integrity": lock["packages"][f"node_modules/{name}"]["integrity"],
    }


def main() -> int:
    """Write the bundle, the licences and the record of both."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wanted = [f"{package}@{version}" for package, version in PACKAGES.items()]
        (directory / "package.json").write_text("{}")
        _run(directory, "npm", "install", "--silent", "--ignore-scripts", "--save-exact", *wanted, f"esbuild@{ESBUILD}")
        (directory / "entry.js").write_text(f'export {{ {EXPORTS} }} from "d3-force";\n')
        names = ", ".join(f"{package} {version}" for package, version in PACKAGES.items())
        banner = f"/* {names}; Copyright 2010-2021 Mike Bostock; ISC: see LICENSES */"
        options = ["--bundle", "--minify", "--format=esm", "--target=es2022", "--legal-comments=none"]
        code = _run(directory, "node_modules/.bin/esbuild", "entry.js", *options, f"--banner:js={banner}")
        lock = json.loads((directory / "package-lock.json").read_text())
        licences = [(package, (directory / "node_modules" / package / "LICENSE").read_text()) for package in PACKAGES]
        packages = [_package(directory, lock, package) for package in PACKAGES]
    VENDOR.mkdir(parents=True, exist_ok=True)
    (VENDOR / FILE).write_text(code)
    (VENDOR / "LICENSES").write_text("\n".join(f"{package} {PACKAGES[package]}\n\n{text}" for package, text in licences))
    digest = base64.b64encode(hashlib.sha384(code.encode()).digest()).decode()
    record = {
        "file": FILE,
        "integrity": f"sha384-{digest}",
        "bytes": len(code.encode()),
        "made": f"esbuild {ESBUILD} {' '.join(options)}: {EXPORTS}",
        "packages": packages,
    }
    (VENDOR / "vendor.json").write_text(json.dumps({"files": [record]}, indent=2) + "\n")
    sys.stdout.write(f"{FILE}: {len(code.encode())} bytes, {record['integrity']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
