"""A short run of the long tests: what spoilt frames the checks let through, and flat memory."""

import importlib.util
from pathlib import Path

import pytest

from firmware_bridge.framing import BATCH, DATA


@pytest.fixture(scope="module")
def soak():
    spec = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_crc32_lets_no_spoilt_frame_through(soak):
    n_spoilt, n_checked, n_accepted = soak.accepted(BATCH, 100_000)
    assert n_spoilt >= 100_000
    assert n_checked > 50_000
    assert n_accepted == 0


def test_crc16_lets_through_no_more_than_chance(soak):
    n_spoilt, n_checked, n_accepted = soak.accepted(DATA, 300_000)
    assert n_checked > 0.5 * n_spoilt
    assert n_accepted <= soak.most_by_chance(n_checked, 2.0**-16)


def test_the_bound_is_that_of_the_binomial(soak):
    assert soak.most_by_chance(10, 0.5) == 9  # P(X <= 9) = 1023 / 1024
    assert soak.most_by_chance(10_000_000, 2.0**-16) == pytest.approx(192, abs=2)


def test_an_hour_of_a_stream_with_wraps_loses_nothing(soak):
    counts, memory, n_samples, n_gaps = soak.run_a_day(1.25, rate_hz=100.0)
    assert n_samples == pytest.approx(1.25 * 360_000, abs=100)
    assert n_gaps == counts.frames_bad == counts.resyncs == 0
    assert memory[-1] - memory[0] < 20_000
