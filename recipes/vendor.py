"""Fetch the scripts of others that the pages use, as they are pinned here, and write their hashes beside them.

    python -m recipes.vendor

A package comes from the npm registry, is checked against the hash that the registry published for it, and only the files named here are
taken out of it. Nothing of npm or Node is needed, here or where the pages run.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "weber" / "serve" / "static" / "vendor"
HASHES = "hashes.json"
REGISTRY = "https://registry.npmjs.org"


@dataclass(frozen=True)
class Package:
    """A release, the hash of its archive, and which files become which."""

    name: str
    version: str
    integrity: str
    license: str
    files: Mapping[str, str] = field(default_factory=dict)


PACKAGES = (
    Package(
        "htmx.org",
        "2.0.8",
        "sha512-fm297iru0iWsNJlBrjvtN7V9zjaxd+69Oqjh4F/Vq9Wwi2kFisLcrLCiv5oBX0KLfOX/zG8AUo9ROMU5XUB44Q==",
        "0BSD",
        {"dist/htmx.min.js": "htmx.min.js", "LICENSE": "htmx.LICENSE"},
    ),
    Package(
        "uplot",
        "1.6.32",
        "sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==",
        "MIT",
        {"dist/uPlot.esm.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "uplot.LICENSE"},
    ),
)


def fetch(package: Package, registry: str) -> bytes:
    """The archive of a release. Raises ValueError where it is not the one that is pinned."""
    address = f"{registry.rstrip('/')}/{package.name}/-/{package.name}-{package.version}.tgz"
    with urllib.request.urlopen(address, timeout=60) as answer:
        content: bytes = answer.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.integrity:
        raise ValueError(f"{address} is not what is pinned: {found}")
    return content


def write_files(package: Package, archive: bytes, *, folder: Path) -> dict[str, dict[str, str]]:
    """Take the files out of an archive; returns what is to be known of each."""
    known = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for inner, name in package.files.items():
            stream = tar.extractfile(f"package/{inner}")
            assert stream is not None, inner
            content = stream.read()
            (folder / name).write_bytes(content)
            known[name] = {
                "sha256": hashlib.sha256(content).hexdigest(),
                "from": f"{package.name}@{package.version}/{inner}",
                "license": package.license,
            }
    return known


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", default=REGISTRY, help="a mirror of the npm registry")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    known: dict[str, dict[str, str]] = {}
    for package in PACKAGES:
        known |= write_files(package, fetch(package, options.registry), folder=FOLDER)
        print(f"{package.name} {package.version}: {', '.join(package.files.values())}")
    (FOLDER / HASHES).write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
