"""Predictions and alerts on their way back to the board."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edge_gru.errors import ConfigError
from edge_gru.manifest import Alert
from edge_gru.service import open_sinks
from edge_gru.service.board_sink import BoardSink
from edge_gru.service.config import make_config, read_settings
from edge_gru.service.events import AlertEvent, PredictionEvent
from edge_gru.service.loop import Service
from edge_gru.service.stamp import Stamp
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator import ReplaySource, SimulatedBoard
from firmware_bridge.simulator.firmware import FramedFirmware

SETTINGS = {"port": "/dev/x", "bundle": "m.egb"}
ALWAYS = Alert("always", "y.y1", -2.0, -3.0)
NEVER = Alert("never", "y.y0", 2.0, 1.5)


class WayBack:
    def __init__(self):
        self.alarms = []

    def set_alarms(self, alarms):
        self.alarms.append(alarms)


def alert_event(name, *, active):
    stamp = Stamp("device", "main", lambda: 1.0).at(1.0)
    return AlertEvent(
        **stamp, name=name, on="y.a", active=active, value=1.0, threshold=0.5, sample_seq=3
    )


def test_alerts_are_bits_in_the_order_of_the_model():
    link = WayBack()
    sink = BoardSink(link, ["hot", "loud", "worn"])
    for name, active in [("loud", True), ("worn", True), ("loud", False), ("worn", False)]:
        sink.write(alert_event(name, active=active))
    assert link.alarms == [0b010, 0b110, 0b100, 0]


@pytest.fixture
def firmware(schema):
    return FramedFirmware(BoardSchema.of(schema))


@pytest.fixture
def board(schema, firmware):
    samples = np.random.default_rng(0).normal(size=(4000, 2)).astype(np.float32)
    with SimulatedBoard(ReplaySource(samples, schema), firmware=firmware) as made:
        yield made


def run_until(condition, board, bundle, sink, tmp_path):
    """Run a service on ``board`` until ``condition`` holds."""
    path = bundle.save(tmp_path / "model.egb")
    settings = {"bundle": str(path), "port": board.port, "outputs": ["board"]}
    service = Service(make_config(settings | {"engine": "reference"}), [sink])
    runner = threading.Thread(target=service.run)
    runner.start()
    deadline_s = time.monotonic() + 20
    try:
        while not condition():
            assert time.monotonic() < deadline_s
            threading.Event().wait(0.01)
    finally:
        service.stop()
        runner.join()


def test_the_board_gets_the_models_outputs_and_its_alarm(
    pack, schema, board, firmware, sink, tmp_path
):
    told = []

    def is_told():
        told.append((firmware.prediction, firmware.alarms))
        return firmware.alarms == 0b10 and firmware.prediction.seq > 20

    run_until(is_told, board, pack(schema, alerts=(NEVER, ALWAYS)), sink, tmp_path)
    got = told[-1][0]
    event = next(e for e in sink.of(PredictionEvent) if e.sample_seq == got.seq)
    assert np.frombuffer(got.values, "<f4").tolist() == list(event.y.values())


def test_the_alarms_of_an_earlier_run_are_cleared(pack, schema, board, firmware, sink, tmp_path):
    firmware.alarms = 0xFF
    run_until(lambda: firmware.alarms == 0, board, pack(schema), sink, tmp_path)


def test_the_output_board_needs_a_format_with_a_way_back():
    with pytest.raises(ConfigError, match="framed for the output board, got csv"):
        make_config(SETTINGS | {"outputs": ["board"], "format": "csv"})


def test_the_output_board_is_no_file(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('outputs = ["board", "x.jsonl"]\n')
    assert read_settings(file)["outputs"] == ["board", str(tmp_path / "x.jsonl")]
    assert open_sinks(["board"]) == []
