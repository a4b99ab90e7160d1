"""Install, upgrade, remove and purge the package on Debian 12 and 13.

    python -m tests.deploy.debs [--arch amd64] [--release bookworm --release trixie]

Root only; needs mmdebstrap and lintian, and the first time a package server. Ends with 1 if
something is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.boot import payload
from tests.deploy.parcel import DATE_S, TOP, Fleet, ship
from tests.deploy.report import Report
from tests.deploy.userland import PYTHONS, Userland

ARCHS = {"amd64": "x86_64", "arm64": "aarch64"}
SSH_PORT = 42022
CONFIG = "etc/edge-gru/edge-gru.toml"
DATA = "var/lib/edge-gru/predictions.jsonl"
UNITS = ("edge-gru", "edge-gru-setup", "edge-gru-compile", "edge-gru-register")
VENV_UNIT = "[Service]\nExecStart=/opt/edge-gru/venv/bin/edge-gru run\n"
MINE = 'bundle = "model.egb"\nport = "/dev/ttyTHS1"\nwait_for_port = true\n'
# What dpkg, systemd-sysusers and py3compile keep for themselves.
_NOT_OURS = ("var/lib/dpkg/", "var/log/", "var/cache/", "etc/passwd", "etc/group", "etc/shadow",
             "etc/gshadow", "etc/.pwd.lock", "var/lib/systemd", "etc/subuid",
             "etc/subgid")  # fmt: skip


def build(fleet: Fleet, folder: Path, release: str, arch: str, *, version: int) -> Path:
    """Write the package with one version of the model in it."""
    bundle = fleet.folder / f"model-{version}.egb"
    words = ["deb", "--python", PYTHONS[release], "--arch", ARCHS[arch], "--out", folder]
    words += ["--bundle", bundle, "--pubkey", fleet.public]
    made = ship(*words, date_s=DATE_S + version * 60)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return Path(made.stdout.split(":")[0])


def put(userland: Userland, path: str, text: str) -> None:
    """Write a file into a userland."""
    place = userland.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def install_first_release(userland: Userland) -> None:
    """Leave what an installation by hand of the first release has left."""
    put(userland, CONFIG, MINE)
    put(userland, DATA, "{}\n")
    put(userland, "etc/systemd/system/edge-gru.service", VENV_UNIT)
    put(userland, "opt/edge-gru/venv-1/bin/edge-gru", "#!/bin/sh\n")
    (userland.root / "opt/edge-gru/venv").symlink_to("venv-1")
    (userland.root / "usr/local/bin/edge-gru").symlink_to("/opt/edge-gru/venv/bin/edge-gru")


def dpkg(userland: Userland, report: Report, action: str, *packages: Path | str) -> str:
    """Let the dpkg of a userland do something; return what it said."""
    words = []
    for package in packages:
        if isinstance(package, Path):
            shutil.copy(package, userland.root / "tmp")
            words.append(f"/tmp/{package.name}")
        else:
            words.append(package)
    done = userland.run("dpkg", action, *words, check=False)
    said = done.stdout + done.stderr
    names = " ".join(Path(word).name for word in words)
    last = said.strip().splitlines()[-1] if done.returncode else "0"
    report.check(f"{userland.release} {userland.arch}: dpkg {action} {names}", last,
                 is_right=done.returncode == 0)  # fmt: skip
    return said


def serving(userland: Userland) -> int:
    """Tell which version of the model serves."""
    ledger = json.loads(userland.run("edge-gru", "bundle", "list", "--json").stdout)
    return ledger["entries"][ledger["current"]]["version"]


def look_at_upgrades(userland: Userland, report: Report, first: Path, second: Path) -> None:
    """From an installation by hand to the package, to a newer one."""
    install_first_release(userland)
    dpkg(userland, report, "--install", first)
    version = userland.run("edge-gru", "--version").stdout.strip()
    report.check("starts", version, is_right=version.startswith("edge-gru, version"))
    gone = [p for p in ("etc/systemd/system/edge-gru.service", "opt/edge-gru/venv-1")
            if (userland.root / p).exists()]  # fmt: skip
    report.check("what was installed by hand is gone", gone or "yes", is_right=not gone)
    report.check("model of the package serves", serving(userland), is_right=serving(userland) == 1)
    dpkg(userland, report, "--install", second)
    kept = [(userland.root / path).read_text() for path in (CONFIG, DATA)]
    report.check("settings and data after it", kept, is_right=kept == [MINE, "{}\n"])
    report.check("so does the model", serving(userland), is_right=serving(userland) == 1)
    before = userland.names()
    dpkg(userland, report, "--install", second)
    changed = sorted(n for n in before ^ userland.names() if "__pycache__" not in n)
    report.check("the same again changes", changed or "nothing", is_right=not changed)
    units = [f"/usr/lib/systemd/system/{name}.service" for name in UNITS]
    told = userland.run("systemd-analyze", "verify", "--man=no", *units, check=False)
    said = (told.stdout + told.stderr).strip()
    report.check("systemd-analyze verify", said or "clean", is_right=not said)
    enabled = userland.root / "etc/systemd/system/multi-user.target.wants/edge-gru.service"
    report.check("starts with the board", enabled.is_symlink(), is_right=enabled.is_symlink())


@contextmanager
def ssh_server(userland: Userland, folder: Path) -> Iterator[list[object]]:
    """Let the userland's own sshd listen; yield the options that reach it."""
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    put(userland, "root/.ssh/authorized_keys", key.with_suffix(".pub").read_text())
    userland.run("ssh-keygen", "-A")
    userland.run("mkdir", "-p", "/run/sshd")
    host_key = (userland.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (folder / "known").write_text(f"[localhost]:{SSH_PORT} {host_key}")
    settings = ["-p", SSH_PORT, "-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no"]
    settings += ["-o", "StrictModes=no", "-o", "PermitRootLogin=yes"]
    command = ["chroot", userland.root, "/usr/sbin/sshd", "-D", "-e", *settings]
    daemon = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    options = [f"Port={SSH_PORT}", f"IdentityFile={key}", f"UserKnownHostsFile={folder / 'known'}",
               "BatchMode=yes", "AddressFamily=inet", "ConnectionAttempts=20"]  # fmt: skip
    try:
        yield [word for option in options for word in ("-o", option)]
    finally:
        daemon.terminate()
        daemon.wait()


def look_at_ssh(userland: Userland, report: Report, fleet: Fleet, folder: Path) -> None:
    """Install, update and roll back over ssh; the model follows the package, not its rollback."""
    with ssh_server(userland, folder) as options:
        for version in (1, 2):
            words = ["ssh", "root@localhost", *options, "--pubkey", fleet.public]
            words += ["--bundle", fleet.folder / f"model-{version}.egb"]
            made = ship(*words, date_s=DATE_S + version * 60)
            report.say("\n" + (made.stdout + made.stderr).strip())
            found = serving(userland)
            report.check(f"ship ssh, model {version}", found,
                         is_right=found == version and made.returncode == 0)  # fmt: skip
        now = userland.run("dpkg-query", "-W", "-f", "${Version}", "edge-gru").stdout
        made = ship("ssh", "root@localhost", *options, "--rollback")
        before = userland.run("dpkg-query", "-W", "-f", "${Version}", "edge-gru").stdout
        report.check("ship ssh --rollback", made.stdout.splitlines() or made.stderr,
                     is_right=made.returncode == 0 and before < now)  # fmt: skip
    dpkg(userland, report, "--purge", "edge-gru")


def look_at_removal(userland: Userland, report: Report, before: set[str]) -> None:
    """Remove keeps settings and data, purge nothing."""
    dpkg(userland, report, "--remove", "edge-gru")
    kept = [path for path in (CONFIG, DATA) if (userland.root / path).exists()]
    report.check("remove keeps", " ".join(kept), is_right=kept == [CONFIG, DATA])
    dpkg(userland, report, "--purge", "edge-gru")
    left = sorted(n for n in userland.names() - before if not n.startswith(_NOT_OURS))
    report.check("purge leaves", left or "nothing", is_right=not left)
    lost = sorted(n for n in before - userland.names() if not n.startswith(_NOT_OURS))
    report.check("and takes nothing else away", lost or "nothing", is_right=not lost)


def look_at_package(package: Path, again: Path, report: Report) -> None:
    """Two builds are the same, and lintian finds no error."""
    same = package.read_bytes() == again.read_bytes()
    report.check("a second build has the same bytes", package.stat().st_size, is_right=same)
    told = subprocess.run(
        ["lintian", "--allow-root", str(package)], check=False, capture_output=True, text=True
    )
    report.check("lintian", told.stdout.strip() or "clean", is_right="E: " not in told.stdout)


def main() -> None:
    """Go through the userlands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=TOP / "build/userlands")
    parser.add_argument("--arch", choices=ARCHS, action="append")
    parser.add_argument("--release", choices=PYTHONS, action="append")
    parser.add_argument("--ssh", action="store_true", help="First over ssh, too.")
    options = parser.parse_args()
    report = Report()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        fleet = Fleet.make(Path(made))
        for version in (1, 2):
            fleet.sign(payload.model(version), version)
        for arch in options.arch or ["amd64"]:
            for release in options.release or list(PYTHONS):
                first, second, again = (
                    build(fleet, Path(made) / f"{release}-{n}", release, arch, version=v)
                    for n, v in enumerate((1, 2, 2))
                )
                look_at_package(second, again, report)
                with Userland(options.folder, release, arch) as userland:
                    if options.ssh:
                        look_at_ssh(userland, report, fleet, Path(made))
                    before = userland.names()
                    look_at_upgrades(userland, report, first, second)
                    look_at_removal(userland, report, before)
    report.say(f"{report.n_wrong} of the checks are wrong")
    raise SystemExit(min(report.n_wrong, 1))


if __name__ == "__main__":
    main()
