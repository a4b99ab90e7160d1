"""Integer weights learnt from the float model: its outputs and states on a real stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from quantization.progress import Progress
from quantization.qat.master import MasterWeights
from quantization.qat.step import Factors, TorchStep
from quantization.qat.twin import TwinStream
from quantization.quantized import Quantized
from quantization.rounding import QuantizedRows
from quantization.step_model import StepModel

Tensor: TypeAlias = torch.Tensor

_WINDOW_STEPS = 64
_N_WINDOWS = 32
_STEPS_RATE = 3e-3  # of weights, in steps of their grid
_GROWTH_RATE = 1e-3  # of the logarithm of a row scale
_LONGEST_GRADIENT = 1.0
_STATE_SHARE = 0.1  # of the loss
_LEAST_VARIANCE = 1e-3  # of the mean: what hardly moves must not decide
_N_LOOKS = 5  # single roundings flip to the end, so that the last need not be the best
_SEED = 0


class Distiller:
    """Finetunes what is made of one model.

    Raises:
        ConfigError: the step has an operation that cannot be followed; names it.
    """

    def __init__(self, model: StepModel, n_steps: int) -> None:
        self._model, self._n_steps = model, n_steps
        self._step = TorchStep(model)

    def finetune(
        self, quantized: Quantized, twin: TwinStream, progress: Progress
    ) -> list[dict[str, QuantizedRows]]:
        """Learn the rows of every integer weight; the grids of operands stay as they are.

        Returns them as they were at five times, or after each step where there are fewer.
        """
        looks = np.linspace(0, self._n_steps, _N_LOOKS + 1, dtype=int)[1:]
        found: list[dict[str, QuantizedRows]] = []
        with _one_thread():
            weights, windows = MasterWeights(self._model, quantized), _Windows(twin, self._step)
            optimizer = torch.optim.Adam(
                [
                    {"params": weights.steps(), "lr": _STEPS_RATE},
                    {"params": weights.log_growths(), "lr": _GROWTH_RATE},
                ]
            )
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._n_steps)
            learnt = weights.steps() + weights.log_growths()
            for k in range(self._n_steps):
                optimizer.zero_grad()
                windows.loss(weights.factors()).backward()
                length = torch.nn.utils.clip_grad_norm_(learnt, _LONGEST_GRADIENT)
                if not torch.isfinite(length):
                    optimizer.zero_grad()  # it points nowhere
                optimizer.step()
                schedule.step()
                if k + 1 in looks:
                    found.append(weights.rows())
                progress("finetune", k + 1, self._n_steps)
        return found


class _Windows:
    """Windows of the twin's stream, anywhere in it, each from the state that the twin had there.

    Where a sequence begins within a window, the state is the twin's once more.
    """

    def __init__(self, twin: TwinStream, step: TorchStep) -> None:
        self._step = step
        self._x, self._y = torch.from_numpy(twin.x), torch.from_numpy(twin.y)
        self._begins = torch.from_numpy(twin.begins)
        self._before = {name: torch.from_numpy(v) for name, v in twin.before.items()}
        self._after = {name: torch.from_numpy(v) for name, v in twin.after.items()}
        self._y_weight = _one_over_variance(twin.y)
        self._state_weights = {name: _one_over_variance(v) for name, v in twin.after.items()}
        self._n_steps = min(_WINDOW_STEPS, len(twin.x))
        self._rng = np.random.default_rng(_SEED)

    def loss(self, factors: Factors) -> Tensor:
        """Compare outputs and states of the next windows with the twin's, in their variances."""
        last = len(self._x) - self._n_steps
        starts = torch.from_numpy(self._rng.integers(last + 1, size=_N_WINDOWS))
        at = starts + torch.arange(self._n_steps)[:, None]
        begins = self._begins[at]
        restart = {
            t: (begins[t][:, None], self._states(at[t]))
            for t in begins.any(dim=1).nonzero().flatten().tolist()
        }
        y, after = self._step.run(self._x[at], self._states(starts), restart, factors)
        loss = ((y - self._y[at]).square() * self._y_weight).mean()
        for name, value in after.items():
            error = (value - self._after[name][at]).square() * self._state_weights[name]
            loss = loss + _STATE_SHARE * error.mean()
        return loss

    def _states(self, at: Tensor) -> dict[str, Tensor]:
        return {name: v[at] for name, v in self._before.items()}


def _one_over_variance(values: npt.NDArray[np.float32]) -> Tensor:
    variance = values.var(axis=0, dtype=np.float64)
    least = max(_LEAST_VARIANCE * variance.mean(), np.finfo(np.float32).tiny)
    return torch.from_numpy(1 / np.maximum(variance, least)).to(torch.float32)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep the sums in one order: that of several threads depends on how many there are."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
