from __future__ import annotations

import numpy as np
import pytest

from edge_gru.service.statistics import Latency, LatencyHistogram


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_quantiles_are_right_to_one_percent(q: float):
    latencies = np.random.default_rng(0).lognormal(5, 1, 10_000)
    histogram = LatencyHistogram()
    for latency in latencies:
        histogram.add(float(latency))
    exact = np.quantile(latencies, q, method="inverted_cdf")
    assert histogram.quantile_us(q) == pytest.approx(exact, rel=0.01)


def test_no_latency_gives_zero():
    assert Latency.of(LatencyHistogram()) == Latency(0, 0, 0, 0)


def test_extremes_are_counted_in_the_outer_bins():
    histogram = LatencyHistogram()
    for latency_us in (-1.0, 0.0, 1e12):
        histogram.add(latency_us)
    assert histogram.n == 3
    assert histogram.max_us == 1e12
    assert histogram.quantile_us(0.5) == pytest.approx(1, rel=0.01)


def test_one_latency_is_every_quantile():
    histogram = LatencyHistogram()
    histogram.add(100.0)
    assert Latency.of(histogram) == Latency(100.0, 100.0, 100.0, 100.0)
