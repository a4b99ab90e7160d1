from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_gru.errors import (
    BundleError,
    ConfigError,
    EngineUnavailableError,
    GoldenMismatchError,
)
from edge_gru.service.config import make_config
from edge_gru.service.events import HealthEvent, ModelEvent, PredictionEvent
from edge_gru.service.loop import Service
from edge_gru.service.notify import Notifier
from firmware_bridge.errors import SchemaError
from firmware_bridge.link import LinkStatistics
from firmware_bridge.sample import Item, LinkUp, Schema

STOP = "stop"


class ScriptedLink:
    """Delivers items; at STOP it waits to be stopped, and then delivers what is left."""

    def __init__(self, script: Sequence[Item | Exception | str]) -> None:
        self._script = deque(script)
        self._stopped = threading.Event()
        self.at_stop = threading.Event()
        self.statistics = LinkStatistics()
        self.overrun_samples = 0
        self.is_closed = False
        self.timeouts_s: list[float] = []

    @property
    def finished(self) -> bool:
        return self._stopped.is_set() and not self._script

    def receive(self, timeout_s: float) -> Item | None:
        self.timeouts_s.append(timeout_s)
        if self._script and self._script[0] == STOP:
            self.at_stop.set()
            if not self._stopped.wait(timeout_s):
                return None
            self._script.popleft()
        if not self._script:
            self._stopped.wait(timeout_s)
            return None
        item = self._script.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    def stop(self) -> None:
        self._stopped.set()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


class ListNotifier(Notifier):
    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []

    def _send(self, state: str) -> None:
        self.states.append(state)


def make_service(bundle_path: Path, sinks, link: ScriptedLink, **settings) -> Service:
    notifier = settings.pop("notifier", None)
    settings = {"engine": "reference", "flush_s": 0.01, **settings}
    config = make_config({"bundle": str(bundle_path), "port": "/dev/x"} | settings)
    return Service(config, sinks, notifier=notifier, link_factory=lambda *_: link)


def test_stop_predicts_everything_that_was_read(bundle_path, sink, block):
    link = ScriptedLink([block(0, 5), STOP, block(5, 40), block(45, 1)])
    service = make_service(bundle_path, [sink], link)
    stopper = threading.Thread(target=lambda: (link.at_stop.wait(10), service.stop()))
    stopper.start()
    summary = service.run()
    stopper.join()
    assert [event.sample_seq for event in sink.of(PredictionEvent)] == list(range(46))
    assert (summary.n_samples, summary.n_predictions) == (46, 46)
    assert sink.is_closed
    assert link.is_closed


def test_run_begins_with_the_model_and_ends_with_its_summary(bundle_path, sink, block):
    link = ScriptedLink([block(0, 3)])
    link.stop()
    summary = make_service(bundle_path, [sink], link).run()
    assert isinstance(sink.events[0], ModelEvent)
    assert isinstance(sink.events[-1], HealthEvent)
    assert sink.events[-1].final
    assert sink.events[-1].summary == summary


def test_stop_before_the_run_ends_it_at_once(bundle_path, sink):
    service = make_service(bundle_path, [sink], ScriptedLink([STOP]))
    service.stop()
    assert service.run().n_samples == 0


def test_the_output_board_needs_a_link_with_a_way_back(bundle_path, sink):
    service = make_service(bundle_path, [sink], ScriptedLink([]), outputs=["board"])
    with pytest.raises(ConfigError, match="one that only reads"):
        service.run()
    assert sink.is_closed


def test_reader_that_left_ends_the_run(bundle_path, sink, block):
    sink.is_read = False
    summary = make_service(bundle_path, [sink], ScriptedLink([block(0, 3), STOP])).run()
    assert summary.n_samples == 3


def test_waiting_events_are_flushed_in_silence(bundle_path, sink, block):
    link = ScriptedLink([block(0, 1), STOP])
    service = make_service(bundle_path, [sink], link, flush_s=0.02)
    seen = threading.Event()

    def flush() -> bool:
        if sink.of(PredictionEvent):
            seen.set()
        return True

    sink.flush = flush
    runner = threading.Thread(target=service.run, daemon=True)
    runner.start()
    assert seen.wait(10)
    service.stop()
    runner.join()
    assert max(link.timeouts_s) <= 0.02


def test_without_flush_interval_every_item_is_flushed_and_silence_does_not_spin(
    bundle_path, sink, block
):
    link = ScriptedLink([block(k, 1) for k in range(5)])
    link.stop()
    make_service(bundle_path, [sink], link, flush_s=0).run()
    assert sink.n_flushes == 5
    assert set(link.timeouts_s) == {1.0}


def test_health_comes_every_interval(bundle_path, sink, block):
    link = ScriptedLink([block(k, 1) for k in range(5)])
    link.stop()
    make_service(bundle_path, [sink], link, health_s=1e-9).run()
    assert [event.final for event in sink.of(HealthEvent)] == [False] * 5 + [True]


def test_service_manager_hears_of_readiness_and_end(bundle_path, sink):
    notifier = ListNotifier()
    link = ScriptedLink([])
    link.stop()
    make_service(bundle_path, [sink], link, notifier=notifier).run()
    assert notifier.states == ["READY=1", "STOPPING=1"]


def test_watchdog_is_fed_by_the_loop(bundle_path, sink, block, monkeypatch):
    monkeypatch.setattr("edge_gru.service.loop._SILENCE_S", 0.01)
    fed = threading.Event()
    notifier = ListNotifier()
    notifier.alive = fed.set
    service = make_service(bundle_path, [sink], ScriptedLink([STOP]), notifier=notifier)
    runner = threading.Thread(target=service.run, daemon=True)
    runner.start()
    assert fed.wait(10)
    service.stop()
    runner.join()


def test_loop_that_hangs_feeds_no_watchdog(bundle_path, sink, monkeypatch):
    """A timer would vouch for it, and systemd would leave a dead loop alone."""
    monkeypatch.setattr("edge_gru.service.loop._SILENCE_S", 0.001)
    hangs, may_go_on = threading.Event(), threading.Event()
    n_fed = []

    class HangingLink(ScriptedLink):
        def receive(self, timeout_s):
            hangs.set()
            may_go_on.wait(10)
            self.stop()

    notifier = ListNotifier()
    notifier.alive = lambda: n_fed.append(1)
    service = make_service(bundle_path, [sink], HangingLink([]), notifier=notifier)
    runner = threading.Thread(target=service.run, daemon=True)
    runner.start()
    assert hangs.wait(10)
    assert not may_go_on.wait(0.1)
    assert n_fed == []
    may_go_on.set()
    runner.join()


def test_error_of_the_link_closes_everything(bundle_path, sink, block):
    link = ScriptedLink([block(0, 2), SchemaError("other channels")])
    with pytest.raises(SchemaError, match="other channels"):
        make_service(bundle_path, [sink], link).run()
    assert len(sink.of(PredictionEvent)) == 2
    assert sink.is_closed
    assert link.is_closed


def test_engine_that_fails_the_golden_vectors_never_serves(pack, schema, tmp_path, sink):
    honest, other = pack(schema, seed=0), pack(schema, seed=1)
    parts = {**honest.parts, "golden.safetensors": other.parts["golden.safetensors"]}
    path = type(honest).pack(honest.manifest, parts).save(tmp_path / "wrong.egb")
    notifier = ListNotifier()
    service = make_service(path, [sink], ScriptedLink([]), notifier=notifier)
    with pytest.raises(GoldenMismatchError):
        service.run()
    assert sink.events == []
    assert notifier.states == []
    assert sink.is_closed


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"precision": "int4"}, EngineUnavailableError),
        ({"bundle": "/absent.egb"}, BundleError),
    ],
)
def test_wrong_settings_raise_before_the_port_is_opened(bundle_path, sink, settings, error):
    link = ScriptedLink([])
    with pytest.raises(error):
        make_service(bundle_path, [sink], link, **settings).run()
    assert link.timeouts_s == []


def test_sinks_that_dropped_are_counted(bundle_path, sink):
    sink.n_dropped = 3
    link = ScriptedLink([LinkUp(1.0, "/dev/x", Schema.unnamed(2))])
    link.stop()
    assert make_service(bundle_path, [sink], link).run().dropped_events == 3
