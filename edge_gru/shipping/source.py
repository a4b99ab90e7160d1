"""The source tree that is shipped: found, read, dated."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import edge_gru
from edge_gru.errors import ShippingError

PACKAGES = ("edge_gru", "firmware_bridge")
_BUILT = {".pyc", ".so"}
_FALLBACK_S = 1_577_836_800  # 2020-01-01: a date for trees without history


class Source:
    """A checkout of this project, with ``deploy/`` in it.

    Raises:
        ShippingError: it is none.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(edge_gru.__file__).parents[1]).resolve()
        if not (self.deploy / "debian/control").is_file():
            raise ShippingError(
                f"expected the source tree of edge-gru with its folder deploy, got {self.root}; "
                "name it with --source"
            )

    @property
    def deploy(self) -> Path:
        """What goes on a board besides the packages."""
        return self.root / "deploy"

    def date_s(self) -> int:
        """The date of everything that is made: SOURCE_DATE_EPOCH, or that of the last commit."""
        given = os.environ.get("SOURCE_DATE_EPOCH")
        if given is not None and not given.isdigit():
            raise ShippingError(
                f"expected SOURCE_DATE_EPOCH to be seconds since 1970, got {given!r}; unset it"
            )
        return self._committed_s() if given is None else int(given)

    def _committed_s(self) -> int:
        command = ["git", "-C", str(self.root), "log", "-1", "--format=%ct"]
        try:
            found = subprocess.run(command, check=False, capture_output=True, text=True)
        except FileNotFoundError:
            return _FALLBACK_S
        return int(found.stdout) if found.returncode == 0 else _FALLBACK_S

    def files(self) -> list[Path]:
        """List what the wheel is built from, sorted."""
        found = [path for name in PACKAGES for path in (self.root / name).rglob("*")]
        found = [path for path in found if path.is_file() and path.suffix not in _BUILT]
        return sorted([*found, self.root / "pyproject.toml"])

    def digest(self) -> str:
        """Hash what the wheel is built from."""
        whole = hashlib.sha256()
        for path in self.files():
            whole.update(f"{path.relative_to(self.root)}\0".encode())
            whole.update(hashlib.sha256(path.read_bytes()).digest())
        return whole.hexdigest()
