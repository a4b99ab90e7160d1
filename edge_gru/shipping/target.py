"""What a board is: the version of its Python, and its architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_gru.errors import ShippingError

# Python -> the newest onnxruntime that has wheels for it.
ONNXRUNTIME = {"3.10": "1.23.2", "3.11": "1.32.0", "3.12": "1.32.0", "3.13": "1.32.0"}
_DEBIAN = {"aarch64": "arm64", "x86_64": "amd64"}
_JETSON = re.compile(r"# R(\d+) ")
_PYTHON_OF_L4T = {36: "3.10", 38: "3.12", 39: "3.12"}


@dataclass(frozen=True)
class Target:
    """A kind of board.

    Raises:
        ShippingError: nothing can be built for such a board.
    """

    python: str
    arch: str = "aarch64"

    def __post_init__(self) -> None:
        if self.python not in ONNXRUNTIME:
            raise ShippingError(
                f"expected Python {', '.join(ONNXRUNTIME)}, got {self.python!r}; "
                "a board tells with: python3 --version"
            )
        if self.arch not in _DEBIAN:
            raise ShippingError(
                f"expected the architecture {' or '.join(_DEBIAN)}, got {self.arch!r}; "
                "a board tells with: uname -m"
            )

    @property
    def debian_arch(self) -> str:
        """The name that Debian has for the architecture."""
        return _DEBIAN[self.arch]

    @property
    def packages(self) -> str:
        """The folder of our Python packages on the board, without a slash in front."""
        return f"usr/lib/edge-gru/python{self.python}"


def l4t_major(release: str) -> int | None:
    """Read the major version in ``/etc/nv_tegra_release``; None: it is no Jetson's."""
    found = _JETSON.match(release)
    return None if found is None else int(found[1])


def python_of_l4t(major: int) -> str:
    """Tell which Python comes with a version of Jetson Linux.

    Raises:
        ShippingError: it is not a supported one.
    """
    if major not in _PYTHON_OF_L4T:
        known = ", ".join(f"r{n}" for n in _PYTHON_OF_L4T)
        raise ShippingError(
            f"expected Jetson Linux {known}, got r{major}; flash JetPack 6 or 7 on the board"
        )
    return _PYTHON_OF_L4T[major]
