"""The simulated pump: the same numbers every time, physically sensible, and honest about wear."""

import math
from dataclasses import replace

import numpy as np
import pytest

from firmware_bridge.simulator.pump import PumpScenario, PumpSource

PLAUSIBLE = {
    "vib_x": (0.0, 4.0),
    "vib_y": (0.0, 4.0),
    "vib_z": (0.0, 4.0),
    "temperature": (10.0, 95.0),
    "pressure": (1.5, 8.0),
    "current": (3.0, 16.0),
}
UNITS = {
    "vib_x": "g",
    "vib_y": "g",
    "vib_z": "g",
    "temperature": "degC",
    "pressure": "bar",
    "current": "A",
}


def column(source, name):
    return source.arrays()[0][:, source.schema.names.index(name)].astype(np.float64)


def quiet(**changes):
    return PumpScenario(disturbances_per_min=0.0, **changes)


def test_schema_names_channels_units_and_rate():
    schema = PumpSource().schema
    assert {c.name: c.unit for c in schema.channels} == UNITS
    assert schema.rate_hz == 100.0


def test_equal_scenarios_give_equal_samples():
    first, second = PumpSource(PumpScenario(seed=5)), PumpSource(PumpScenario(seed=5))
    for a, b in zip(first.arrays(), second.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_give_different_machines():
    a, b = (PumpSource(PumpScenario(seed=seed)).arrays()[0] for seed in (1, 2))
    assert not np.any(np.all(a == b, axis=1))


def test_iterating_yields_what_arrays_holds():
    source = PumpSource(PumpScenario(duration_s=3.0))
    samples, wear = source.arrays()
    assert samples.shape == (300, 6)
    assert samples.dtype == wear.dtype == np.float32
    yielded = list(source)
    assert all(sample.shape == (6,) and sample.dtype == np.float32 for sample in yielded)
    np.testing.assert_array_equal(np.stack(yielded), samples)
    np.testing.assert_array_equal(np.stack(list(source)), samples)  # and once more


def test_wear_is_zero_before_onset_rises_and_ends_at_one():
    scenario = PumpScenario(duration_s=20.0, onset_s=8.0, failure_s=18.0)
    source = PumpSource(scenario)
    assert source.wear_at(0.0) == source.wear_at(8.0) == 0.0
    assert 0.0 < source.wear_at(8.1) < source.wear_at(13.0) < source.wear_at(17.9) < 1.0
    assert source.wear_at(18.0) == source.wear_at(100.0) == 1.0
    wear = source.arrays()[1]
    assert np.all(np.diff(wear) >= 0)
    expected = [source.wear_at(k / 100) for k in range(scenario.n_samples)]
    np.testing.assert_array_equal(wear, np.array(expected, np.float32))


@pytest.mark.parametrize("seed", range(8))
def test_wear_changes_nothing_before_its_onset(seed):
    worn = PumpScenario(seed=seed)
    healthy = PumpScenario.healthy(duration_s=worn.duration_s, seed=seed)
    a, b = PumpSource(worn).arrays()[0], PumpSource(healthy).arrays()[0]
    onset = round(worn.onset_s * worn.rate_hz)
    np.testing.assert_array_equal(a[: onset + 1], b[: onset + 1])
    assert not np.array_equal(a[onset:], b[onset:])


@pytest.mark.parametrize("seed", range(8))
def test_longer_recordings_begin_like_shorter_ones(seed):
    short = PumpScenario(seed=seed, duration_s=7.0)
    a, b = PumpSource(short).arrays()[0], PumpSource(replace(short, duration_s=11.0)).arrays()[0]
    np.testing.assert_array_equal(a, b[: len(a)])


@pytest.mark.parametrize("seed", range(20))
def test_values_stay_physically_plausible(seed):
    rng = np.random.default_rng(seed)
    source = PumpSource(PumpScenario(seed=seed, duration_s=60.0, load=rng.uniform(0.5, 0.95)))
    samples = source.arrays()[0]
    assert np.all(np.isfinite(samples))
    low, high = np.array([PLAUSIBLE[name] for name in source.schema.names]).T
    assert np.all(samples > low)
    assert np.all(samples < high)


@pytest.mark.parametrize("seed", range(4))
def test_healthy_pump_stays_healthy(seed):
    source = PumpSource(PumpScenario.healthy(duration_s=120.0, seed=seed))
    samples, wear = source.arrays()
    assert not wear.any()
    assert source.wear_at(1e9) == 0.0
    first, last = np.median(samples[:3000], axis=0), np.median(samples[-3000:], axis=0)
    np.testing.assert_allclose(last[:3], first[:3], rtol=0.35)  # vibration follows the load
    assert abs(last[3] - first[3]) < 8.0


def test_worn_bearing_shows_in_vibration_temperature_and_current():
    worn = PumpSource(quiet(duration_s=40.0, onset_s=10.0, failure_s=20.0))
    healthy = PumpSource(PumpScenario.healthy(duration_s=40.0))
    tail = slice(3000, None)
    for name in ("vib_x", "vib_y", "vib_z"):
        assert column(worn, name)[tail].mean() > 3 * column(worn, name)[:1000].mean()
    assert column(worn, "temperature")[tail].mean() > column(worn, "temperature")[:1000].mean() + 5
    assert column(worn, "current")[tail].mean() > 1.05 * column(healthy, "current")[tail].mean()


def test_temperature_lags_behind_vibration():
    source = PumpSource(quiet(duration_s=40.0, onset_s=10.0, failure_s=20.0))

    def half_way_s(name):
        values = column(source, name)
        smooth = np.convolve(values, np.ones(200) / 200, mode="valid")
        middle = (smooth[:800].mean() + smooth[-200:].mean()) / 2
        return np.argmax(smooth > middle) / 100

    assert half_way_s("temperature") > half_way_s("vib_y") + 2.0


def test_more_load_draws_more_current_at_less_pressure():
    light, heavy = (
        PumpSource(quiet(load=load, onset_s=19.0, failure_s=20.0)) for load in (0.5, 0.9)
    )
    assert column(heavy, "current").mean() > column(light, "current").mean() + 1.0
    assert column(heavy, "pressure").mean() < column(light, "pressure").mean() - 0.3
    assert column(heavy, "vib_x").mean() > column(light, "vib_x").mean()


def test_harmless_disturbances_reach_the_level_of_a_worn_bearing():
    """A threshold on one channel that catches half the wear also fires on healthy pumps."""
    half_worn = PumpSource(quiet(duration_s=30.0, onset_s=0.0, failure_s=20.0))
    level = np.median(column(half_worn, "vib_x")[1200:1300])
    assert half_worn.wear_at(12.5) == pytest.approx(0.5, abs=0.02)
    fired = [
        np.any(
            column(PumpSource(PumpScenario.healthy(duration_s=60.0, seed=seed)), "vib_x") > level
        )
        for seed in range(10)
    ]
    assert all(fired)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate_hz": 0.0}, "rate_hz"),
        ({"rate_hz": math.nan}, "rate_hz"),
        ({"duration_s": -1.0}, "duration_s"),
        ({"duration_s": math.inf}, "duration_s"),
        ({"load": 0.0}, "load"),
        ({"disturbances_per_min": -1.0}, "disturbances_per_min"),
        ({"onset_s": 9.0, "failure_s": 9.0}, "onset_s"),
        ({"onset_s": -1.0}, "onset_s"),
        ({"onset_s": 9.0, "failure_s": math.inf}, "failure_s"),
    ],
)
def test_senseless_scenarios_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        PumpScenario(**changes)
