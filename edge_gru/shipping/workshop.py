"""From options to a stage: source, wheels, cargo, and the folder that they are worked on in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_gru.shipping import wheels as wheel_folders
from edge_gru.shipping.cargo import Cargo
from edge_gru.shipping.deb import write_deb
from edge_gru.shipping.gates import Gate
from edge_gru.shipping.source import Source
from edge_gru.shipping.stage import Stage, stage
from edge_gru.shipping.target import Target


@dataclass(frozen=True)
class Workshop:
    """Builds stages; ``wheels`` None has them gathered, into a cache that is used again."""

    source: Source
    cargo: Cargo
    wheels: Path | None = None

    def gates(self) -> list[Gate]:
        """Look at what travels along.

        Raises:
            EdgeGruError: a key, the bundle or its signature does not hold.
        """
        gates = [Gate("model", is_passed=True, found=self.cargo.sentence)]
        keys = self.cargo.login.key_lines()
        if keys:
            found = f"{len(keys)}, for the rootfs of a flash"
            gates.append(Gate("ssh keys", is_passed=True, found=found))
        return gates

    @contextmanager
    def open(self, target: Target) -> Iterator[Stage]:
        """Build the stage for a kind of board; its files are there until this ends.

        Raises:
            EdgeGruError: the wheels cannot be had, or the cargo does not hold.
        """
        folder = self._wheels(target)
        with tempfile.TemporaryDirectory(prefix="edge-gru-stage-") as work:
            yield stage(self.source, target, folder, self.cargo, Path(work))

    def _wheels(self, target: Target) -> Path:
        if self.wheels is None:
            return wheel_folders.gather(self.source, target, cache_folder() / "wheels")
        wheel_folders.check(self.wheels, target)
        return self.wheels

    @contextmanager
    def package(self, target: Target) -> Iterator[tuple[Stage, Path]]:
        """Build the stage and, in a folder that ends with it, its Debian package.

        Raises:
            EdgeGruError: as `open`.
        """
        with self.open(target) as made, tempfile.TemporaryDirectory(prefix="edge-gru-deb-") as out:
            yield made, write_deb(made, self.source, Path(out))


def cache_folder() -> Path:
    """Where wheels are kept: edge-gru/ship in the cache of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-gru/ship"
