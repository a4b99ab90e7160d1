"""What the guest is given: the package, a model, settings; and its board's firmware."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np

from edge_gru.bundle import Bundle
from edge_gru.manifest import Alert
from firmware_bridge.firmware import project_files, schema_header
from firmware_bridge.protocol.board_schema import BoardSchema, RateRange
from firmware_bridge.sample import Schema
from tests.deploy.parcel import ship

CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz", "temperature", "supply")
RATE_HZ = 20.0  # of the model; an emulated machine on one core predicts some 30 times a second
SERIAL_NUMBER = "EDGE0001"
SENSOR = "/dev/edge-gru-sensor"
ALWAYS = Alert("always", "y0", enter=-2.0, exit=-3.0)  # a GRU's output is above -1

SETTINGS = f"""bundle = "model.egb"
port = "{SENSOR}"
baud = 921600
wait_for_port = true
engine = "onnxruntime"
outputs = ["-", "board"]
"""
RULE = (
    f'SUBSYSTEM=="tty", ENV{{ID_SERIAL_SHORT}}=="{SERIAL_NUMBER}", '
    'ENV{ID_MM_DEVICE_IGNORE}="1", SYMLINK+="edge-gru-sensor"\n'
)


def package(folder: Path, python: str) -> Path:
    """Build the Debian package for the guest."""
    made = ship("deb", "--python", python, "--out", folder)
    if made.returncode:
        raise OSError(made.stderr)
    return Path(made.stdout.split(":")[0])


def model(seed: int = 0) -> Bundle:
    """Make a small GRU over the board's channels, with an alert that is always active."""
    import torch  # noqa: PLC0415 - seconds, and the guest has none

    from quantization import quantize  # noqa: PLC0415 - imports torch

    torch.manual_seed(seed)
    network = torch.nn.GRU(len(CHANNELS), 4, batch_first=True)
    calibration = np.random.default_rng(0).normal(size=(4, 400, len(CHANNELS)))
    schema = Schema.of(CHANNELS, RATE_HZ)
    return quantize(network, list(calibration), schema=schema, name="boot", alerts=[ALWAYS])


def firmware(folder: Path) -> Path:
    """Build the example firmware for these channels, at any rate up to 1 kHz; return the ELF."""
    board = BoardSchema.of(Schema.of(CHANNELS, RATE_HZ), "<i2", 1 / 16384, device="sensor")
    board = msgspec.structs.replace(board, rate_hz=RateRange(1.0, 1000.0))
    header = schema_header(board, outputs=["y0"], alarms=[ALWAYS.name])
    folder.mkdir()
    for name, content in project_files("qemu", header, "board").items():
        (folder / name).write_bytes(content)
    subprocess.run(["make", "-s", "-C", folder], check=True)
    return folder / "board.elf"


def fill(folder: Path, package_file: Path) -> None:
    """Put everything that is copied to a board into ``folder``."""
    shutil.copy(package_file, folder / "edge-gru.deb")
    model().save(folder / "model.egb")
    (folder / "edge-gru.toml").write_text(SETTINGS)
    (folder / "62-edge-gru-sensor.rules").write_text(RULE)
    for script in ("steady.py", "watch_link.py"):
        shutil.copy(Path(__file__).parent / script, folder)
