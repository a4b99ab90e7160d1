"""What Python has compiled is used once it is on the disk whole, and not before."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

PLACE = "/usr/lib/edge-gru"


class Board:
    """A folder in which the command and its script are installed, with the smallest package."""

    def __init__(self, folder: Path, deploy: Path, run) -> None:
        self.packages = folder / "python3.x"
        self.command = folder / "edge-gru"
        self.script = folder / "precompile"
        self.compiled = folder / "compiled"
        self._run = run
        (self.packages / "edge_gru").mkdir(parents=True)
        (self.packages / "edge_gru/__init__.py").write_text("")
        (self.packages / "edge_gru/cli.py").write_text("def main(**_): print('runs')\n")
        words = {"@MAJOR@": sys.version_info[0], "@MINOR@": sys.version_info[1]}
        launcher = (deploy / "bin/edge-gru").read_text()
        for name, word in {**words, "/@PACKAGES@": self.packages}.items():
            launcher = launcher.replace(name, str(word))
        self.command.write_text(launcher)
        text = (deploy / "bin/precompile").read_text()
        self.script.write_text(text.replace(PLACE, str(folder)).replace("python3 ", "$PYTHON "))

    @property
    def modules(self) -> list[Path]:
        return sorted(self.packages.rglob("*.pyc"))

    def tear(self) -> None:
        """Leave of each compiled module what a power cut may leave."""
        for module in self.modules:
            module.write_bytes(module.read_bytes()[:20])

    def run(self) -> str:
        return self._run(sys.executable, "-I", self.command).stdout

    def precompile(self) -> None:
        done = self._run("sh", self.script, env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable})
        assert done.returncode == 0, done.stderr


@pytest.fixture
def board(tmp_path, deploy, run) -> Board:
    return Board(tmp_path, deploy, run)


def test_the_command_compiles_nothing_by_itself(board):
    assert board.run() == "runs\n"
    assert not board.modules


def test_what_was_compiled_whole_is_used(board):
    board.precompile()
    assert len(board.modules) == 2
    source = board.packages / "edge_gru/cli.py"
    before = source.stat().st_mtime_ns
    source.write_text(source.read_text().replace("runs", "fast"))  # as long as it was
    os.utime(source, ns=(before, before))
    assert board.run() == "runs\n"


def test_torn_modules_stop_nothing_and_are_compiled_again(board):
    board.precompile()
    board.tear()
    board.compiled.unlink()  # the power went before all was on the disk
    assert board.run() == "runs\n"
    board.precompile()
    assert board.compiled.exists()
    assert min(module.stat().st_size for module in board.modules) > 20
    assert board.run() == "runs\n"


def test_what_is_compiled_is_not_compiled_again(board):
    board.precompile()
    before = [module.stat().st_mtime_ns for module in board.modules]
    board.precompile()
    assert [module.stat().st_mtime_ns for module in board.modules] == before
