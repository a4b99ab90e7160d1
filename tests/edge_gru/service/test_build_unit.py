"""The search for a faster engine lets the unit that builds go first."""

from __future__ import annotations

import json
import threading

import pytest

from edge_gru.service import build_unit
from edge_gru.service.build_unit import BuildUnit
from edge_gru.service.config import make_config
from edge_gru.service.events import EngineEvent
from edge_gru.service.loop import Service

BUILDING, BUILT, FAILED = ({"state": state} for state in ("building", "built", "failed"))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "compile.json"


@pytest.fixture
def cancel():
    return threading.Event()


class Waiter:
    """Waits in a thread of its own."""

    def __init__(self, unit: BuildUnit, cancel: threading.Event) -> None:
        self._thread = threading.Thread(target=unit.wait, args=(cancel,))
        self._thread.start()

    def is_done(self, within_s: float) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()


def say(file, state: dict) -> None:
    file.with_suffix(".new").write_text(json.dumps(state))
    file.with_suffix(".new").replace(file)


@pytest.mark.parametrize("verdict", [BUILT, FAILED])
def test_a_build_is_waited_for_until_its_verdict(file, cancel, verdict):
    say(file, BUILDING)
    waiter = Waiter(BuildUnit(file, look_s=0.001), cancel)
    assert not waiter.is_done(0.05)
    say(file, verdict)
    assert waiter.is_done(20)


def test_a_unit_that_has_not_begun_is_given_time(file, cancel):
    waiter = Waiter(BuildUnit(file, look_s=0.001), cancel)
    assert not waiter.is_done(0.05)
    say(file, BUILT)
    assert waiter.is_done(20)


def test_a_unit_that_never_begins_is_not_waited_for_for_ever(file, cancel, monkeypatch):
    monkeypatch.setattr(build_unit, "_APPEARS_S", 0.01)
    BuildUnit(file, look_s=0.001).wait(cancel)


def test_a_build_that_hangs_is_not_waited_for_for_ever(file, cancel, monkeypatch):
    monkeypatch.setattr(build_unit, "_LASTS_S", 0.01)
    say(file, BUILDING)
    BuildUnit(file, look_s=0.001).wait(cancel)


def test_the_end_of_the_service_ends_the_wait(file, cancel):
    say(file, BUILDING)
    waiter = Waiter(BuildUnit(file), cancel)
    cancel.set()
    assert waiter.is_done(20)


@pytest.mark.parametrize("environment", [{}, {"EDGE_GRU_COMPILE_FILE": ""}])
def test_without_a_unit_nothing_is_waited_for(environment, cancel):
    BuildUnit.from_environment(environment).wait(cancel)


def test_service_builds_nothing_while_the_unit_does(
    bundle_path, sink, block, slow_build, pausing_link, file, slow_is_fastest
):
    say(file, BUILDING)
    slow_build.may_end.set()
    n_begun = []

    def unit_ends() -> bool:
        n_begun.append(slow_build.n_begun)
        if len(n_begun) == 20:
            say(file, BUILT)
        return len(n_begun) >= 20

    link = pausing_link(block(0, 3), unit_ends, lambda: bool(sink.of(EngineEvent)), block(3, 3))
    config = make_config({"bundle": str(bundle_path), "port": "/dev/x", "engine": "slow"})
    unit = BuildUnit(file, look_s=0.001)
    Service(config, [sink], build_unit=unit, link_factory=lambda *_: link).run()
    assert set(n_begun) == {0}
    assert slow_build.n_begun > 0
    assert sink.of(EngineEvent)[-1].engine == "slow-fp32"
