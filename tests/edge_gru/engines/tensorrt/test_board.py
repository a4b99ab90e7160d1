from __future__ import annotations

from pathlib import Path

import pytest

from edge_gru.engines import choices
from edge_gru.engines.tensorrt.board import Board

FILES = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.2, GCID: 38968081, BOARD: any\n# KERN\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path


def test_jetson_tells_model_release_mode_and_clock(root: Path) -> None:
    board = Board.read(root)
    assert board == Board(
        model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        gpu="",
        l4t="R36 (release), REVISION: 4.2, GCID: 38968081, BOARD: any",
        power_mode="2",
        gpu_max_hz=1_020_000_000,
    )
    assert board.name == board.model


def test_pc_tells_its_card(tmp_path: Path) -> None:
    path = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0/information"
    path.parent.mkdir(parents=True)
    path.write_text("Model: \t\t NVIDIA RTX A2000\nIRQ:   \t\t 35\n")
    board = Board.read(tmp_path)
    assert board == Board("", "NVIDIA RTX A2000", "", "", None)
    assert board.name == "NVIDIA RTX A2000"


def test_machine_that_tells_nothing_is_described(tmp_path: Path) -> None:
    assert Board.read(tmp_path) == Board("", "", "", "", None)


def test_mode_zero_and_files_of_another_form(root: Path) -> None:
    (root / "var/lib/nvpmodel/status").write_text("pmode:0000 fmode:fanNULL")
    (root / "sys/class/devfreq/17000000.gpu/max_freq").write_text("<unknown>")
    board = Board.read(root)
    assert (board.power_mode, board.gpu_max_hz) == ("0", None)
    (root / "var/lib/nvpmodel/status").write_text("nothing")
    assert Board.read(root).power_mode == ""


@pytest.mark.parametrize("name", FILES)
def test_another_board_is_measured_anew(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What was the fastest engine in another power mode need not be the fastest in this one."""
    read = Board.read
    monkeypatch.setattr(choices.Board, "read", lambda: read(root))
    before = choices._surroundings()
    (root / name).write_text(FILES[name].replace("2", "3").replace("Nano", "NX"))
    assert choices._surroundings() != before
