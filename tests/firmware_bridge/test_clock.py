"""Device time never steps back on the host, survives its wrap, and finds the true offset."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.clock import DeviceClock


def u32(*ticks):
    return np.array([t % 2**32 for t in ticks], np.uint32)


def test_ticks_go_on_through_the_wrap():
    clock = DeviceClock()
    start = 2**32 - 1000
    ticks = clock.extend(u32(*range(start, start + 3000, 500)))
    assert np.diff(ticks).tolist() == [500] * 5
    assert clock.extend(u32(start + 3000))[0] - ticks[-1] == 500


def test_a_tick_from_the_past_is_in_the_past():
    clock = DeviceClock()
    clock.extend(u32(5000))
    assert clock.extend(u32(4000)).tolist() == [4000]


@given(st.lists(st.integers(0, 2**25), min_size=1, max_size=50), st.integers(0, 2**32 - 1))
def test_chunking_does_not_change_ticks(steps, start):
    t_us = (start + np.cumsum(steps)) % 2**32
    whole, single = DeviceClock(), DeviceClock()
    at_once = whole.extend(t_us.astype(np.uint32))
    one_by_one = [int(single.extend(u32(int(t)))[0]) for t in t_us]
    assert at_once.tolist() == one_by_one


def test_smallest_round_trip_wins():
    clock = DeviceClock()
    for delay_s in (0.010, 0.0004, 0.016):  # on the way back only, as polled transports do
        sent_s = 500.0
        arrived_us = 1_000_000
        clock.note_pong(sent_s, arrived_us, arrived_us + 100, sent_s + 0.0002 + delay_s)
    times = clock.to_host(np.array([1_000_000], np.int64))
    assert abs(times[0] - 500.0) < 0.0004
    assert clock.round_trip_s is not None
    assert abs(clock.round_trip_s - 0.0005) < 1e-9


def test_before_lock_the_least_delayed_arrival_counts():
    clock = DeviceClock()
    for ticks_us, delay_s in ((0, 0.005), (10_000, 0.001), (20_000, 0.009)):
        clock.note_arrival(ticks_us, 100.0 + ticks_us * 1e-6 + delay_s)
    assert not clock.is_locked
    assert abs(clock.to_host(np.array([20_000]))[0] - 100.021) < 1e-9


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=40))
def test_times_rise_strictly_however_the_estimate_moves(offsets_s):
    clock = DeviceClock()
    last_s = float("-inf")
    for step, offset_s in enumerate(offsets_s):
        sent_s, ticks = 100 + step + offset_s, step * 1_000_000
        clock.note_pong(sent_s, ticks, ticks, sent_s + 0.1 / (step + 1))
        ticks_us = step * 10_000 + np.arange(0, 10_000, 1000)
        times = clock.to_host(ticks_us)
        assert times[0] > last_s
        assert (np.diff(times) > 0).all()
        last_s = times[-1]


def test_a_correction_arrives_in_the_end():
    clock = DeviceClock()
    clock.note_arrival(0, 100.016)
    assert clock.to_host(np.array([0]))[0] == 100.016
    clock.note_pong(100.0, 0, 0, 100.0)
    times = [clock.to_host(np.array([t]))[0] - t * 1e-6 for t in range(10_000, 1_000_000, 10_000)]
    assert abs(times[-1] - 100.0) < 1e-9
    assert times == sorted(times, reverse=True)


def test_a_minute_of_slow_answers_is_no_drift():
    clock = DeviceClock()
    for second in range(200):
        delay_s = 0.016 if 40 <= second < 100 else 0.0002  # a polled transport, one way only
        clock.note_pong(500.0 + second, second * 10**6, second * 10**6, 500.0 + second + delay_s)
    assert abs(clock.drift_ppm) < 2
    times = clock.to_host(np.array([200 * 10**6], np.int64))
    assert abs(times[0] - 700.0) < 0.0005


def test_a_clock_that_was_set_is_learned_anew():
    clock = DeviceClock()
    for second in range(60):
        zero_s = 500.0 if second < 40 else 900.0
        clock.note_pong(zero_s + second, second * 10**6, second * 10**6, zero_s + second + 0.0002)
        clock.to_host(np.array([second * 10**6], np.int64))
    assert abs(clock.drift_ppm) < 2
    assert clock.n_drift_alarms == 0


def test_a_round_trip_of_less_than_nothing_is_not_believed():
    clock = DeviceClock()
    clock.note_pong(100.0, 0, 500_000, 100.01)
    assert not clock.is_locked
