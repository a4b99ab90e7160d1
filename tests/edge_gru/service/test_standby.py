from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from edge_gru.bundle import load
from edge_gru.engines.base import Engine
from edge_gru.errors import EngineUnavailableError
from edge_gru.service.config import make_config
from edge_gru.service.events import EngineEvent, PredictionEvent
from edge_gru.service.loop import Service
from edge_gru.service.notify import Notifier
from firmware_bridge.sample import Gap
from firmware_bridge.simulator import ReplaySource, SimulatedBoard

SLOW, PATIENCE_S = "slow-fp32", 20.0


class Statuses(Notifier):
    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def status(self, sentence: str) -> None:
        self.sent.append(sentence)


@pytest.fixture
def run(bundle_path, sink, pausing_link):
    def run_all(*script, notifier=None, clock=time.monotonic, **settings):
        settings = {"engine": "slow", "flush_s": 0.01, **settings}
        config = make_config({"bundle": str(bundle_path), "port": "/dev/x"} | settings)
        link = pausing_link(*script)
        service = Service(
            config, [sink], notifier=notifier, link_factory=lambda *_: link, clock=clock
        )
        return service.run()

    return run_all


@pytest.fixture
def is_over(sink):
    """Whether the search has ended and the loop has heard of it."""
    return lambda: bool(sink.of(EngineEvent))


def uninterrupted(bundle_path, blocks) -> np.ndarray:
    with load(bundle_path).open("reference") as engine:
        return engine.run_sequence(np.concatenate([b.values for b in blocks]))


def outputs(predictions) -> np.ndarray:
    return np.array([list(event.y.values()) for event in predictions], np.float32)


def test_the_engine_is_swapped_between_samples_with_its_state(
    run, sink, block, bundle_path, slow_build, is_over, monkeypatch
):
    closed = []
    close = Engine.close
    monkeypatch.setattr(Engine, "close", lambda e: (closed.append(e.name), close(e)))
    closed_at_swap = []
    write = sink.write

    def watch(event) -> None:
        write(event)
        if isinstance(event, EngineEvent):
            closed_at_swap.append(closed[-1])

    sink.write = watch
    blocks = [block(0, 7), block(7, 5), block(12, 9), block(21, 1)]
    begin, *rest = blocks

    def let_it_end():
        slow_build.may_end.set()
        return is_over()

    summary = run(begin, blocks[1], let_it_end, *rest[1:])
    predictions = sink.of(PredictionEvent)
    assert [event.sample_seq for event in predictions] == list(range(22))
    assert [event.n_steps for event in predictions] == list(range(1, 23))
    engines = [event.engine for event in predictions]
    assert set(engines[:12]) == {predictions[0].engine} != {SLOW}
    assert engines[12:] == [SLOW] * 10
    np.testing.assert_allclose(
        outputs(predictions), uninterrupted(bundle_path, blocks), rtol=0, atol=1e-6
    )
    (event,) = sink.of(EngineEvent)
    assert (event.engine, event.previous) == (SLOW, engines[0])
    assert event.golden_step_error <= 1e-6
    assert closed_at_swap == [engines[0].split("-")[0]]
    assert summary.engine == SLOW
    assert (summary.n_samples, summary.resets_gap, summary.resets_epoch) == (22, 0, 0)


def test_gaps_are_told_to_the_engine_that_serves(
    run, sink, block, bundle_path, slow_build, is_over
):
    slow_build.may_end.set()
    run(block(0, 5), is_over, Gap(100.025, 50), block(55, 4))
    predictions = sink.of(PredictionEvent)
    assert [event.n_steps for event in predictions] == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    np.testing.assert_allclose(
        outputs(predictions[5:]), uninterrupted(bundle_path, [block(55, 4)]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("error", "output_error", "reason"),
    [
        (EngineUnavailableError("no memory was left for the build"), 0.0, "no memory was left"),
        (None, 0.5, "does not reproduce the golden vectors"),
        (ZeroDivisionError("a bug"), 0.0, "a bug"),
    ],
)
def test_an_engine_that_fails_leaves_the_other_to_serve(
    run, sink, block, slow_build, is_over, error, output_error, reason, caplog
):
    slow_build.error, slow_build.output_error = error, output_error
    slow_build.may_end.set()
    caplog.set_level("INFO")
    summary = run(block(0, 5), is_over, block(5, 3))
    (event,) = sink.of(EngineEvent)
    assert event.engine == event.previous == summary.engine != SLOW
    assert reason in event.reason
    assert any(reason in message or message.endswith(reason) for message in caplog.messages)
    assert len(sink.of(PredictionEvent)) == 8


@pytest.mark.parametrize("saves", [False, True])
def test_an_engine_that_is_lost_is_replaced_where_it_stopped(
    run, sink, block, bundle_path, slow_build, is_over, saves
):
    blocks = [block(0, 7), block(7, 9), block(16, 4), block(20, 10)]
    clock = itertools.count(0.0, 0.4 if saves else 1e-4)  # at each look, so that time passes

    n_before_swap = 0

    def swapped():
        nonlocal n_before_swap
        n_before_swap = slow_build.n_saved
        return is_over()

    def lose():
        slow_build.is_lost = True
        return True

    slow_build.may_end.set()
    script = [blocks[0], swapped, *blocks[1:3], lose, blocks[3]]
    run(*script, clock=lambda: next(clock))
    predictions = sink.of(PredictionEvent)
    assert [event.n_steps for event in predictions] == list(range(1, 31))
    first = predictions[0].engine
    assert [e.engine for e in predictions] == [first] * 7 + [SLOW] * 13 + [first] * 10
    np.testing.assert_allclose(
        outputs(predictions), uninterrupted(bundle_path, blocks), rtol=0, atol=1e-6
    )
    assert (slow_build.n_saved > n_before_swap) == saves
    _, lost = sink.of(EngineEvent)
    assert (lost.previous, lost.engine) == (SLOW, first)
    assert lost.reason == "the GPU fell off the bus"


def test_an_engine_that_is_lost_in_a_gap_is_replaced(
    run, sink, block, bundle_path, slow_build, is_over
):
    def lose():
        slow_build.is_lost = True
        return True

    slow_build.may_end.set()
    run(block(0, 5), is_over, block(5, 3), Gap(100.04, 50), lose, block(58, 4))
    predictions = sink.of(PredictionEvent)
    assert [event.n_steps for event in predictions] == [*range(1, 9), 1, 2, 3, 4]
    assert predictions[-1].engine == predictions[0].engine
    np.testing.assert_allclose(
        outputs(predictions[8:]), uninterrupted(bundle_path, [block(58, 4)]), rtol=0, atol=1e-6
    )


def test_stopping_does_not_wait_for_a_build(run, block, slow_build):
    summary = run(block(0, 3), slow_build.has_begun.is_set)
    assert summary.n_samples == 3
    assert not slow_build.may_end.is_set()


def test_an_engine_that_comes_too_late_is_closed(run, block, slow_build, monkeypatch):
    found = threading.Event()
    monkeypatch.setattr("edge_gru.engines.table.Build.check", lambda _: None)

    def ignore(cancel):
        slow_build.has_begun.set()
        found.wait(PATIENCE_S)

    slow_build.wait = ignore
    run(block(0, 3), slow_build.has_begun.is_set)
    closed_before = list(slow_build.closed)
    found.set()
    for thread in threading.enumerate():
        if thread.name.startswith("edge-gru-standby"):
            thread.join(PATIENCE_S)
    assert closed_before == []
    assert slow_build.closed == ["fp32", "fp32"]  # the one that was timed, and the one that came


@pytest.mark.usefixtures("slow_is_fastest")
def test_auto_takes_over_what_is_measured_as_faster(run, sink, block, slow_build, is_over):
    slow_build.may_end.set()
    notifier = Statuses()
    run(block(0, 5), is_over, block(5, 3), engine="auto", notifier=notifier)
    (event,) = sink.of(EngineEvent)
    assert event.engine == SLOW
    assert event.reason == "a step takes 1 us, instead of 9 us"
    assert "predicting; building a faster engine: building, 100%" in notifier.sent


def test_auto_stays_where_the_build_is_slower(run, sink, block, slow_build, is_over, monkeypatch):
    def times_us(engines, samples, build=None):
        return {key: [9.0 if e.name == "slow" else 1.0] for key, e in engines.items()}

    monkeypatch.setattr("edge_gru.engines.measure.times_us", times_us)
    slow_build.may_end.set()
    run(block(0, 5), is_over, engine="auto")
    (event,) = sink.of(EngineEvent)
    assert event.engine == event.previous != SLOW
    assert event.reason.startswith("slow fp32 takes 9 us a step, ")
    assert event.reason.endswith(" 1 us")
    sink.events.clear()
    run(block(0, 5), engine="auto")  # settled: nothing is built again
    assert sink.of(EngineEvent) == []
    assert slow_build.n_begun == 1


def test_an_engine_without_a_build_has_no_search(run, sink, block, slow_build):
    run(block(0, 5), engine="reference")
    assert sink.of(EngineEvent) == []
    assert slow_build.n_begun == 0


def test_a_stream_on_a_port_goes_on_while_the_engine_is_swapped(
    bundle_path, sink, schema, slow_build
):
    """Samples from a pseudo terminal at 2 kHz: none lost, and the predictions of one run."""
    n_before, n = 100, 600
    t = np.arange(n) * 0.05
    recording = np.stack([np.sin(t), np.cos(0.7 * t)], axis=1).astype(np.float32)
    fast = type(schema)(schema.channels, 2000.0)
    config = {"bundle": str(bundle_path), "engine": "slow", "rate_hz": 2000.0, "flush_s": 0.01}
    service = None
    write = sink.write

    def watch(event) -> None:
        write(event)
        if isinstance(event, PredictionEvent):
            if event.sample_seq == n_before:
                slow_build.may_end.set()
            if event.sample_seq >= n and event.engine == SLOW:
                service.stop()

    sink.write = watch
    with SimulatedBoard(ReplaySource(recording, fast, loop=True)) as board:
        service = Service(make_config({**config, "port": board.port}), [sink])
        summary = service.run()
    predictions = sink.of(PredictionEvent)
    assert [event.sample_seq for event in predictions] == list(range(len(predictions)))
    assert summary.lost_samples == summary.overrun_samples == 0
    engines = [event.engine for event in predictions]
    swapped_at = engines.index(SLOW)
    assert swapped_at > n_before
    assert engines == [engines[0]] * swapped_at + [SLOW] * (len(engines) - swapped_at)
    with load(bundle_path).open("reference") as engine:
        expected = engine.run_sequence(np.resize(recording, (len(predictions), 2)))
    np.testing.assert_allclose(outputs(predictions), expected, rtol=0, atol=1e-5)
