"""Install, upgrade, remove and purge the package on Debian 12 and 13.

    python -m tests.deploy.debs [--arch amd64] [--release bookworm --release trixie]

Root only; needs mmdebstrap and lintian, and the first time a package server. Ends with 1 if
something is not as it should be.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.boot import payload
from tests.deploy import field, remote
from tests.deploy.parcel import DATE_S, TOP, Fleet, ship
from tests.deploy.report import Report
from tests.deploy.userland import ARCHS, PYTHONS, Userland

CONFIG = "etc/edge-gru/edge-gru.toml"
DATA = "var/lib/edge-gru/predictions.jsonl"
# Each with the highest score that systemd may give to its exposure.
UNITS = {
    "edge-gru": 3.0,
    "edge-gru-compile": 4.0,
    "edge-gru-setup": 4.0,
    "edge-gru-register": 4.0,
}
VENV_UNIT = "[Service]\nExecStart=/opt/edge-gru/venv/bin/edge-gru run\n"
MINE = 'bundle = "model.egb"\nport = "/dev/ttyTHS1"\nwait_for_port = true\n'
_SCORE = re.compile(r"exposure level for ([\w-]+)\.service: ([\d.]+)")
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


def install_first_release(userland: Userland) -> None:
    """Leave what an installation by hand of the first release has left."""
    userland.put(CONFIG, MINE)
    userland.put(DATA, "{}\n")
    userland.put("etc/systemd/system/edge-gru.service", VENV_UNIT)
    userland.put("opt/edge-gru/venv-1/bin/edge-gru", "#!/bin/sh\n")
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


def look_at_upgrades(userland: Userland, report: Report, first: Path, second: Path) -> None:
    """From an installation by hand to the package, to a newer one."""
    install_first_release(userland)
    dpkg(userland, report, "--install", first)
    version = userland.run("edge-gru", "--version").stdout.strip()
    report.check("starts", version, is_right=version.startswith("edge-gru, version"))
    gone = [p for p in ("etc/systemd/system/edge-gru.service", "opt/edge-gru/venv-1")
            if (userland.root / p).exists()]  # fmt: skip
    report.check("what was installed by hand is gone", gone or "yes", is_right=not gone)
    report.check(
        "model of the package serves", userland.serving(), is_right=userland.serving() == 1
    )
    dpkg(userland, report, "--install", second)
    kept = [(userland.root / path).read_text() for path in (CONFIG, DATA)]
    report.check("settings and data after it", kept, is_right=kept == [MINE, "{}\n"])
    report.check("so does the model", userland.serving(), is_right=userland.serving() == 1)
    before = userland.names()
    dpkg(userland, report, "--install", second)
    changed = sorted(n for n in before ^ userland.names() if "__pycache__" not in n)
    report.check("the same again changes", changed or "nothing", is_right=not changed)
    look_at_units(userland, report)
    enabled = userland.root / "etc/systemd/system/multi-user.target.wants/edge-gru.service"
    report.check("starts with the board", enabled.is_symlink(), is_right=enabled.is_symlink())


def look_at_units(userland: Userland, report: Report) -> None:
    """The systemd of the userland finds nothing wrong with the units, and little exposed."""
    units = [f"/usr/lib/systemd/system/{name}.service" for name in UNITS]
    told = userland.run("systemd-analyze", "verify", "--man=no", *units, check=False)
    said = (told.stdout + told.stderr).strip()
    report.check("systemd-analyze verify", said or "clean", is_right=not said)
    told = userland.run("systemd-analyze", "security", "--offline=yes", "--no-pager", *units)
    scores = dict(_SCORE.findall(told.stdout))
    high = [name for name, highest in UNITS.items() if float(scores[name]) > highest]
    report.check("systemd-analyze security", scores, is_right=not high)


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


@contextmanager
def linting(package: Path, report: Report) -> Iterator[None]:
    """Let lintian look at a package meanwhile: it finds no error."""
    command = ["lintian", "--allow-root", package]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as lintian:
        yield
        said = lintian.communicate()[0].strip()
    report.check("lintian", said or "clean", is_right="E: " not in said and not lintian.returncode)


def look_at_ssh(
    userland: Userland, report: Report, fleet: Fleet, folder: Path, debs: Sequence[Path]
) -> None:
    """From nothing, over ssh: the program, new models, a newer program, the way back."""
    first, second = debs
    with remote.ssh_server(userland, folder) as board:
        if not userland.is_emulated:  # once is enough
            remote.look_at_full_disk(userland, report, board, fleet)
        remote.look_at_delivery(userland, report, board, fleet, first, version=1)
        field.look_at_engines(userland, report)
        field.look_at_models(userland, report, board, fleet, folder)
        remote.look_at_delivery(userland, report, board, fleet, second, version=3)
        remote.look_at_rollback(userland, report, board)
    dpkg(userland, report, "--purge", "edge-gru")


def look_at_userland(userland: Userland, report: Report, fleet: Fleet, folder: Path) -> None:
    """Build packages for it, and do with them whatever an owner does."""
    debs = [build(fleet, folder, userland.release, userland.arch, version=v) for v in (1, 3)]
    with linting(debs[0], report), userland:
        look_at_ssh(userland, report, fleet, folder, debs)
        before = userland.names()
        look_at_upgrades(userland, report, *debs)
        look_at_removal(userland, report, before)


def main() -> None:
    """Go through the userlands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=TOP / "build/userlands")
    parser.add_argument("--arch", choices=ARCHS, action="append")
    parser.add_argument("--release", choices=PYTHONS, action="append")
    options = parser.parse_args()
    report = Report()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        fleet = Fleet.make(Path(made))
        for version in (1, 2, 3):
            fleet.sign(payload.model(version), version)
        for arch in options.arch or list(ARCHS):
            for release in options.release or list(PYTHONS):
                folder = Path(made) / f"{release}-{arch}"
                folder.mkdir()
                userland = Userland(options.folder, release, arch)
                look_at_userland(userland, report, fleet, folder)
    report.say(f"{report.n_wrong} of the checks are wrong")
    raise SystemExit(min(report.n_wrong, 1))


if __name__ == "__main__":
    main()
