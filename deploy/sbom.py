#!/usr/bin/env python3
"""Write what is on a board as a CycloneDX bill of materials: packages, versions, licences, hashes.

PLACE is a folder that Python packages are installed in, or one of wheels; without any, the folder
that edge-gru is installed in. The same packages always give the same bytes: no date, no serial
number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

SPEC_VERSION = "1.6"
ROOT = "edge-gru"
_CLASSIFIER = "License :: "
_MAX_NAME = 80  # beyond that, the field holds the text of a licence
_SEPARATORS = re.compile(r"[-_.]+")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def canonical(name: str) -> str:
    """Write the name of a package as indexes do (PEP 503)."""
    return _SEPARATORS.sub("-", name).lower()


def distributions_in(places: Iterable[Path]) -> dict[str, metadata.Distribution]:
    """Find the packages in folders, those in wheels too, by canonical name."""
    paths = [str(path) for place in places for path in [place, *sorted(place.glob("*.whl"))]]
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=paths):
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonical(name), distribution)
    return found


def licences_of(distribution: metadata.Distribution) -> list[dict[str, Any]]:
    """Read the licence of a package: as an SPDX expression, or by the names that it gives."""
    fields = distribution.metadata
    expression = fields.get("License-Expression")
    if expression:
        return [{"expression": expression}]
    name = (fields.get("License") or "").strip()
    if name and "\n" not in name and len(name) <= _MAX_NAME and name.upper() != "UNKNOWN":
        return [{"license": {"name": name}}]
    classifiers = fields.get_all("Classifier") or []
    names = sorted({c.split(" :: ")[-1] for c in classifiers if c.startswith(_CLASSIFIER)})
    return [{"license": {"name": name}} for name in names]


def component_of(name: str, distribution: metadata.Distribution) -> dict[str, Any]:
    """Describe a package; the hash is of its list of files, which has a hash of each."""
    version = distribution.version
    component: dict[str, Any] = {
        "type": "application" if name == ROOT else "library",
        "bom-ref": reference(name, distribution),
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
    }
    licences = licences_of(distribution)
    if licences:
        component["licenses"] = licences
    record = distribution.read_text("RECORD")
    if record:
        component["properties"] = [
            {"name": "edge-gru:record-sha256", "value": hashlib.sha256(_stable(record)).hexdigest()}
        ]
    return component


def _stable(record: str) -> bytes:
    """Leave out of a RECORD what differs from installation to installation."""
    lines = [line for line in record.splitlines() if "__pycache__" not in line]
    kept = [
        line for line in lines if not re.search(r"(INSTALLER|REQUESTED|direct_url.json),", line)
    ]
    return "\n".join(sorted(kept)).encode()


def reference(name: str, distribution: metadata.Distribution) -> str:
    """Name a package within the document."""
    return f"{name}@{distribution.version}"


def needs(distribution: metadata.Distribution) -> set[str]:
    """Name what a package asks for, under whatever condition."""
    lines = distribution.requires or []
    return {canonical(found[0]) for line in lines if (found := _REQUIREMENT.match(line))}


def bill_of(found: dict[str, metadata.Distribution]) -> dict[str, Any]:
    """Make the document; ``found`` are all packages by canonical name."""
    components = [component_of(name, found[name]) for name in sorted(found)]
    root = [component for component in components if component["name"] == ROOT]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": root[0]} if root else {},
        "components": [component for component in components if component not in root],
        "dependencies": [
            {
                "ref": reference(name, found[name]),
                "dependsOn": sorted(
                    reference(other, found[other])
                    for other in needs(found[name])
                    if other in found and other != name
                ),
            }
            for name in sorted(found)
        ],
    }


def main() -> int:
    """Write the document; packages without a licence are named on stderr."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="file; default: stdout")
    parser.add_argument("places", metavar="PLACE", type=Path, nargs="*")
    arguments = parser.parse_args()
    places = arguments.places or [Path(str(metadata.distribution(ROOT).locate_file("")))]
    found = distributions_in(places)
    if not found:
        where = ", ".join(map(str, places))
        sys.stderr.write(f"sbom.py: expected Python packages in {where}, found none\n")
        return 2
    bill = bill_of(found)
    text = json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        arguments.output.write_text(text, encoding="utf-8")
    silent = [name for name in sorted(found) if not licences_of(found[name])]
    if silent:
        sys.stderr.write(f"sbom.py: no licence is given by {', '.join(silent)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
