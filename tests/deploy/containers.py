"""Build the image that `ship container` makes, and run it as its compose.yaml says.

    python -m tests.deploy.containers [--arch amd64] [--release bookworm]

Root only; needs Debian's docker.io, docker-compose and mmdebstrap, and a package server. The daemon
is one of its own, and the image that it builds on is of Debian's packages. Ends with 1 if something
is not as it should be.
"""

from __future__ import annotations

import argparse
import grp
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.boot import payload
from tests.deploy.parcel import TOP, Fleet, ship, signature_of
from tests.deploy.report import Report
from tests.deploy.service import HEALTH, PORT, SETTINGS, Service, recording, simulation
from tests.deploy.userland import ARCHS, PYTHONS, bootstrap

STATE = "/var/lib/edge-gru"
VERSIONS = {"bookworm": "12", "trixie": "13"}
RIGHTS = r"id -un; sed -n 's/^CapEff:\t//p; s/^NoNewPrivs:\t//p' /proc/self/status; touch /x"
NO_RIGHTS = ["edge-gru", "0" * 16, "1", "touch: cannot touch '/x': Read-only file system"]
_SLOW_S = 120.0
_LOOK_S = 0.5


@dataclass(frozen=True)
class Docker:
    """A daemon, by its socket; it builds and runs for one architecture."""

    socket: Path
    arch: str

    def run(self, *words: object, check: bool = True) -> str:
        """Run a command of docker; return what it said."""
        return self._run(["docker", *map(str, words)], check=check)

    def compose(self, folder: Path, *words: str) -> str:
        """Run a command of docker compose, which some have as a program of its own."""
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        return self._run([*program, "--project-directory", str(folder), *words], folder)

    def _run(self, command: list[str], folder: Path | None = None, *, check: bool = True) -> str:
        settings = {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_DEFAULT_PLATFORM": f"linux/{self.arch}",
            "DOCKER_BUILDKIT": "0",  # the other builder is a package of its own
        }
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=folder,
            env=os.environ | settings,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return (done.stdout + done.stderr).strip()


@contextmanager
def daemon(folder: Path, arch: str) -> Iterator[Docker]:
    """Let a daemon run that keeps everything in a folder and touches no network of this machine."""
    socket = folder / "socket"
    command = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec"]
    command += ["--host", f"unix://{socket}", "--pidfile", folder / "pid"]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
    docker = Docker(socket, arch)
    try:
        _until(lambda: docker.run("version", check=False).count("Version:") > 1)
        yield docker
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["umount", "--quiet", folder / "exec/netns/default"], check=False)


@contextmanager
def plugged_in(folder: Path) -> Iterator[None]:
    """Let a simulated board have its name in /dev, and the rights that a serial port has."""
    table = folder / "recording.csv"
    table.write_text(recording())
    program = "from edge_gru.cli import main; main(prog_name='edge-gru')"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    board = subprocess.Popen([sys.executable, "-c", program, *simulation(str(table))], **quiet)
    try:
        _until(Path(PORT).exists)
        port = Path(PORT).resolve()
        os.chown(port, 0, grp.getgrnam("dialout").gr_gid)
        port.chmod(0o660)
        yield
    finally:
        board.terminate()
        board.wait()


def _until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _SLOW_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{is_so} does not come true in {_SLOW_S:g} s")
        time.sleep(_LOOK_S)


def build(docker: Docker, fleet: Fleet, options: argparse.Namespace, report: Report) -> Path:
    """Make the folder with `ship container` and an image of it; return the folder."""
    folder = fleet.folder / "image"
    base = options.folder / f"{options.release}-{docker.arch}-base.tar"
    bootstrap(base, options.release, docker.arch)
    docker.run("import", base, f"debian:{VERSIONS[options.release]}")
    (fleet.folder / "settings.toml").write_text(SETTINGS)
    words = ["container", "--python", PYTHONS[options.release], "--arch", ARCHS[docker.arch]]
    words += ["--bundle", fleet.folder / "model-1.egb", "--pubkey", fleet.public]
    made = ship(*words, "--config", fleet.folder / "settings.toml", "--out", folder)
    said = made.stdout.strip() or made.stderr
    report.check("ship container", said, is_right=made.returncode == 0)
    image = re.search(r"image: (\S+)", (folder / "compose.yaml").read_text())[1]
    docker.run("build", "--network", "host", "--tag", image, folder)
    report.check("built", docker.run("images", image), is_right=True)
    return folder


class Container:
    """The container of the one service in a folder's compose.yaml."""

    def __init__(self, docker: Docker, folder: Path) -> None:
        self._docker = docker
        self._folder = folder
        read = partial(self.execute, f"cat /{HEALTH}", check=False)
        self.service = Service(lambda: read().partition("cat:")[0], self.log)
        self._name = ""

    def up(self) -> None:
        """Make it, and start it."""
        self._docker.compose(self._folder, "up", "--no-build", "--detach")
        self._name = self._docker.compose(self._folder, "ps", "--quiet")

    def stop(self) -> None:
        """Stop it as an owner does."""
        self._docker.compose(self._folder, "stop")

    def execute(self, command: str, *, check: bool = True) -> str:
        """Run a command in it; return what it said."""
        return self._docker.run("exec", self._name, "sh", "-c", command, check=check)

    def log(self) -> str:
        """What it printed."""
        return self._docker.run("logs", self._name)

    def look(self, template: str) -> str:
        """Ask the daemon for a property of it."""
        return self._docker.run("inspect", "--format", template, self._name)

    def bring(self, bundle: Path) -> str:
        """Install a model, as deploy/README.md says."""
        for file in (bundle, signature_of(bundle)):
            self._docker.run("cp", file, f"{self._name}:{STATE}/{file.name}")
        return self.execute(f"edge-gru bundle install {STATE}/{bundle.name}", check=False)


def look_at_container(container: Container, report: Report, fleet: Fleet) -> None:
    """It predicts with no rights, takes a model, and gets over a pulled cable and a restart."""
    with plugged_in(fleet.folder):
        container.up()
        report.check("predictions", container.service.until_serving(1), is_right=True)
        rights = container.execute(RIGHTS, check=False)
        report.check("its rights", rights.splitlines(), is_right=rights.splitlines() == NO_RIGHTS)
        _until(lambda: container.look("{{.State.Health.Status}}") != "starting")
        found = container.look("{{.State.Health.Status}}")
        report.check("health check", found, is_right=found == "healthy")
        said = container.bring(fleet.folder / "model-2.egb")
        report.check("newer model", said, is_right="version 2 serves from now on" in said)
        container.service.until_serving(2)
        said = container.bring(fleet.folder / "model-1.egb")
        report.check("older model", said, is_right="is older than version 2" in said)
    _until(lambda: container.service.health()["state"] != "predicting")
    with plugged_in(fleet.folder):
        n_after = container.service.until_serving(2)
        report.check("pulled out and plugged in, predictions", n_after, is_right=True)
        begun_s = time.monotonic()
        container.stop()
        took_s = time.monotonic() - begun_s
        code = container.look("{{.State.ExitCode}}")
        report.check(f"stopped in {took_s:.1f} s, code", code, is_right=code == "0")
        container.up()
        n_again = container.service.until_serving(2)
        report.check("started again, predictions", n_again, is_right=True)


def main() -> None:
    """Build, run, take away."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=TOP / "build/userlands")
    parser.add_argument("--arch", choices=ARCHS, default="amd64")
    parser.add_argument("--release", choices=PYTHONS, default="bookworm")
    options = parser.parse_args()
    report = Report()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        fleet = Fleet.make(Path(made))
        for version in (1, 2):
            fleet.sign(payload.model(version), version)
        with daemon(Path(made), options.arch) as docker:
            folder = build(docker, fleet, options, report)
            container = Container(docker, folder)
            try:
                look_at_container(container, report, fleet)
            finally:
                docker.compose(folder, "down", "--rmi", "all", "--volumes")
            left = docker.run("ps", "--all", "--quiet") + docker.run("volume", "ls", "--quiet")
            report.check("down leaves", left or "nothing", is_right=not left)
    report.say(f"{report.n_wrong} of the checks are wrong")
    raise SystemExit(min(report.n_wrong, 1))


if __name__ == "__main__":
    main()
