from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from edge_gru.cli import main
from edge_gru.doctor import Machine, Process
from edge_gru.errors import EngineUnavailableError

BOARDS = Path(__file__).parent / "boards"
NATIVE = "edge_gru.native._native"
_JETPACK_BINDING = {"tensorrt": "/usr/lib/python3.10/dist-packages/tensorrt"}


@dataclasses.dataclass(frozen=True)
class FakeProcess(Process):
    """A process whose surroundings are data."""

    closed: frozenset[str] = frozenset()
    free: int = 50 << 30
    synced: bool = True
    now_s: float = 1.8e9
    cuda_error: str = ""

    def may_open(self, path: Path) -> bool:
        return path.name not in self.closed

    def free_bytes(self, path: Path) -> int:
        return self.free

    def gpu(self) -> str:
        if self.cuda_error:
            raise EngineUnavailableError(self.cuda_error)
        return "compute capability 8.7"

    def is_clock_synced(self) -> bool:
        return self.synced

    def wall_s(self) -> float:
        return self.now_s


@pytest.fixture
def process() -> Callable[..., FakeProcess]:
    """Make the process of an ordinary user of a Jetson's own Python."""

    def make(**changes: object) -> FakeProcess:
        facts: dict[str, object] = {
            "version": (3, 10),
            "executable": "/usr/bin/python3",
            "is_virtual": False,
            "is_conda": False,
            "sees_system_packages": True,
            "architecture": "aarch64",
            "modules": {**_JETPACK_BINDING, "onnxruntime": "/x/onnxruntime", NATIVE: "/x"},
            "distributions": {"tensorrt": "10.3.0", "onnxruntime": "1.23.2"},
            "is_root": False,
            "groups": frozenset({"jetson", "dialout", "video", "render"}),
        }
        return FakeProcess(**{**facts, **changes})

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Write files below a root of their own; return it."""

    def write_all(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write_all


@pytest.fixture
def board(write, process) -> Callable[..., Machine]:
    """Lay out the files of a board, some changed or added, for a process."""

    def make(name: str, files: Mapping[str, str] | None = None, **facts: object) -> Machine:
        published = msgspec.toml.decode((BOARDS / f"{name}.toml").read_bytes())
        texts = {path: file["text"] for path, file in published["files"].items()}
        return Machine(write({**texts, **(files or {})}), process(**facts))

    return make


@pytest.fixture
def call() -> Callable[..., Result]:
    """Run a verb in this process."""
    return lambda *arguments: CliRunner().invoke(main, [str(a) for a in arguments])
