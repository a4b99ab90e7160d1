"""A folder that a container image is built from: the staging tree as a layer, and its start."""

from __future__ import annotations

import io
from pathlib import Path

from edge_gru.bundle import write_atomically
from edge_gru.shipping.source import Source
from edge_gru.shipping.stage import Stage

LAYER = "edge-gru.tar"
# The first has JetPack's TensorRT, the others predict on the CPU.
_BASES = {
    "3.10": "nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime",
    "3.11": "debian:12",
    "3.12": "ubuntu:24.04",
    "3.13": "debian:13",
}


def base_of(python: str) -> str:
    """Name an image that has this Python, or for which it is one package away."""
    return _BASES[python]


def write_context(
    stage: Stage, source: Source, folder: Path, base: str | None = None
) -> list[Path]:
    """Write what ``docker build`` and ``docker compose`` need into a folder.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layer = io.BytesIO()
    stage.tree.write_tar(layer)
    files = {LAYER: layer.getvalue()}
    for file in sorted((source.deploy / "container").iterdir()):
        text = file.read_text()
        text = text.replace("@BASE@", base or base_of(stage.target.python))
        files[file.name] = text.replace("@VERSION@", stage.version.replace("+", "-")).encode()
    for name, data in files.items():
        write_atomically(folder / name, data)
    (folder / "start").chmod(0o755)
    return [folder / name for name in sorted(files)]
