"""The files that a flash brings: the staging tree, and what its dpkg and systemd know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from edge_gru.shipping.deb import control_of
from edge_gru.shipping.source import Source
from edge_gru.shipping.stage import UNITS, Stage

REGISTER = "opt/edge-gru/unregistered"
SENT = "opt/edge-gru/debs"
_DPKG = "var/lib/dpkg"
_FRAGMENT = f"{_DPKG}/updates/0000"
_WANTS = "etc/systemd/system/multi-user.target.wants"
_ENABLED = ("edge-gru.service", "edge-gru-register.service")

# Path -> content, or the target of a link; and mode.
Files: TypeAlias = dict[str, tuple[bytes | Path | str, int]]


def overlay_of(stage: Stage, source: Source, debs: Sequence[Path] = ()) -> Files:
    """List the files of the tree, the links that enable units, what dpkg reads, and ``debs``."""
    files: Files = {path: (node.target or node.content, node.mode) for path, node in stage.tree}
    for unit in _ENABLED:
        files[f"{_WANTS}/{unit}"] = (f"/{UNITS}/{unit}", 0o777)
    files[REGISTER] = (b"", 0o644)
    files |= {f"{SENT}/{deb.name}": (deb, 0o644) for deb in debs}
    return files | _database(stage, source)


def _database(stage: Stage, source: Source) -> Files:
    """Make the records of an unpacked package, as dpkg writes them; nothing of it is changed.

    Its status goes into a fragment, which the next dpkg that runs on the board takes in: this is
    how dpkg itself notes what it has not merged yet.
    """
    files: Files = {}
    fields = ""
    for name, node in control_of(stage, source):
        if name == "control":
            fields = node.read().decode()
        else:
            files[f"{_DPKG}/info/edge-gru.{name}"] = (node.content, node.mode)
    paths = sorted([*stage.tree.folders, *(path for path, _ in stage.tree)])
    listed = "".join(f"/{path}\n" for path in [".", *paths])
    files[f"{_DPKG}/info/edge-gru.list"] = (listed.encode(), 0o644)
    head, _, rest = fields.partition("\n")
    files[_FRAGMENT] = (f"{head}\nStatus: install ok unpacked\n{rest}".encode(), 0o644)
    return files


def folders_of(files: Files) -> list[str]:
    """List every folder that the files need, parents first."""
    found = {str(up) for path in files for up in Path(path).parents if str(up) != "."}
    return sorted(found)
