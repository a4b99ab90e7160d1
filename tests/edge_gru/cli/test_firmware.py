from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time

import pytest

from edge_gru.manifest import Alert
from edge_gru.service import Service, make_config
from firmware_bridge.simulator import QemuBoard

SCHEMA = 'dtype = "<i2"\nrate_hz = [50.0]\nchannels = [{ name = "vibration", scale = 0.001 }]\n'
LEDS = 0x40028000  # of the board that the example is for


def test_the_header_has_the_channels_outputs_and_alerts_of_the_model(call, bundle_path, tmp_path):
    folder = tmp_path / "pump_board"
    result = call("firmware", bundle_path, folder)
    assert result.exit_code == 0
    names = {"edge_link.c", "edge_link.h", "pump_board.ino", "schema.h"}
    assert result.stdout.split() == sorted(str(folder / name) for name in names)
    header = (folder / "schema.h").read_text()
    for line in (
        "EDGE_LINK_CHANNEL_VIBRATION = 0,",
        "EDGE_LINK_CHANNEL_CURRENT = 1,",
        "typedef float edge_link_raw_value;",
        "EDGE_LINK_OUTPUT_Y3 = 3,",
        "#define EDGE_LINK_ALARM_HIGH (1ul << 0)",
        "tiny.egb",
    ):
        assert line in header


def test_a_schema_in_toml_will_do(call, tmp_path):
    (tmp_path / "board.toml").write_text(SCHEMA)
    result = call("firmware", tmp_path / "board.toml", tmp_path / "b", "--example=none", "--json")
    report = json.loads(result.stdout)
    assert report["files"] == ["edge_link.c", "edge_link.h", "schema.h"]
    assert "typedef int16_t edge_link_raw_value;" in (tmp_path / "b" / "schema.h").read_text()


def test_an_edited_file_is_not_replaced_unless_told_to(call, tmp_path):
    (tmp_path / "board.toml").write_text(SCHEMA)
    arguments = ("firmware", tmp_path / "board.toml", tmp_path / "b")
    assert call(*arguments).exit_code == 0
    assert call(*arguments).exit_code == 0
    (tmp_path / "b" / "b.ino").write_text("mine")
    (tmp_path / "b" / "schema.h").unlink()
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert "b.ino exists and is another" in refused.stderr
    assert not (tmp_path / "b" / "schema.h").exists()
    assert call(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "b" / "b.ino").read_text() != "mine"


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("channels = 3", [], "expected a schema in TOML"),
        (None, [], "cannot read"),
        (SCHEMA, ["--example", "mbed"], "got 'mbed'"),
    ],
)
def test_a_wrong_call_is_one_sentence(call, tmp_path, text, options, sentence):
    if text is not None:
        (tmp_path / "board.toml").write_text(text)
    result = call("firmware", tmp_path / "board.toml", tmp_path / "b", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_a_board_built_for_a_model_streams_to_it_and_shows_its_alert(call, pack, schema, tmp_path):
    for tool in ("arm-none-eabi-gcc", "qemu-system-arm", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    alert = Alert("always", "y.y1", -2.0, -3.0)
    bundle_path = pack(schema, alerts=(alert,)).save(tmp_path / "model.egb")
    folder = tmp_path / "board"
    assert call("firmware", bundle_path, folder, "--example", "qemu").exit_code == 0
    subprocess.run(["make", "-s", "-C", str(folder)], check=True)
    with QemuBoard(folder / "board.elf") as board:
        settings = {"bundle": str(bundle_path), "port": board.port, "outputs": ["board"]}
        service = Service(make_config(settings | {"engine": "reference"}), [])
        summaries = []
        runner = threading.Thread(target=lambda: summaries.append(service.run()))
        runner.start()
        deadline_s = time.monotonic() + 30
        while not board.read_word(LEDS) & 1 and runner.is_alive():
            assert time.monotonic() < deadline_s
        service.stop()
        runner.join()
    (summary,) = summaries
    assert summary.n_predictions > 0
    assert summary.n_alerts == 1
    assert summary.lost_samples == summary.frames_bad == 0
