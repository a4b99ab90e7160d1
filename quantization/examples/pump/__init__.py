"""Wear of a pump's bearing from six channels at 100 Hz; the pump is simulated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from firmware_bridge.sample import Float32, Schema
from firmware_bridge.simulator.pump import PumpScenario, PumpSource
from quantization.examples.example import Architecture, Example, Targets, check_split
from quantization.examples.pump.alert import DEFAULT_RULE, Outcome, judged

SPLITS = {"train": 320, "validation": 1000, "test": 200}
FIRST_SEED = {"train": 10_000, "validation": 20_000, "test": 30_000}
HEALTHY_SHARE = 0.4
HEALTHY_S = (30.0, 60.0, 120.0)


class Pump(Example):
    """Tells the wear, 0 to 1; splits are ``train``, ``validation`` and ``test``."""

    name = "pump"
    outputs = ("wear",)
    task_metric = "rmse_wear"
    more_is_better = False
    architecture = Architecture(n_hidden=32, squashed=True)
    alert = DEFAULT_RULE

    def schema(self) -> Schema:
        """Return the channels of the pump's board at 100 Hz."""
        return PumpSource().schema

    def scenarios(self, split: str) -> list[PumpScenario]:
        """Return the scenarios of a split: each another machine, worn ones and healthy ones."""
        check_split(split, tuple(SPLITS))
        first = FIRST_SEED[split]
        return [random_scenario(seed) for seed in range(first, first + SPLITS[split])]

    def sequences(self, split: str) -> list[Float32]:
        """Return what the boards report, 10 to 120 s each."""
        return [PumpSource(scenario).arrays()[0] for scenario in self.scenarios(split)]

    def targets(self, split: str) -> list[Targets]:
        """Return the true wear at every sample."""
        return [PumpSource(scenario).arrays()[1] for scenario in self.scenarios(split)]

    def outcomes(self, outputs: Sequence[Float32], split: str) -> list[Outcome]:
        """Tell for each scenario when the default rule called wear, and when it began."""
        return judged(self.scenarios(split), outputs, self.alert)

    def metric(self, outputs: Sequence[Float32], split: str) -> Mapping[str, float]:
        """Return the RMSE of the wear, false alarms, missed bearings and the delay of the call."""
        outcomes = self.outcomes(outputs, split)
        truth = np.concatenate(self.targets(split))
        errors = np.concatenate(list(outputs))[:, 0].astype(np.float64) - truth
        delays = [o.delay_s for o in outcomes if o.detected] or [math.inf]
        return {
            "rmse_wear": float(np.sqrt(np.mean(errors**2))),
            "n_false_alarms": float(sum(o.false_alarm for o in outcomes)),
            "n_missed": float(sum(o.missed for o in outcomes)),
            "median_delay_s": float(np.median(delays)),
            "longest_delay_s": float(np.max(delays)),
        }


def random_scenario(seed: int) -> PumpScenario:
    """Draw load, duration and the life of the bearing; equal seeds give equal scenarios."""
    rng = np.random.default_rng(seed)
    load = rng.uniform(0.5, 0.95)
    disturbances_per_min = rng.uniform(6.0, 24.0)
    if rng.random() < HEALTHY_SHARE:
        duration_s, onset_s, failure_s = float(rng.choice(HEALTHY_S)), math.inf, math.inf
    else:
        onset_s = rng.uniform(2.0, 30.0)
        failure_s = onset_s + rng.uniform(8.0, 30.0)
        duration_s = failure_s + rng.uniform(0.0, 5.0)
    return PumpScenario(
        seed=seed,
        duration_s=duration_s,
        onset_s=onset_s,
        failure_s=failure_s,
        load=load,
        disturbances_per_min=disturbances_per_min,
    )
