"""Signed models and packages for the tests that install them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_gru.bundle import Bundle
from edge_gru.signing import Release, SecretKey, sign

TOP = Path(__file__).parents[2]
DATE_S = 1_767_225_600


@dataclass(frozen=True)
class Fleet:
    """A key, and a folder in which it signs models."""

    folder: Path
    key: SecretKey

    @classmethod
    def make(cls, folder: Path) -> Fleet:
        """Make a key."""
        fleet = cls(folder, SecretKey.generate())
        fleet.public.write_text(fleet.key.public.to_text())
        return fleet

    @property
    def public(self) -> Path:
        """The key that boards trust."""
        return self.folder / "fleet.pub"

    def sign(self, bundle: Bundle, version: int, boards: tuple[str, ...] = ("any",)) -> Path:
        """Write a bundle and its signature; return the bundle's file."""
        path = self.folder / f"model-{version}.egb"
        bundle.save(path)
        release = Release(name=bundle.manifest.name, version=version, boards=boards)
        text = sign(path.read_bytes(), self.key, release.to_comment(path.name)).to_text()
        signature_of(path).write_text(text)
        return path


def signature_of(bundle: Path) -> Path:
    """Where the signature of a bundle is."""
    return bundle.with_name(f"{bundle.name}.minisig")


def ship(*words: object, date_s: int = DATE_S) -> subprocess.CompletedProcess[str]:
    """Run `edge-gru ship` of this tree."""
    main = "from edge_gru.cli import main; main(prog_name='edge-gru')"
    path = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", main, "ship", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": path, "SOURCE_DATE_EPOCH": str(date_s)},
    )
