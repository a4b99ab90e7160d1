"""What this machine may be called in a signed bundle."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from edge_gru.signing.release import ANY_BOARD

BOARD_FILE = Path("/etc/edge-gru/board")
_COMPATIBLE = Path("/proc/device-tree/compatible")


def board_names(board_file: Path = BOARD_FILE, compatible: Path = _COMPATIBLE) -> tuple[str, ...]:
    """Name this board, the most telling first.

    The words of ``/etc/edge-gru/board``, where an owner can name a kind of machine; what the
    device tree is compatible with, such as ``nvidia,p3767-0005``, its comma as a dash; the
    architecture.
    """
    own = _read(board_file).split()
    tree = _read(compatible).split("\0")
    names = [*own, *(name.replace(",", "-") for name in tree), platform.machine()]
    return tuple(dict.fromkeys(name for name in names if name))


def fits(boards: Iterable[str], names: Iterable[str]) -> bool:
    """Tell whether a bundle for ``boards`` may run on a board with these names."""
    wanted = set(boards)
    return ANY_BOARD in wanted or not wanted.isdisjoint(names)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
