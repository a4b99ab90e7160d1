"""A staged board, and wheel folders made without a package index."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SYSTEM_PYTHON = str(Path(sys._base_executable).resolve())

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def deploy() -> Path:
    return DEPLOY


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command and capture its text; the settings of pip around the tests do not reach it."""

    def run_command(*command: object, **options) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        env |= options.pop("env", {})
        return subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            check=False,
            env=env,
            **options,
        )

    return run_command


def need_tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return path


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Find a program, or skip the test with its name."""
    return need_tool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty board: the folders that its system brings, and no file."""
    need_tool("systemctl")
    for folder in (
        "etc/systemd/system",
        "etc/udev/rules.d",
        "etc/sysusers.d",
        "opt",
        "usr/local/bin",
        "var/lib",
    ):
        (tmp_path / "board" / folder).mkdir(parents=True)
    return tmp_path / "board"


@pytest.fixture
def install(run: Run, root: Path) -> Run:
    """Run install.sh on the staged board."""

    def run_install(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
        script = DEPLOY / "install.sh"
        options.setdefault("cwd", "/")
        return run(script, "--root", root, "--python", SYSTEM_PYTHON, *arguments, **options)

    return run_install


def add_installed(name: str, folder: Path) -> None:
    """Write the wheel that an installed distribution came from."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed here, so no wheel of it can be made offline")
    tags = [
        line.removeprefix("Tag: ").strip()
        for line in (distribution.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    ]
    parts = [
        ".".join(sorted(set(column)))
        for column in zip(*(tag.split("-") for tag in tags), strict=True)
    ]
    stem = f"{name.replace('-', '_')}-{distribution.version}-{'-'.join(parts)}"
    with zipfile.ZipFile(folder / f"{stem}.whl", "w") as archive:
        for file in distribution.files or []:
            if not str(file).startswith("..") and file.suffix != ".pyc":
                archive.write(distribution.locate_file(file), str(file))


def add_small(
    folder: Path, name: str, version: str, requires: tuple[str, ...] = (), body: str = "pass"
) -> None:
    """Write a wheel with one function, which a command of the same name calls."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += ["Provides-Extra: onnxruntime", *(f"Requires-Dist: {r}" for r in requires)]
    files = {
        f"{module}.py": f"def main():\n    {body}\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


def seal(folder: Path, *, python: str = PYTHON, arch: str = platform.machine()) -> None:
    """Write what wheels.sh writes beside the wheels."""
    (folder / "TARGET").write_text(f"python={python}\narch={arch}\n")
    files = sorted(path for path in folder.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture(scope="session")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pip")
    add_installed("pip", folder)
    return next(folder.iterdir())


@pytest.fixture
def small_wheels(tmp_path: Path, pip_wheel: Path) -> Callable[..., Path]:
    """Make a wheel folder whose edge-gru is one function: what install.sh does takes a second."""

    def make(
        version: str = "1.0", body: str = "pass", requires: tuple[str, ...] = (), **target: str
    ) -> Path:
        folder = tmp_path / f"wheels-{version}"
        folder.mkdir()
        shutil.copy(pip_wheel, folder)
        add_small(folder, "edge-gru", version, requires, body)
        seal(folder, **target)
        return folder

    return make


@pytest.fixture
def small_wheel() -> Callable[..., None]:
    return add_small


@pytest.fixture
def installed_wheel() -> Callable[[str, Path], None]:
    return add_installed
