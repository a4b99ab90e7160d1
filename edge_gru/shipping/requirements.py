"""Which requirements the wheels in a folder do not meet, for the Python of a board.

pip reads the conditions of dependencies (``python_version < "3.11"``) for the Python that it runs
on, also when it downloads for another one; here they are read for the board's.
"""

from __future__ import annotations

import email.parser
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from edge_gru.shipping.target import Target


def missing(folder: Path, root: str, target: Target) -> list[str]:
    """Name the requirements reachable from ``root`` that no wheel in ``folder`` meets."""
    wheels = {parse_wheel_filename(path.name)[0]: path for path in sorted(folder.glob("*.whl"))}
    environment = _environment(target)
    unmet = set()
    seen: set[tuple[str, str]] = set()
    pending = [Requirement(root)]
    while pending:
        wanted = pending.pop()
        wheel = wheels.get(canonicalize_name(wanted.name))
        if wheel is None or not _meets(wheel, wanted):
            unmet.add(f"{wanted.name}{wanted.specifier}")
            continue
        for extra in {"", *wanted.extras}:
            if (wheel.name, extra) not in seen:
                seen.add((wheel.name, extra))
                pending += _required(wheel, {**environment, "extra": extra})
    return sorted(unmet)


def _meets(wheel: Path, wanted: Requirement) -> bool:
    version = parse_wheel_filename(wheel.name)[1]
    return wanted.specifier.contains(version, prereleases=True)


def _required(wheel: Path, environment: dict[str, str]) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    fields = email.parser.Parser().parsestr(text, headersonly=True)
    found = [Requirement(line) for line in fields.get_all("Requires-Dist", [])]
    return [r for r in found if r.marker is None or r.marker.evaluate(environment)]


def _environment(target: Target) -> dict[str, str]:
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": target.arch,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{target.python}.0",
        "python_version": target.python,
        "sys_platform": "linux",
    }
