"""Task metrics: how well outputs do what the model is for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_gru.errors import ConfigError, DataError

Outputs: TypeAlias = Sequence[npt.NDArray[np.float32]]
TargetList: TypeAlias = Sequence[npt.NDArray[Any]]
Score: TypeAlias = Callable[[Outputs, TargetList], float]


@dataclass(frozen=True)
class Metric:
    """A score of outputs ``(n_steps, n_out)``, one a sequence, and the targets of the sequences.

    ``more_is_better`` None: the direction is not known, so that any change counts. Of a score that
    ``is_ratio``, an error as a share of something, the difference counts as it is.
    """

    name: str
    score: Score
    more_is_better: bool | None = None
    is_ratio: bool = False

    def __call__(self, outputs: Outputs, targets: TargetList) -> float:
        """Score outputs.

        Raises:
            DataError: the targets do not fit the outputs, or the score is not finite.
        """
        found = float(self.score(outputs, targets))
        if not math.isfinite(found):
            raise DataError(
                f"expected a finite {self.name}, got {found}; check targets and metric on the "
                "outputs of your own model"
            )
        return found

    def worsening(self, reference: float, found: float) -> float:
        """Tell how much worse ``found`` is, relative to the reference; at most 0 if it is not.

        From a reference of 0, and of a ratio, the difference itself.
        """
        difference = found - reference
        if self.more_is_better is None:
            difference = abs(difference)
        elif self.more_is_better:
            difference = -difference
        return difference / abs(reference) if reference and not self.is_ratio else difference


def find_metric(metric: str | Score | Metric | None, *, has_targets: bool) -> Metric | None:
    """Look up a metric by name, or take the user's function.

    Raises:
        ConfigError: unknown, or a metric without targets, or targets without a metric.
    """
    if (metric is not None) != has_targets:
        given, missing = ("targets", "metric") if has_targets else ("metric", "targets")
        raise ConfigError(
            f"expected metric and targets together, got {given} without {missing}; "
            f"give both: a metric of {', '.join(METRICS)}, or a function"
        )
    if metric is None or isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ConfigError(f"expected a metric of {', '.join(METRICS)}, got {metric!r}")
        return METRICS[metric]
    return Metric(getattr(metric, "__name__", "metric"), metric)


def accuracy(outputs: Outputs, targets: TargetList) -> float:
    """Return the share of right classes; targets are indices, negative where there is no label."""
    predicted, truth, _ = _classes(outputs, targets)
    return float(np.mean(predicted == truth))


def macro_f1(outputs: Outputs, targets: TargetList) -> float:
    """Return the mean F1 over the classes that occur; targets as for ``accuracy``."""
    predicted, truth, n_classes = _classes(outputs, targets)
    confusion = np.zeros((n_classes, n_classes))
    np.add.at(confusion, (truth, predicted), 1)
    n_involved = confusion.sum(axis=0) + confusion.sum(axis=1)
    occurs = n_involved > 0
    return float(np.mean(2 * np.diag(confusion)[occurs] / n_involved[occurs]))


def rmse(outputs: Outputs, targets: TargetList) -> float:
    """Return the root mean square error; NaN targets are left out."""
    y, truth = _values(outputs, targets)
    return float(np.sqrt(np.mean((y - truth) ** 2)))


def mae(outputs: Outputs, targets: TargetList) -> float:
    """Return the mean absolute error; NaN targets are left out."""
    y, truth = _values(outputs, targets)
    return float(np.mean(np.abs(y - truth)))


def esr(outputs: Outputs, targets: TargetList) -> float:
    """Return the error-to-signal ratio; NaN targets are left out."""
    y, truth = _values(outputs, targets)
    signal = float(np.sum(truth**2))
    return float(np.sum((y - truth) ** 2)) / signal if signal else math.inf


METRICS = {
    "accuracy": Metric("accuracy", accuracy, more_is_better=True),
    "macro_f1": Metric("macro_f1", macro_f1, more_is_better=True),
    "rmse": Metric("rmse", rmse, more_is_better=False),
    "mae": Metric("mae", mae, more_is_better=False),
    "esr": Metric("esr", esr, more_is_better=False, is_ratio=True),
}


def _aligned(
    outputs: Outputs, targets: TargetList
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Pair every target with its output: of each step, or of the last."""
    rows, truths = [], []
    for k, (y, target) in enumerate(zip(outputs, targets, strict=True)):
        per_step = target.ndim > 0 and len(target) == len(y)
        row = y if per_step else y[-1:]
        truth = target if per_step else target[None]
        if truth.size not in (len(row), row.size):
            raise DataError(
                f"expected targets of shape ({len(y)},), ({len(y)}, {y.shape[1]}), or of the last "
                f"step alone, got {target.shape} for sequence {k}"
            )
        rows.append(row.astype(np.float64))
        truths.append(truth.reshape(len(row), -1))
    return np.concatenate(rows), np.concatenate(truths)


def _classes(
    outputs: Outputs, targets: TargetList
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], int]:
    y, truth = _aligned(outputs, targets)
    n_classes = y.shape[1]
    if n_classes < 2 or truth.shape[1] != 1:
        raise DataError(
            f"expected one output for each class and one index a target, got {n_classes} outputs "
            f"and {truth.shape[1]} values; give a metric of your own"
        )
    known = np.isfinite(truth[:, 0]) & (truth[:, 0] >= 0)
    classes = truth[known, 0].astype(np.intp)
    if not classes.size or classes.max() >= n_classes:
        raise DataError(
            f"expected class indices from 0 to {n_classes - 1}, "
            f"got {classes.max() if classes.size else 'none'}"
        )
    return y[known].argmax(axis=1), classes, n_classes


def _values(
    outputs: Outputs, targets: TargetList
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    y, truth = _aligned(outputs, targets)
    if truth.shape != y.shape:
        raise DataError(
            f"expected a target for each of {y.shape[1]} outputs, got {truth.shape[1]}; "
            "NaN where there is none"
        )
    known = np.isfinite(truth)
    if not known.any():
        raise DataError("expected finite targets, got none")
    return y[known], truth[known].astype(np.float64)
