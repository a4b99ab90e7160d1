"""Programs that tests need, or skip without."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def deploy() -> Path:
    return Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command and capture its text."""

    def run_command(*command: object, **options) -> subprocess.CompletedProcess[str]:
        words = [str(part) for part in command]
        return subprocess.run(words, capture_output=True, text=True, check=False, **options)

    return run_command


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program, or skip the test with its name."""

    def need_tool(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed here")
        return path

    return need_tool


@pytest.fixture
def small_wheel() -> Callable[..., None]:
    """Write a wheel that is nothing but its metadata."""

    def write(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
        module = name.replace("-", "_")
        lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
            info = f"{module}-{version}.dist-info"
            archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")

    return write
