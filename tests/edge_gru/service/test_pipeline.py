from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest

from edge_gru.bundle import Bundle
from edge_gru.engines.select import open_proven
from edge_gru.errors import ConfigError
from edge_gru.manifest import Alert, GateResult, InputRange
from edge_gru.service.config import make_config
from edge_gru.service.events import (
    AlertEvent,
    EpochEvent,
    GapEvent,
    HealthEvent,
    LinkEvent,
    ModelEvent,
    PredictionEvent,
    encode_line,
)
from edge_gru.service.pipeline import Pipeline
from firmware_bridge.link import LinkStatistics
from firmware_bridge.sample import EpochChanged, Gap, LinkDown, LinkUp, Schema


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make_pipeline(bundle: Bundle, sink, clock: Callable[[], float] | None = None, **settings):
    config = make_config({"bundle": "b", "port": "/dev/x", "device": "d", **settings})
    engine, golden = open_proven("reference", bundle.source)
    return Pipeline(config, engine, golden, emit=sink.write, clock=clock or Clock())


def predicted(sink) -> np.ndarray:
    return np.array([list(event.y.values()) for event in sink.of(PredictionEvent)], np.float32)


def expected(bundle: Bundle, values: np.ndarray) -> np.ndarray:
    with bundle.open("reference") as engine:
        return np.stack([engine.step(row) for row in values])


def test_every_sample_becomes_the_engines_prediction(bundle, sink, block):
    pipeline = make_pipeline(bundle, sink)
    for first, n in ((0, 5), (5, 1), (6, 14)):
        pipeline.process(block(first, n))
    np.testing.assert_array_equal(predicted(sink), expected(bundle, block(0, 20).values))
    events = sink.of(PredictionEvent)
    assert [event.sample_seq for event in events] == list(range(20))
    assert [event.n_steps for event in events] == list(range(1, 21))
    assert [event.warming_up for event in events] == [True] * 3 + [False] * 17
    assert [event.status for event in events] == ["warmup"] * 3 + ["ok"] * 17


def test_prediction_says_whose_it_is_and_what_made_it(bundle, sink, block):
    clock = Clock()
    pipeline = make_pipeline(bundle, sink, clock, stream="spindle")
    samples = block(0, 1)
    clock.now_s = samples.read_s + 0.0005
    pipeline.process(samples, n_dropped=7)
    (event,) = sink.events
    assert (event.v, event.device, event.stream, event.seq) == (1, "d", "spindle", 0)
    assert (event.model, event.model_hash) == ("tiny", bundle.hash)
    assert event.engine == "reference-fp32"
    assert event.latency_us == pytest.approx(500, abs=0.1)
    assert event.mono_ns == 100_000_000_000
    assert event.n_dropped == 7
    assert not event.historical
    assert event.label is None
    assert list(event.y) == list(bundle.manifest.outputs)


def test_wall_time_is_that_of_the_sampling_instant(bundle, sink, block):
    clock = Clock()
    samples = block(0, 2)
    clock.now_s = samples.read_s + 60.0  # read a minute late
    pipeline = make_pipeline(bundle, sink, clock)
    before_s = time.time()
    pipeline.process(samples)
    first, second = sink.events
    assert before_s - 61 < first.wall.timestamp() < time.time() - 59
    assert (second.wall - first.wall).total_seconds() == pytest.approx(0.005, abs=1e-5)


def test_events_of_all_kinds_are_numbered_together(bundle, sink, block):
    pipeline = make_pipeline(bundle, sink)
    pipeline.start()
    pipeline.process(LinkUp(1.0, "/dev/x", bundle.manifest.schema))
    pipeline.process(block(0, 2))
    pipeline.process(Gap(1.0, 2))
    pipeline.process(EpochChanged(1.0, 5, "restarted"))
    pipeline.process(LinkDown(1.0, "unplugged"))
    pipeline.report(pipeline.summary(LinkStatistics()), final=True)
    assert [event.seq for event in sink.events] == list(range(8))
    assert len({(event.boot, event.run) for event in sink.events}) == 1
    kinds = [ModelEvent, LinkEvent, PredictionEvent, PredictionEvent]
    kinds += [GapEvent, EpochEvent, LinkEvent, HealthEvent]
    assert [type(event) for event in sink.events] == kinds
    assert sink.events[1].channels == ("vibration", "current")
    assert (sink.events[4].n_missing, sink.events[5].epoch) == (2, 5)
    assert (sink.events[6].up, sink.events[6].reason) == (False, "unplugged")


@pytest.mark.parametrize(
    ("n_missing", "n_steps"), [(3, [1, 2, 3, 4]), (4, [1, 2, 1, 2])], ids=["held", "cleared"]
)
def test_gap_policy_decides_on_the_state(bundle, sink, block, n_missing, n_steps):
    pipeline = make_pipeline(bundle, sink)
    pipeline.process(block(0, 2))
    pipeline.process(Gap(1.0, n_missing))
    pipeline.process(block(2 + n_missing, 2))
    assert [event.n_steps for event in sink.of(PredictionEvent)] == n_steps


@pytest.mark.parametrize(
    "event",
    [EpochChanged(1.0, 2, "restarted"), LinkUp(1.0, "/dev/x", Schema.unnamed(2))],
    ids=["epoch", "link"],
)
def test_new_stream_clears_the_state(bundle, sink, block, event):
    pipeline = make_pipeline(bundle, sink)
    pipeline.process(block(0, 2))
    pipeline.process(event)
    pipeline.process(block(2, 2))
    assert [event.n_steps for event in sink.of(PredictionEvent)] == [1, 2, 1, 2]


def test_sample_that_is_not_finite_is_counted_and_not_predicted(bundle, sink, block):
    pipeline = make_pipeline(bundle, sink)
    samples = block(0, 3)
    samples.values[1, 0] = np.nan
    pipeline.process(samples)
    summary = pipeline.summary(LinkStatistics())
    assert [event.sample_seq for event in sink.of(PredictionEvent)] == [0, 2]
    assert (summary.n_samples, summary.n_predictions, summary.rejected_samples) == (3, 2, 1)


def test_rate_of_the_board_is_used_where_nobody_else_knows_one(pack, sink, block):
    bundle = pack(Schema.of(["a", "b"]))
    pipeline = make_pipeline(bundle, sink)
    pipeline.process(LinkUp(1.0, "/dev/x", Schema.of(["a", "b"], rate_hz=0.5)))
    pipeline.process(block(0, 3, rate_hz=0.5))
    assert [event.n_steps for event in sink.of(PredictionEvent)] == [1, 2, 3]


def test_configured_rate_goes_before_the_boards(pack, sink, block):
    bundle = pack(Schema.of(["a", "b"]))
    pipeline = make_pipeline(bundle, sink, rate_hz=100.0)
    pipeline.process(LinkUp(1.0, "/dev/x", Schema.of(["a", "b"], rate_hz=0.5)))
    pipeline.process(block(0, 3, rate_hz=0.5))
    assert [event.n_steps for event in sink.of(PredictionEvent)] == [1, 1, 1]


def test_label_is_the_name_of_the_largest_output(pack, schema, sink, block):
    labels = ("rest", "walk", "run", "jump")
    bundle = pack(schema, labels=labels)
    make_pipeline(bundle, sink).process(block(0, 90))
    found = [event.label for event in sink.of(PredictionEvent)]
    assert found == [labels[k] for k in predicted(sink).argmax(axis=1)]
    assert len(set(found)) > 1


def alert_bundle(pack, schema, **changes):
    return pack(schema, alerts=(Alert("high", "y.y0", -2.0, -3.0, 0.018),), **changes)


def test_alert_fires_once_in_sample_time_and_not_while_warming_up(pack, schema, sink, block):
    pipeline = make_pipeline(alert_bundle(pack, schema), sink)
    pipeline.process(block(0, 50))
    (alert,) = sink.of(AlertEvent)
    assert alert.sample_seq == 3 + 4  # three to warm up, 18 ms at 200 Hz
    assert (alert.name, alert.on, alert.active, alert.threshold) == ("high", "y.y0", True, -2.0)
    assert pipeline.summary(LinkStatistics()).n_alerts == 1


def test_alert_that_clears_is_an_event_and_counts_once(pack, schema, sink, block):
    bundle = pack(schema, alerts=(Alert("swing", "y.y0", 0.0, -0.001),))
    pipeline = make_pipeline(bundle, sink)
    pipeline.process(block(0, 200))
    alerts = sink.of(AlertEvent)
    assert [alert.active for alert in alerts[:4]] == [True, False, True, False]
    assert [alert.threshold for alert in alerts[:2]] == [0.0, -0.001]
    n_fired = sum(alert.active for alert in alerts)
    assert pipeline.summary(LinkStatistics()).n_alerts == n_fired < len(alerts)


def test_alerts_can_be_switched_off(pack, schema, sink, block):
    make_pipeline(alert_bundle(pack, schema), sink, alerts=False).process(block(0, 50))
    assert sink.of(AlertEvent) == []


def test_model_that_never_warms_up_never_fires(pack, schema, sink, block):
    make_pipeline(alert_bundle(pack, schema, n_warmup=None), sink).process(block(0, 50))
    assert sink.of(AlertEvent) == []


def test_alert_on_an_output_that_does_not_exist_is_refused(pack, schema, sink):
    bundle = pack(schema, alerts=(Alert("high", "y.wear", 1.0, 0.5),))
    with pytest.raises(ConfigError, match=r"expected an output of y0, y1, y2, y3, got 'y\.wear'"):
        make_pipeline(bundle, sink)


def test_summary_takes_over_the_counters_of_the_link(bundle, sink):
    counters = LinkStatistics(lost_samples=3, overrun_samples=4, reconnects=5, bad_check=6)
    summary = make_pipeline(bundle, sink).summary(counters, n_dropped_events=7)
    found = (summary.lost_samples, summary.overrun_samples, summary.reconnects)
    assert found == (3, 4, 5)
    assert (summary.frames_bad, summary.dropped_events) == (6, 7)
    assert summary.link["bad_check"] == 6


def lines(sink) -> Iterator[dict[str, object]]:
    for event in sink.events:
        buffer = bytearray()
        encode_line(event, buffer)
        assert buffer.count(b"\n") == 1
        yield json.loads(buffer)


def test_keys_of_every_kind_are_those_that_readers_rely_on(bundle, sink, block):
    pipeline = make_pipeline(bundle, sink)
    pipeline.start()
    pipeline.process(block(0, 1))
    pipeline.process(Gap(1.0, 2))
    pipeline.process(EpochChanged(1.0, 5, "restarted"))
    pipeline.process(LinkDown(1.0, "unplugged"))
    pipeline.report(pipeline.summary(LinkStatistics()))
    common = "kind v device stream boot run seq wall mono_ns clock_synced historical"
    own = {
        "model": "model model_hash engine outputs labels n_warmup golden_step_error golden_sqnr_db",
        "prediction": "sample_seq y label status n_steps warming_up latency_us model model_hash "
        "engine n_dropped",
        "gap": "n_missing",
        "epoch": "epoch reason",
        "link": "up port channels reason",
        "health": "final summary",
    }
    found = {str(line["kind"]): " ".join(line) for line in lines(sink)}
    assert found == {kind: f"{common} {keys}" for kind, keys in own.items()}


def test_bad_values_are_held_where_that_is_the_policy_and_the_state_never_sees_them(
    bundle, sink, block
):
    pipeline = make_pipeline(bundle, sink, bad_values="hold")
    samples = block(0, 4)
    samples.values[1, 0] = np.nan
    samples.values[2, 1] = np.inf
    meant = samples.values.copy()
    meant[1, 0] = meant[0, 0]
    meant[2, 1] = meant[1, 1]
    pipeline.process(samples)
    np.testing.assert_array_equal(predicted(sink), expected(bundle, meant))
    summary = pipeline.summary(LinkStatistics())
    assert (summary.repaired_samples, summary.rejected_samples) == (2, 0)


def test_output_that_is_not_finite_becomes_null(bundle, sink, block):
    make_pipeline(bundle, sink).process(block(0, 1))
    (event,) = sink.events
    sink.events = [msgspec.structs.replace(event, y={"y0": float("nan"), "y1": float("inf")})]
    (line,) = lines(sink)
    assert line["y"] == {"y0": None, "y1": None}


def test_state_changes_are_logged_and_samples_are_not(bundle, sink, block, caplog):
    caplog.set_level(logging.DEBUG)
    pipeline = make_pipeline(bundle, sink)
    caplog.clear()
    pipeline.process(block(0, 50))
    assert [record for record in caplog.records if record.name.startswith("edge_gru")] == []


def test_pace_that_never_fits_the_gap_policy_is_warned_of_once(bundle, sink, block, caplog):
    pipeline = make_pipeline(bundle, sink)
    pipeline.process(block(0, 20, rate_hz=0.5))
    for _ in range(2):
        pipeline.report(pipeline.summary(LinkStatistics()))
    assert caplog.text.count("cleared the state 19 times in 20 samples") == 1


@pytest.mark.parametrize("verdict", ["pass", "warn", "fail"])
def test_a_model_that_failed_its_gate_is_warned_of(bundle, sink, caplog, verdict):
    gate = GateResult(verdict, ("stuck units: 80 %",))
    judged = Bundle.pack(msgspec.structs.replace(bundle.manifest, gate=gate), bundle.parts)
    make_pipeline(judged, sink).start()
    warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert bool(warned) == (verdict == "fail")
    assert all("stuck units: 80 %" in text for text in warned)


def test_channel_beyond_the_grid_is_warned_of_once_and_counted(pack, schema, sink, block, caplog):
    bundle = pack(schema)
    manifest = bundle.manifest
    n = schema.n_channels
    limit = InputRange((-1e9,) * n, (-1e8, *(1e9,) * (n - 1)))
    precisions = {
        name: msgspec.structs.replace(info, input_limit=limit)
        for name, info in manifest.precisions.items()
    }
    bundle = Bundle(msgspec.structs.replace(manifest, precisions=precisions), bundle.parts)
    pipeline = make_pipeline(bundle, sink)
    pipeline.process(block(0, 50, n_in=n))
    for _ in range(2):
        summary = pipeline.summary(LinkStatistics())
        pipeline.report(summary)
    assert summary.saturated == {schema.names[0]: 50}
    warnings = [r.message for r in caplog.records if "beyond the grid" in r.message]
    assert len(warnings) == 1
    assert "50 of 50 samples" in warnings[0]
