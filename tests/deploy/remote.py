"""A userland behind its own sshd: `ship ssh` installs, updates, goes on, and rolls back."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.parcel import DATE_S, Fleet, ship
from tests.deploy.report import Report
from tests.deploy.userland import Userland

HOST = "root@localhost"
UPLOADS = "root/.cache"
SMALL_BYTES = 20_000_000  # of a package with 50 MB
KEPT = "opt/edge-gru/packages"


@dataclass(frozen=True)
class Remote:
    """A board by the options that ssh reaches it with."""

    options: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The options as words of a command."""
        return [word for option in self.options for word in ("-o", option)]

    def run(self, command: str) -> str:
        """Run a command there; return what it said."""
        return self._said(["ssh", *self.words, HOST, command])

    def copy(self, files: Sequence[Path]) -> None:
        """Copy files into its home."""
        subprocess.run(["scp", "-q", *self.words, *files, f"{HOST}:"], check=True)

    def _said(self, command: list[str]) -> str:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return (done.stdout + done.stderr).strip()


@contextmanager
def ssh_server(userland: Userland, folder: Path) -> Iterator[Remote]:
    """Let the userland's own sshd listen."""
    key = folder / "key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    userland.put("root/.ssh/authorized_keys", key.with_suffix(".pub").read_text())
    userland.run("ssh-keygen", "-A")
    userland.run("mkdir", "-p", "/run/sshd")
    port = _free_port()
    host_key = (userland.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (folder / "known").write_text(f"[localhost]:{port} {host_key}")
    settings = ["-p", str(port), "-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no"]
    settings += ["-o", "StrictModes=no", "-o", "PermitRootLogin=yes"]
    with userland.running("/usr/sbin/sshd", "-D", "-e", *settings):
        yield Remote(
            (
                *(f"Port={port}", f"IdentityFile={key}", f"UserKnownHostsFile={folder / 'known'}"),
                *("BatchMode=yes", "AddressFamily=inet", "ConnectionAttempts=60", "LogLevel=ERROR"),
            )
        )


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def deliver(remote: Remote, fleet: Fleet, version: int) -> subprocess.CompletedProcess[str]:
    """Ship a version of the model with the program, as a user would."""
    words = ["ssh", HOST, *remote.words, "--pubkey", fleet.public]
    words += ["--bundle", fleet.folder / f"model-{version}.egb"]
    return ship(*words, date_s=DATE_S + version * 60)


def look_at_full_disk(userland: Userland, report: Report, remote: Remote, fleet: Fleet) -> None:
    """The disk of the board fills up on the way; with more space the transfer goes on."""
    uploads = userland.root / UPLOADS
    uploads.mkdir(exist_ok=True)
    space = f"size={SMALL_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", space, "tmpfs", uploads], check=True)
    said = deliver(remote, fleet, 1).stderr.strip()
    report.check("full disk on the way", said, is_right="is full; make space there" in said)
    subprocess.run(["mount", "-o", "remount,size=200m", uploads], check=True)
    made = deliver(remote, fleet, 1)
    goes_on = [line for line in made.stderr.splitlines() if "going on after" in line]
    report.check("with space it goes on", goes_on or made.stderr,
                 is_right=made.returncode == 0 and bool(goes_on))  # fmt: skip
    subprocess.run(["umount", uploads], check=True)


def look_at_delivery(
    userland: Userland, report: Report, remote: Remote, fleet: Fleet, built: Path, version: int
) -> None:
    """Install over ssh what `ship deb` built, with a version of the model."""
    made = deliver(remote, fleet, version)
    report.say("\n" + (made.stdout + made.stderr).strip())
    found = userland.serving()
    report.check(f"ship ssh, model {version}", found,
                 is_right=found == version and made.returncode == 0)  # fmt: skip
    kept = userland.root / KEPT / built.name
    is_same = kept.is_file() and kept.read_bytes() == built.read_bytes()
    report.check("its bytes are those of ship deb", built.name, is_right=is_same)


def look_at_rollback(userland: Userland, report: Report, remote: Remote) -> None:
    """Take the package from before again."""
    now = userland.version()
    made = ship("ssh", HOST, *remote.words, "--rollback")
    before = userland.version()
    report.check("ship ssh --rollback", made.stdout.splitlines() or made.stderr,
                 is_right=made.returncode == 0 and before < now)  # fmt: skip
