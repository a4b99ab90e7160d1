"""Remaining life of turbofan engines: C-MAPSS FD001, one stream per engine, one step per cycle.

The simulated run-to-failure recordings are NASA's (Saxena et al., PHM 2008).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from firmware_bridge.sample import Float32, Schema
from quantization.examples.example import (
    Architecture,
    Example,
    Targets,
    check_split,
    data_folder,
)

CAP_CYCLES = 125.0

# The sensors that vary in FD001, by their column in the files, named and given units as in the
# documentation of the data set.
SENSORS = {
    6: ("T24", "degR"),
    7: ("T30", "degR"),
    8: ("T50", "degR"),
    10: ("P15", "psia"),
    11: ("P30", "psia"),
    12: ("Nf", "rpm"),
    13: ("Nc", "rpm"),
    15: ("Ps30", "psia"),
    16: ("phi", "pps/psi"),
    17: ("NRf", "rpm"),
    18: ("NRc", "rpm"),
    19: ("BPR", ""),
    21: ("htBleed", ""),
    24: ("W31", "lbm/s"),
    25: ("W32", "lbm/s"),
}


class CmapssFd001(Example):
    """Estimates the remaining life, capped at 125 cycles; splits are ``train`` and ``test``."""

    name = "cmapss_fd001"
    outputs = ("remaining_life_cycles",)
    task_metric = "rmse_cycles"
    more_is_better = False
    architecture = Architecture(n_hidden=64, n_layers=2)

    def schema(self) -> Schema:
        """Return the 15 sensors that vary; a cycle has no rate."""
        return Schema.of(list(SENSORS.values()))

    def sequences(self, split: str) -> list[Float32]:
        """Return one recording per engine, from its first recorded cycle."""
        check_split(split, ("train", "test"))
        rows = np.loadtxt(data_folder(self.name) / f"{split}_FD001.txt")
        sensors = rows[:, list(SENSORS)].astype(np.float32)
        starts = np.flatnonzero(np.diff(rows[:, 0])) + 1
        return np.split(sensors, starts)

    def targets(self, split: str) -> list[Targets]:
        """Return the remaining life at every cycle, capped, in cycles."""
        engines = self.sequences(split)
        at_end = np.zeros(len(engines))
        if split == "test":
            at_end = np.loadtxt(data_folder(self.name) / "RUL_FD001.txt")
        return [
            np.minimum(end + np.arange(len(x))[::-1], CAP_CYCLES).astype(np.float32)
            for x, end in zip(engines, at_end, strict=True)
        ]

    def metric(self, outputs: Sequence[Float32], split: str) -> Mapping[str, float]:
        """Return the RMSE over engines at their last recorded cycle."""
        truth = np.array([target[-1] for target in self.targets(split)])
        errors = np.array([y[-1, 0] for y in outputs], np.float64) - truth
        return {"rmse_cycles": float(np.sqrt(np.mean(errors**2)))}
