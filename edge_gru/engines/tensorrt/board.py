"""What a board says of itself in files, without any library of NVIDIA's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Board:
    """Facts that an engine or a measurement depends on; empty or None where there are none."""

    model: str  # "NVIDIA Jetson Orin Nano Developer Kit"
    gpu: str  # name of a PC's card
    l4t: str  # "R36 (release), REVISION: 4.3, ..."
    power_mode: str  # number of the mode of nvpmodel
    gpu_max_hz: int | None  # what the power mode lets the GPU's clock reach

    @classmethod
    def read(cls, root: Path = Path("/")) -> Board:
        """Read them; ``root`` is where /proc and /sys are."""
        cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
        gpu = re.search(r"^Model:\s*(.+?)\s*$", _text(cards[0]) if cards else "", re.MULTILINE)
        mode = re.search(r"pmode:0*(\d+)", _text(root / "var/lib/nvpmodel/status"))
        return cls(
            model=_text(root / "proc/device-tree/model").strip("\0\n "),
            gpu=gpu[1] if gpu else "",
            l4t=_text(root / "etc/nv_tegra_release").partition("\n")[0].removeprefix("# ").strip(),
            power_mode=mode[1] if mode else "",
            gpu_max_hz=_gpu_max_hz(root),
        )

    @property
    def name(self) -> str:
        """The board, or the card of a PC."""
        return self.model or self.gpu


def _gpu_max_hz(root: Path) -> int | None:
    for path in sorted((root / "sys/class/devfreq").glob("*gpu*/max_freq")):
        text = _text(path).strip()
        if text.isdecimal():
            return int(text)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
