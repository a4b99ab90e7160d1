"""A board and a session joined without port or clock, and a link on a pty, for the tests here."""

import time

import numpy as np
import pytest

from firmware_bridge import Link, SampleBlock, Schema
from firmware_bridge.clock import DeviceClock
from firmware_bridge.formats import new_session
from firmware_bridge.formats.session import LinkStatistics, SessionSettings
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator import ReplaySource
from firmware_bridge.simulator.firmware import FramedFirmware
from firmware_bridge.simulator.text_firmware import TextFirmware


class Bench:
    """One board and one session, time passing only in ``run``; the line can be tampered with."""

    def __init__(self, firmware, name="framed", schema=None, rate_hz=None, baud=None):
        self.firmware = firmware
        self.counts = LinkStatistics()
        self.clock = DeviceClock()
        settings = SessionSettings(schema, rate_hz)
        self.session = new_session(name, settings, self.counts, self.clock)
        self.now_s = 1000.0
        self.board_zero_s = 900.0  # host time of device time 0
        self.items = []
        self.samples = iter(())
        self.n_given = 0
        self.to_host = lambda frame: frame
        self.to_board = lambda frame: frame
        self.session.connected(self.now_s, "bench", baud)
        self._next_sample_us = None
        self.feed(firmware.boot(self.t_us) + firmware.greet(self.t_us))

    @property
    def t_us(self):
        return int((self.now_s - self.board_zero_s) * 1e6)

    def feed(self, wire):
        """Let the session read these bytes."""
        if wire:
            self.items += self.session.receive(self.to_host(wire), self.now_s)

    def run(self, duration_s, step_s=0.001):
        """Let time pass."""
        for _ in range(round(duration_s / step_s)):
            self.now_s += step_s
            if self.now_s >= self.session.wake_at_s:
                self.items += self.session.tick(self.now_s)
            outgoing = self.to_board(self.session.take_outgoing())
            if outgoing:
                self.feed(self.firmware.take(outgoing, self.t_us))
            self._sample()
            self.feed(self.firmware.tick(self.t_us))

    def _sample(self):
        if not self.firmware.is_streaming:
            self._next_sample_us = None
            return
        if self._next_sample_us is None:
            self._next_sample_us = self.t_us
        while self._next_sample_us <= self.t_us:
            values = next(self.samples, None)
            if values is None:
                return
            self.feed(self.firmware.sample(values, self._next_sample_us))
            self.n_given += 1
            self._next_sample_us += self.firmware.period_us

    def events(self, kind=None):
        found = [i for i in self.items if not isinstance(i, SampleBlock)]
        return [i for i in found if kind is None or isinstance(i, kind)]

    def values(self):
        return np.concatenate([i.values for i in self.items if isinstance(i, SampleBlock)])

    def times(self):
        return np.concatenate([i.t_s for i in self.items if isinstance(i, SampleBlock)])

    def seqs(self):
        return np.concatenate([i.seq for i in self.items if isinstance(i, SampleBlock)]).tolist()


SCHEMA = Schema.of([("vib", "g"), ("temp", "degC"), ("flow", "")], 100.0)


@pytest.fixture
def schema():
    return SCHEMA


@pytest.fixture
def rows():
    """Rows that differ everywhere, so that a wrong order cannot look right."""
    return np.arange(3 * 50_000, dtype=np.float32).reshape(-1, 3) / 7


@pytest.fixture
def make_bench(rows):
    def make(name="framed", *, schema=SCHEMA, expected=None, firmware=None, **settings):
        if firmware is None:
            is_framed = name == "framed"
            firmware = (
                FramedFirmware(BoardSchema.of(schema)) if is_framed else TextFirmware(schema, name)
            )
        bench = Bench(firmware, name, expected, **settings)
        bench.samples = iter(rows)
        return bench

    return make


@pytest.fixture
def source(rows, schema):
    """Five seconds of samples at 1 kHz."""
    return ReplaySource(rows[:5000], Schema(schema.channels, 1000.0))


class Collector:
    """Takes what a link delivers until something has come, with a deadline and without sleeping."""

    def __init__(self, link):
        self.link = link
        self.items = []

    def until(self, condition, timeout_s=20.0):
        """Receive until ``condition(self)`` holds."""
        deadline_s = time.monotonic() + timeout_s
        while not condition(self):
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"not within {timeout_s} s; events: {self.events()}"
            item = self.link.receive(left_s)
            if item is not None:
                self.items.append(item)
        return self

    def until_samples(self, n_samples, timeout_s=20.0):
        """Receive ``n_samples`` more."""
        wanted = self.n_samples + n_samples
        return self.until(lambda c: c.n_samples >= wanted, timeout_s)

    def until_event(self, kind, timeout_s=20.0):
        """Receive up to the next event of ``kind`` and return it."""
        n_before = len(self.items)
        self.until(lambda c: any(isinstance(i, kind) for i in c.items[n_before:]), timeout_s)
        return next(i for i in self.items[n_before:] if isinstance(i, kind))

    @property
    def n_samples(self):
        return sum(len(i) for i in self.items if isinstance(i, SampleBlock))

    def values(self):
        return np.concatenate([i.values for i in self.items if isinstance(i, SampleBlock)])

    def events(self, kind=None):
        found = [i for i in self.items if not isinstance(i, SampleBlock)]
        return [i for i in found if kind is None or isinstance(i, kind)]


@pytest.fixture
def open_link():
    """Open links that are closed when the test ends; returns what collects their items."""
    links = []

    def open_one(port, **settings):
        link = Link(port, **settings)
        links.append(link)
        link.open()
        return Collector(link)

    yield open_one
    for link in links:
        link.close()
