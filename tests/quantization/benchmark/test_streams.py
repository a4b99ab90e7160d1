from __future__ import annotations

import numpy as np
import pytest

from quantization.benchmark.accuracy.streams import (
    AVERAGE_STEPS,
    N_SENSORS,
    long_memory,
    plucked_strings,
    run_to_failure,
)


@pytest.mark.parametrize("make", [long_memory, run_to_failure])
def test_the_seed_decides_everything(make):
    first, again, other = make(300, 3, 7), make(300, 3, 7), make(300, 3, 8)
    for a, b, c in zip(first, again, other, strict=True):
        assert a.dtype == np.float32
        assert a.shape[:2] == (3, 300)
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("make", [long_memory, run_to_failure])
def test_streams_are_independent(make):
    x, _ = make(300, 2, 7)
    assert not np.array_equal(x[0], x[1])


def test_the_flip_is_the_sign_of_the_last_pulse():
    x, y = long_memory(2000, 2, 1)
    for pulses, flips in zip(x[:, :, 0], y[:, :, 0], strict=True):
        last = 0.0
        for pulse, flip in zip(pulses, flips, strict=True):
            last = np.sign(pulse) or last
            assert flip == last
    assert np.mean(x[:, :, 0] != 0) == pytest.approx(1 / 200, rel=0.5)


def test_the_average_forgets_over_300_steps():
    x, y = long_memory(2000, 2, 1)
    average = np.zeros(2)
    for t in range(2000):
        average += (x[:, t, 1] - average) / AVERAGE_STEPS
        np.testing.assert_allclose(y[:, t, 1], average, atol=1e-5)


def test_remaining_life_counts_down_from_its_cap_and_begins_again():
    _, y = run_to_failure(3000, 4, 1)
    left = np.rint(y[:, :, 0] * 125)
    np.testing.assert_allclose(y[:, :, 0] * 125, left, atol=1e-4)
    assert left.max() == 125
    assert left.min() == 0
    change = np.diff(left, axis=1)
    begins = change > 0
    assert (change[begins] >= 119).all()
    assert set(change[~begins]) == {0, -1}
    assert (left[:, :-1][begins] == 0).all()


def test_four_sensors_spike_and_tell_nothing_of_wear():
    x, y = run_to_failure(20_000, 4, 1)
    flat, worn = x.reshape(-1, N_SENSORS), 1 - y.reshape(-1)
    related = np.abs([np.corrcoef(flat[:, k], worn)[0, 1] for k in range(N_SENSORS)])
    peaks = np.abs(flat - np.median(flat, axis=0)).max(axis=0)
    assert (related[:10] > 0.1).sum() >= 8
    assert (related[10:] < 0.1).all()
    assert (peaks[10:] > 15).all()
    assert (peaks[:10] < 12).all()


def test_strings_sound_at_a_pitch_and_die_away():
    x = plucked_strings(8000, 3, 5)
    assert (x.shape, x.dtype) == ((3, 8000, 1), np.float32)
    np.testing.assert_array_equal(x, plucked_strings(8000, 3, 5))
    assert not np.array_equal(x, plucked_strings(8000, 3, 6))
    assert np.abs(x).max() <= 1
    note = x[0, :2000, 0]
    spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)))) ** 2
    assert np.sort(spectrum)[-40:].sum() > 0.8 * spectrum.sum()
    assert note[:500].std() > note[1500:].std() > 0
