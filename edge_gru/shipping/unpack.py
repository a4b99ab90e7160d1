"""Wheels as folders: what an installer would put in site-packages, without scripts."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from edge_gru.errors import ShippingError

# The build host's package stays there: a board runs models and makes none.
_LEFT_OUT = ("quantization/",)
_LIBRARIES = ("purelib", "platlib")


def unpack(wheels: Path, folder: Path) -> Iterator[str]:
    """Unpack every wheel into one folder; yield the names of the files, relative to it.

    Raises:
        ShippingError: a wheel is damaged, or reaches out of the folder.
    """
    for wheel in sorted(wheels.glob("*.whl")):
        yield from _unpack_one(wheel, folder)


def _unpack_one(wheel: Path, folder: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for info in archive.infolist():
                name = "" if info.is_dir() else _place(info.filename)
                if name:
                    target = folder / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(info))
                    yield name
    except (zipfile.BadZipFile, EOFError) as error:
        raise ShippingError(f"{wheel} is damaged ({error}); remove it") from error


def _place(name: str) -> str:
    """Tell where a file of a wheel goes; empty: nowhere."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise ShippingError(f"a wheel has a file {name!r} that is not in its folder; remove it")
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if parts[1:2] and parts[1] in _LIBRARIES else ""
    return "" if name.startswith(_LEFT_OUT) else name
