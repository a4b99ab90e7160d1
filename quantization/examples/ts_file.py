"""The .ts files of the UEA archive: one clip a line, channels and label apart by colons."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from firmware_bridge.sample import Float32


def read_clips(path: Path) -> list[tuple[Float32, str]]:
    """Read every clip ``(n_steps, n_channels)`` with its label; lengths may differ."""
    rows = path.read_text(encoding="utf-8").split("@data\n")[1].splitlines()
    clips = []
    for row in filter(str.strip, rows):
        *channels, label = row.strip().split(":")
        values = [np.array(channel.split(","), np.float32) for channel in channels]
        clips.append((np.stack(values, axis=1), label))
    return clips
