"""A firmware project to begin from: library, example and schema header as files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from firmware_bridge.errors import FormatError

_ROOT = Path(__file__).parent
_LIBRARY = ("edge_link.h", "edge_link.c")


class Layout(NamedTuple):
    """Where a build looks for the library, the schema header, and what else an example has.

    ``sketch`` is where the Arduino sketch goes, with ``{name}`` for the project's name.
    """

    library: str = ""
    header: str = ""
    folder: str = ""
    sketch: str = ""


EXAMPLES: Mapping[str, Layout] = {
    "none": Layout(),
    "arduino": Layout(sketch="{name}.ino"),
    "platformio": Layout("lib/edge_link/", "include/", "platformio", "src/main.cpp"),
    "qemu": Layout(folder="qemu"),
}


def project_files(example: str, schema_header: str, name: str) -> dict[str, bytes]:
    """Return path -> content of a project called ``name``; ``none``: the library alone.

    Raises:
        FormatError: there is no such example.
    """
    if example not in EXAMPLES:
        raise FormatError(f"expected one of the examples {', '.join(EXAMPLES)}, got {example!r}")
    layout = EXAMPLES[example]
    made = {f"{layout.library}{f}": (_ROOT / "library" / f).read_bytes() for f in _LIBRARY}
    made[f"{layout.header}schema.h"] = schema_header.encode()
    if layout.sketch:
        sketch = _ROOT / "examples" / "arduino" / "sensor.ino"
        made[layout.sketch.format(name=name)] = sketch.read_bytes()
    if layout.folder:
        made |= dict(_contents(_ROOT / "examples" / layout.folder))
    return made


def _contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()
