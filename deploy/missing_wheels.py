#!/usr/bin/env python3
"""Print the requirements that no wheel in a folder meets, one a line, for the Python of a board.

pip evaluates the conditions of dependencies (``python_version < "3.11"``) for the Python it runs
on, also when it downloads for another one; here they are evaluated for the board's.
"""

from __future__ import annotations

import argparse
import email.parser
import sys
import zipfile
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename


def requirements_of(wheel: Path) -> list[Requirement]:
    """Return what the metadata of a wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    fields = email.parser.Parser().parsestr(text, headersonly=True)
    return [Requirement(line) for line in fields.get_all("Requires-Dist", [])]


def missing(folder: Path, root: Requirement, environment: dict[str, str]) -> list[str]:
    """Return the requirements reachable from ``root`` that the wheels in ``folder`` do not meet."""
    wheels = {parse_wheel_filename(path.name)[0]: path for path in sorted(folder.glob("*.whl"))}
    unmet = []
    seen: set[tuple[str, str]] = set()
    pending = [root]
    while pending:
        wanted = pending.pop()
        wheel = wheels.get(canonicalize_name(wanted.name))
        if wheel is None or not wanted.specifier.contains(
            parse_wheel_filename(wheel.name)[1], prereleases=True
        ):
            unmet.append(f"{wanted.name}{wanted.specifier}")
            continue
        for extra in {"", *wanted.extras}:
            if (wheel.name, extra) in seen:
                continue
            seen.add((wheel.name, extra))
            pending += [
                child
                for child in requirements_of(wheel)
                if child.marker is None or child.marker.evaluate({**environment, "extra": extra})
            ]
    return sorted(set(unmet))


def main() -> None:
    """Read the command line and print what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="Python of the board, such as 3.10")
    parser.add_argument("--arch", required=True, help="architecture of the board")
    parser.add_argument("folder", type=Path)
    parser.add_argument("requirement", type=Requirement)
    options = parser.parse_args()
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": options.arch,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{options.python}.0",
        "python_version": options.python,
        "sys_platform": "linux",
    }
    for line in missing(options.folder, options.requirement, environment):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
