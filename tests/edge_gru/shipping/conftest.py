"""Small wheels, small models, and a board behind a real sshd."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_gru.shipping import Cargo, Source, Target
from edge_gru.signing import Release, SecretKey, sign

TOP = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def source() -> Source:
    return Source(TOP)


@pytest.fixture(autouse=True)
def _date(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")


def write_wheel(folder: Path, name: str, files: dict[str, str]) -> None:
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def small_wheels(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of wheels: an edge-gru whose command says what it is told to."""

    def make(target: Target, says: str = "small") -> Path:
        folder = tmp_path / f"wheels-{says}"
        folder.mkdir()
        body = f"def main(prog_name):\n    print({says!r})\n"
        files = {
            "edge_gru/__init__.py": "",
            "edge_gru/cli.py": body,
            "quantization/__init__.py": "",
            "edge_gru-1.0.data/scripts/edge-gru": "#!python\n",
        }
        write_wheel(folder, "edge_gru", files)
        write_wheel(folder, "helper", {"helper.py": "X = 1\n"})
        (folder / "TARGET").write_text(f"{target.python} {target.arch}\n")
        return folder

    return make


_SHELL = """#!/bin/sh
export HOME={home} PATH={bin}:$PATH SESSION=$PPID
cd "$HOME" && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
# Each stands for a program of the board, and keeps what it did in the folder of the board.
_PROGRAMS = {
    "sudo": """
if [ -e {state}/password ]; then
    [ "$1" = -n ] && exit 1
    read -r word
    if [ "$word" != "$(/bin/cat {state}/password)" ]; then echo "sudo: sorry" >&2; exit 1; fi
    shift 4; exec "$@"
fi
shift; exec "$@"
""",
    "dpkg": """
for file in "$@"; do :; done
echo "$*" >>{state}/dpkg
version=$(dpkg-deb -f "$file" Version)
[ "$version" != "$(/bin/cat {state}/refused 2>/dev/null)" ] || exit 1
echo "$version" >{state}/version
""",
    "dpkg-query": "/bin/cat {state}/version 2>/dev/null || exit 1",
    "edge-gru": """
echo "$1 $2" >>{state}/edge-gru
echo "service   predicting"
exit $(/bin/cat {state}/code 2>/dev/null || echo 0)
""",
    "systemctl": """
echo "$*" >>{state}/systemctl
if [ "$1" != enable ] && [ -e {state}/broken ]; then echo "Job failed." >&2; exit 1; fi
""",
    "nvpmodel": 'echo "$*" >>{state}/nvpmodel',
    "df": 'echo head; echo "disk 1 1 $(/bin/cat {state}/free 2>/dev/null || echo 9000000) 1 /"',
    "cat": """
if [ -e {state}/cut ]; then rm {state}/cut; head -c 5000; kill -9 "$SESSION"; exit; fi
if [ -e {state}/full ]; then echo "cat: write error: No space left on device" >&2; exit 1; fi
if [ -e {state}/noise ]; then /bin/cat; echo noise; exit; fi
/bin/cat | tee -a {state}/received
""",
}


@dataclass
class FakeBoard:
    """What is behind the sshd: a home, programs that only pretend, and what they did."""

    folder: Path
    port: int
    options: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{pwd.getpwuid(os.geteuid()).pw_name}@localhost"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def kept(self) -> Path:
        return self.folder / "kept"

    @property
    def uploads(self) -> Path:
        return self.folder / "home/.cache/edge-gru-ship"

    def is_now(self, name: str, text: str = "") -> None:
        """Change how the programs behave."""
        (self.state / name).write_text(text)

    def said(self, name: str) -> str:
        path = self.state / name
        return path.read_text() if path.exists() else ""


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def key() -> Callable[[Path], Path]:
    return make_key


@pytest.fixture
def board(tmp_path: Path) -> Iterator[FakeBoard]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if sshd is None or shutil.which("ssh") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("needs sshd, ssh and dpkg-deb; install openssh-server, openssh-client, dpkg")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    board = FakeBoard(tmp_path / "b", free_port())
    for name in ("home", "bin", "state", "kept"):
        (board.folder / name).mkdir(parents=True)
    words = {"state": board.state, "home": board.folder / "home", "bin": board.folder / "bin"}
    for name, text in _PROGRAMS.items():
        program = board.folder / "bin" / name
        program.write_text("#!/bin/sh\n" + text.format(**words))
        program.chmod(0o755)
    shell = board.folder / "shell"
    shell.write_text(_SHELL.format(**words))
    shell.chmod(0o755)
    yield from serve(sshd, board, shell)


def serve(sshd: str, board: FakeBoard, shell: Path) -> Iterator[FakeBoard]:
    host_key, user_key = make_key(board.folder / "host"), make_key(board.folder / "user")
    settings = {
        "Port": board.port, "ListenAddress": "127.0.0.1", "HostKey": host_key, "UsePAM": "no",
        "AuthorizedKeysFile": f"{user_key}.pub", "StrictModes": "no", "PidFile": "none",
        "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes", "ForceCommand": shell, "LogLevel": "ERROR",
    }  # fmt: skip
    config = board.folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    known = board.folder / "known_hosts"
    public = host_key.with_suffix(".pub").read_text()
    known.write_text(f"[localhost]:{board.port} {public}")
    board.options = [
        f"Port={board.port}", f"IdentityFile={user_key}", "IdentitiesOnly=yes", "BatchMode=yes",
        f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=none", "AddressFamily=inet",
        f"User={pwd.getpwuid(os.geteuid()).pw_name}",
    ]  # fmt: skip
    daemon = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=subprocess.PIPE)
    try:
        until_listening(board.port, daemon)
        yield board
    finally:
        daemon.terminate()
        daemon.communicate()


def until_listening(port: int, daemon: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 20
    while daemon.poll() is None and time.monotonic() < deadline_s:
        with socket.socket() as opened:
            if opened.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    said = daemon.communicate()[1] if daemon.poll() is not None else b"it does not listen"
    pytest.skip(f"sshd does not start here: {said.decode(errors='replace').strip()}")


@pytest.fixture
def board_target() -> Target:
    """What the board says that it is: this machine, with the python3 on its path."""
    tells = "import sys; print('%d.%d' % sys.version_info[:2])"
    told = subprocess.run(["python3", "-c", tells], check=False, capture_output=True, text=True)
    return Target(told.stdout.strip(), os.uname().machine)


@pytest.fixture
def cargo(tmp_path: Path, pack, schema) -> Callable[..., Cargo]:
    """Make a signed tiny model and the key that it is signed with."""
    pytest.importorskip("cryptography", reason="signatures need cryptography")

    def make(version: int = 1, boards: tuple[str, ...] = ("any",), **changes: object) -> Cargo:
        key = SecretKey.generate()
        bundle, public = tmp_path / "tiny.egb", tmp_path / "fleet.pub"
        model = pack(schema)
        model.save(bundle)
        release = Release(model.manifest.name, version, boards)
        signature = sign(bundle.read_bytes(), key, release.to_comment(bundle.name))
        bundle.with_name("tiny.egb.minisig").write_text(signature.to_text())
        public.write_text(key.public.to_text())
        return Cargo(**{"bundle": bundle, "keys": (public,), **changes})

    return make


@pytest.fixture
def tegra(tmp_path: Path) -> Path:
    """A folder with the names of NVIDIA's Linux_for_Tegra, ready to be flashed."""
    folder = tmp_path / "Linux_for_Tegra"
    rootfs = folder / "rootfs"
    for name in ("usr/bin", "etc/systemd/system", "tools"):
        (rootfs / name).mkdir(parents=True)
    for name in ("apply_binaries.sh", "flash.sh", "jetson-orin-nano-devkit.conf"):
        (folder / name).write_text("")
    (rootfs / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.4, GCID: 0\n")
    me = max(os.geteuid(), 1000), max(os.getegid(), 1000)  # whoever is root may give files away
    (rootfs / "etc/passwd").write_text(f"jetson:x:{me[0]}:{me[1]}::/home/jetson:/bin/bash\n")
    (rootfs / "home/jetson").mkdir(parents=True)
    (rootfs / "etc/hostname").write_text("tegra-ubuntu\n")
    (rootfs / "etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\ttegra-ubuntu\n")
    (rootfs / "usr/bin/python3").symlink_to("python3.10")
    if os.geteuid() == 0:  # nobody else can make a program that is root's
        (rootfs / "usr/bin/sudo").write_text("")
        (rootfs / "usr/bin/sudo").chmod(0o4755)
    return folder
