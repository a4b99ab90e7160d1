"""A slow line is read at once, a fast one in portions."""

from firmware_bridge.link.pace import Pace


def pauses(rate_hz, n_bytes, duration_s=1.0, reads_hz=1000):
    pace = Pace()
    n = round(rate_hz / reads_hz)
    times = [10 + k / reads_hz for k in range(int(duration_s * reads_hz))]
    return [pace.pause_s(t_s, n, n_bytes) for t_s in times]


def test_a_thousand_samples_a_second_wait_for_nothing():
    assert not any(pauses(1000, 29))
    assert not any(pauses(2000, 58))


def test_ten_thousand_are_read_in_portions_soon_and_never_for_long():
    found = pauses(10_000, 290)
    assert not any(found[:50])
    assert all(found[300:])
    assert max(found) == 0.008


def test_portions_fit_one_read():
    found = pauses(20_000, 900)  # 900 kB a second, and a read takes 4 kB
    assert 0.003 < found[-1] < 4095 / 900_000


def test_a_chunk_that_filled_the_buffer_is_followed_at_once():
    assert not any(pauses(100_000, 4095))


def test_one_burst_after_a_stall_is_no_fast_line():
    pace = Pace()
    found = [pace.pause_s(10 + k / 1000, 1, 29) for k in range(500)]
    found.append(pace.pause_s(11.0, 500, 4000))
    found += [pace.pause_s(11 + k / 1000, 1, 29) for k in range(1, 500)]
    assert not any(found)


def test_a_line_that_became_slow_is_read_at_once_again():
    pace = Pace()
    for k in range(300):
        pace.pause_s(10 + k / 1000, 10, 290)
    found = [pace.pause_s(10.3 + k / 1000, 1, 29) for k in range(300)]
    assert found[0] > 0
    assert not any(found[200:])
