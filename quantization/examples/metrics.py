"""Scores of predicted classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.integer]


def accuracy(predicted: Classes, truth: Classes) -> float:
    """Return the share of right decisions."""
    return float(np.mean(predicted == truth))


def macro_f1(predicted: Classes, truth: Classes, n_classes: int) -> float:
    """Return the mean over classes of the harmonic mean of precision and recall."""
    confusion = np.zeros((n_classes, n_classes))
    np.add.at(confusion, (truth, predicted), 1)
    n_right = np.diag(confusion)
    n_involved = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * n_right / np.maximum(n_involved, 1)))
