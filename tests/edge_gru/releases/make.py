"""Freeze the files that a release leaves on a device, for later releases to read.

    python -m tests.edge_gru.releases.make

Run it once, as a release is made: the file is named after it, and is not written again. The keys in
it sign nothing but these models.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path

from edge_gru.bundle import Bundle
from edge_gru.service.events import LinkEvent, ModelEvent
from edge_gru.service.health import HealthFile
from edge_gru.service.models import BundleStatus
from edge_gru.service.stamp import Stamp
from edge_gru.service.statistics import Latency, LatencyHistogram, Summary
from edge_gru.signing import Release, SecretKey, sign
from edge_gru.store import Store, TrialPlan, read_signed
from edge_gru.version import __version__
from firmware_bridge.sample import Schema
from tests.edge_gru.conftest import pack_gru

FOLDER = Path(__file__).parent
SCHEMA = Schema.of([("vibration", "g"), ("current", "A")], rate_hz=200.0)
STAMP = Stamp("press-4", "main", lambda: 1.0)

SETTINGS = """\
store = "/var/lib/edge-gru/bundles"
trial_p99_us = 5000.0
port = "/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A900WXPC-if00-port0"
wait_for_port = true
format = "framed"
baud = 921600
stop_bits = 2
rate_hz = 200.0
engine = "auto"
max_missing = 3
max_gap_s = 0.25
bad_values = "hold"
stuck_s = 5.0
alerts = false
outputs = ["-", "/var/lib/edge-gru/predictions.jsonl", "board"]
device = "press-4"
stream = "main"
flush_s = 0.5
health_s = 30.0
"""
DEPLOY = """\
bundle = "pump.egb"
pubkeys = ["fleet.pub"]
config = "edge-gru.toml"
boards = ["press-4"]

[sensors]
A900WXPC = "edge-gru-sensor"
"""


def release(folder: Path, key: SecretKey, version: int) -> Path:
    """Sign version n of a small model; other versions have other weights."""
    bundle: Bundle = pack_gru(SCHEMA, seed=version)
    file = bundle.save(folder / f"tiny-{version}.egb")
    comment = Release("tiny", version, ("any",), 1_767_225_600).to_comment(file.name)
    text = sign(file.read_bytes(), key, comment).to_text()
    file.with_name(f"{file.name}.minisig").write_text(text)
    return file


def fill(device: Path, fleet: Path) -> None:
    """Leave what a device has on which one model is proven, one failed, and one is on trial."""
    key = SecretKey.generate()
    for folder in ("etc/edge-gru/keys", "var/lib/edge-gru", "run/edge-gru"):
        (device / folder).mkdir(parents=True)
    (device / "etc/edge-gru/keys/fleet.pub").write_text(key.public.to_text())
    (device / "etc/edge-gru/edge-gru.toml").write_text(SETTINGS)
    (device / "var/lib/edge-gru/predictions.jsonl").write_text('{"kind":"prediction"}\n')
    (fleet / "fleet.key").write_text(key.to_text())
    (fleet / "deploy.toml").write_text(DEPLOY)
    store = Store(device / "var/lib/edge-gru/bundles")
    for version in (1, 2, 3):
        file = release(fleet, key, version)
        store.install(read_signed(file, keys=[key.public], boards=["press-4"]), TrialPlan(600.0, 5))
        if version == 2:
            store.rollback("its p99 is 9000 us, over the limit of 5000 us")
            continue
        store.begin()
        file.unlink()  # the device has it
        file.with_name(f"{file.name}.minisig").unlink()
    store.note_served(store.current().folder, 30.0)
    write_health(device / "run/edge-gru/health.json", store.current().folder)


def write_health(path: Path, folder: str) -> None:
    """Write the health file of a service that predicts."""
    health = HealthFile(path, device="press-4", stream="main", clock=lambda: 1.0)
    model = {"model": "tiny", "model_hash": "a" * 64, "engine": "native-int8", "labels": ()}
    golden = {"golden_step_error": 0.0, "golden_sqnr_db": None}
    health.write(ModelEvent(**STAMP.at(1.0), **model, outputs=("y0",), n_warmup=3, **golden))
    health.write(LinkEvent(**STAMP.at(1.0), up=True, port="/dev/ttyUSB0"))
    nothing = dict.fromkeys(Summary.__struct_fields__, 0)
    kinds = {"saturated": {"current": 2}, "outside": {}, "stuck": (), "link": {"lost_samples": 0}}
    latency = Latency.of(LatencyHistogram())
    counts = Summary(
        **{**nothing, "model": "tiny", "engine": "native-int8", **kinds, "latency": latency}
    )
    health.look(2.0, counts, BundleStatus(folder, 3, 600.0, 30.0, 4))
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, "boot": "another boot", "pid": 1}, indent=1))


def frozen(folder: Path) -> dict[str, dict[str, str]]:
    """Write a folder down: text as it is, the rest in base64, links by where they lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = {"link": str(path.readlink())}
        elif path.is_file() and path.name not in ("lock", ".reserve"):
            try:
                found[name] = {"text": path.read_text(encoding="utf-8")}
            except UnicodeDecodeError:
                found[name] = {"base64": base64.b64encode(path.read_bytes()).decode()}
    return found


def main() -> None:
    """Write the file of this release."""
    place = FOLDER / f"{__version__}.json"
    with tempfile.TemporaryDirectory() as made:
        device, fleet = Path(made) / "device", Path(made) / "fleet"
        fleet.mkdir()
        fill(device, fleet)
        text = json.dumps({"device": frozen(device), "fleet": frozen(fleet)}, indent=1)
    with place.open("x", encoding="utf-8") as file:
        file.write(f"{text}\n")


if __name__ == "__main__":
    main()
