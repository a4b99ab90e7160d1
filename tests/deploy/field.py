"""A service in a userland, and its owner at the other end of ssh, who brings it models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.boot import payload
from tests.deploy.parcel import Fleet, signature_of
from tests.deploy.remote import Remote
from tests.deploy.report import Report
from tests.deploy.service import HEALTH, SETTINGS, Service, recording, simulation
from tests.deploy.userland import Userland

ENGINES = {"reference", "native", "onnxruntime"}
# As systemd gives them to the unit.
ENVIRONMENT = {
    "RUNTIME_DIRECTORY": "/run/edge-gru",
    "CACHE_DIRECTORY": "/var/cache/edge-gru",
    "XDG_CACHE_HOME": "/var/cache/edge-gru",
}
RECORDING = "tmp/recording.csv"


@dataclass(frozen=True)
class Refusal:
    """A model that must not get in: what is wrong with it, its files, and what is said of it."""

    what: str
    bundle: Path
    signature: Path | None
    sentence: str


@contextmanager
def serving(userland: Userland) -> Iterator[Service]:
    """Let the service run as its unit would let it, on a simulated board."""
    userland.put(RECORDING, recording())
    userland.put("etc/edge-gru/edge-gru.toml", SETTINGS)
    for folder in (ENVIRONMENT["RUNTIME_DIRECTORY"], ENVIRONMENT["CACHE_DIRECTORY"]):
        userland.run("install", "-d", "-o", "edge-gru", "-g", "edge-gru", folder)
    health = userland.root / HEALTH
    board = ["edge-gru", *simulation(f"/{RECORDING}")]
    service = ["edge-gru", "run", "/etc/edge-gru/edge-gru.toml"]
    with (
        userland.running(*board),
        userland.running(*service, user="edge-gru", environment=ENVIRONMENT) as log,
    ):
        yield Service(lambda: health.read_text() if health.exists() else "", log.read_text)


def refusals(fleet: Fleet, folder: Path) -> list[Refusal]:
    """Make one model of each kind that must not get in where version 2 serves."""
    folder.mkdir(exist_ok=True)
    good, older = fleet.folder / "model-3.egb", fleet.folder / "model-1.egb"
    tampered = folder / "tampered.egb"
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    tampered.write_bytes(data)
    foreign = Fleet.make(folder).sign(payload.model(4), 4)
    elsewhere = fleet.sign(payload.model(5), 5, boards=("nvidia-p3767-0005",))
    return [
        Refusal("tampered", tampered, signature_of(good), "the file was changed after signing"),
        Refusal("unsigned", good, None, "is not signed"),
        Refusal("a stranger's", foreign, signature_of(foreign), "which is not trusted here"),
        Refusal("older", older, signature_of(older), "is older than version 2"),
        Refusal("another board's", elsewhere, signature_of(elsewhere), "is for nvidia-p3767-0005"),
    ]


def look_at_engines(userland: Userland, report: Report) -> None:
    """Every engine of the package reproduces the golden vectors on this Python and processor."""
    told = userland.run("edge-gru", "verify", "--json", "/usr/share/edge-gru/factory/model.egb")
    rows = [row for row in json.loads(told.stdout)["results"] if row["golden"]]
    found = sorted(f"{row['engine']} {row['precision']}: {row['verdict']}" for row in rows)
    passed = {row["engine"] for row in rows if row["verdict"] == "pass"}
    report.check("golden vectors", ", ".join(found), is_right=passed >= ENGINES)


def bring(remote: Remote, folder: Path, bundle: Path, signature: Path | None) -> str:
    """Copy a model and its signature to a board and install it, as deploy/README.md says."""
    sent = folder / "pump.egb"
    shutil.copy(bundle, sent)
    files = [sent]
    if signature is not None:
        shutil.copy(signature, signature_of(sent))
        files.append(signature_of(sent))
    remote.run("rm -f pump.egb pump.egb.minisig")
    remote.copy(files)
    return remote.run("edge-gru bundle install pump.egb")


def look_at_models(
    userland: Userland, report: Report, remote: Remote, fleet: Fleet, folder: Path
) -> None:
    """A new model over ssh while the old one predicts, then those that must not; and back."""
    newer = fleet.folder / "model-2.egb"
    with serving(userland) as service:
        report.check("predictions with version 1", service.until_serving(1), is_right=True)
        said = bring(remote, folder, newer, signature_of(newer))
        report.check("newer", said, is_right="version 2 serves from now on" in said)
        n_before = service.until_serving(2)
        for refusal in refusals(fleet, folder / "spoilt"):
            said = bring(remote, folder, refusal.bundle, refusal.signature)
            n_after = service.until_serving(2)
            report.check(f"{refusal.what}, while version 2 predicts", said,
                         is_right=refusal.sentence in said and n_after > n_before)  # fmt: skip
            n_before = n_after
        look_at_losses(service, report)
        said = remote.run("edge-gru bundle rollback")
        service.until_serving(1)
        report.check("rollback", said, is_right="version 1 serves again" in said)
        screen = remote.run("edge-gru status")
        report.check("edge-gru status", f"\n{screen}", is_right="predicting" in screen)
        look_at_losses(service, report)


def look_at_losses(service: Service, report: Report) -> None:
    """No sample was lost since the model began to serve."""
    health = service.health()
    summary = health["summary"]
    n_lost = summary["lost_samples"] + summary["overrun_samples"]
    found = f"{n_lost} lost of {summary['n_predictions']}"
    report.check(f"version {health['bundle']['version']}", found, is_right=n_lost == 0)
