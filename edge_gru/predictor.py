"""One stream of predictions: when the state is carried, held or cleared, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine
from edge_gru.errors import ConfigError, EngineLostError, InputShapeError
from edge_gru.state import State
from firmware_bridge.sample import Float32, Sample

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GapPolicy:
    """When two samples still belong to one sequence.

    Up to ``max_missing`` lost samples, and up to ``max_gap_s`` seconds between two samples, the
    state is held: it waits, as if the missing samples had not been. Beyond, it is cleared.

    Raises:
        ConfigError: a negative count, or a time that is not positive.
    """

    max_missing: int = 3
    max_gap_s: float = 1.0

    def __post_init__(self) -> None:
        if self.max_missing < 0:
            raise ConfigError(f"expected max_missing of 0 or more, got {self.max_missing}")
        if not self.max_gap_s > 0:  # also refuses NaN
            raise ConfigError(f"expected a positive max_gap_s, got {self.max_gap_s}")

    @classmethod
    def for_rate(cls, rate_hz: float | None) -> GapPolicy:
        """Allow ten sample periods between samples, one second where the rate is unknown."""
        return cls(max_gap_s=10 / rate_hz if rate_hz else 1.0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one sample, and how many steps stand behind it."""

    sample: Sample
    values: Float32
    n_steps: int
    is_warming_up: bool


@dataclass
class PredictorStatistics:
    """What happened to the state, and to samples that were no numbers.

    ``saturated`` counts for each channel the samples beyond the grid that the model was quantized
    on; empty where it has none.
    """

    n_predictions: int = 0
    rejected_samples: int = 0
    held_gaps: int = 0
    resets_gap: int = 0
    resets_epoch: int = 0
    resets_time: int = 0
    saturated: list[int] = field(default_factory=list)


class Predictor:
    """Runs stream 0 of an engine over the samples of one sensor.

    A recurrent state is a claim about the past, so it is cleared where the past is unknown: after
    a long gap, after a restart of the board, when time runs backwards. A sample that is not finite
    never reaches the state; it counts as one missing sample.

    With a ``spare``, which opens another engine of the model, an engine that is lost is replaced:
    from the last checkpoint, and the samples since then, its state is computed again. Whoever gives
    one calls ``checkpoint`` about once a second, which also frees those samples.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        gap_policy: GapPolicy,
        n_warmup: int | None,
        spare: Callable[[EngineLostError], Engine] | None = None,
    ) -> None:
        self._engine = engine
        self._spare = spare
        self._saved: State | None = None
        self._since: list[Float32] = []  # samples that the saved state has not seen
        self._policy = gap_policy
        self._n_warmup = math.inf if n_warmup is None else n_warmup
        self.statistics = PredictorStatistics()
        self._read_limit()
        self._clear()

    def _read_limit(self) -> None:
        limit = self._engine.manifest.precisions[self._engine.precision].input_limit
        self._limit = None if limit is None else np.array([limit.minimum, limit.maximum])
        if limit is not None and not self.statistics.saturated:
            self.statistics.saturated = [0] * self._engine.n_in

    def switch(
        self, engine: Engine, spare: Callable[[EngineLostError], Engine] | None = None
    ) -> Engine:
        """Go on with another engine of the same model; return the one from before, still open.

        The state is carried over, so the next sample is predicted as it would have been. ``spare``
        opens a replacement for the new one.

        Raises:
            StateMismatchError: it is of another model; nothing is changed.
        """
        before, state = self._engine, self._engine.save_state(0)
        engine.load_state(0, state)
        self._engine, self._spare, self._saved = engine, spare, state
        self._since.clear()
        self._read_limit()
        return before

    def checkpoint(self) -> None:
        """Save the state, from which a spare engine can go on."""
        try:
            self._saved = self._engine.save_state(0)
        except EngineLostError as error:
            self._recover(error)
            self._saved = self._engine.save_state(0)
        self._since.clear()

    def _recover(self, error: EngineLostError) -> None:
        """Go on with the spare engine where the lost one stopped."""
        if self._spare is None:
            raise error
        spare, self._spare = self._spare, None
        self._engine = spare(error)
        self._read_limit()
        if self._saved is not None:
            self._engine.load_state(0, self._saved)
        for x in self._since:
            self._engine.step(x)

    def _step(self, x: Float32) -> Float32:
        try:
            y = self._engine.step(x)
        except EngineLostError as error:
            self._recover(error)
            y = self._engine.step(x)
        if self._spare is not None:
            self._since.append(x)
        return y

    def _clear(self) -> None:
        self._saved = None
        self._since.clear()
        try:
            self._engine.reset(0)
        except EngineLostError as error:
            self._recover(error)
        self._n_steps = 0
        self._n_missing = 0
        self._last_t_s: float | None = None

    def note_missing(self, n_missing: int) -> None:
        """Tell that ``n_missing`` samples were lost before the next one."""
        self._n_missing += n_missing

    def note_new_stream(self) -> None:
        """Tell that what follows has nothing to do with what came before: a restarted board."""
        if self._n_steps:
            self.statistics.resets_epoch += 1
        self._clear()

    def continue_from(self, earlier: Predictor) -> None:
        """Continue the stream of another predictor with its state.

        Raises:
            StateMismatchError: the state is none that this engine's model can have; it starts anew.
        """
        state = replace(earlier._engine.save_state(0), model_hash=self._engine.model_hash)
        self._engine.load_state(0, state)
        self._n_steps = earlier._n_steps
        self._n_missing = earlier._n_missing
        self._last_t_s = earlier._last_t_s

    def push(self, sample: Sample) -> Prediction | None:
        """Predict from ``sample`` and all samples since the state was last cleared.

        Returns None for a sample that is not finite.

        Raises:
            InputShapeError: ``sample.values`` is not of shape ``(n_in,)``; the state is kept.
        """
        if sample.values.shape != (self._engine.n_in,):
            raise InputShapeError(
                f"expected {self._engine.n_in} channels, got shape {sample.values.shape}; "
                "is this the bundle for this sensor?"
            )
        if not np.isfinite(sample.values).all():
            self.statistics.rejected_samples += 1
            self._n_missing += 1
            return None
        if self._limit is not None:
            self._count_saturated(sample.values, *self._limit)
        self._apply_policy(sample)
        values = self._step(sample.values)
        self._n_steps += 1
        self._n_missing = 0
        self._last_t_s = sample.t_s
        self.statistics.n_predictions += 1
        return Prediction(sample, values, self._n_steps, self._n_steps <= self._n_warmup)

    def _count_saturated(self, values: Float32, low: Float64, high: Float64) -> None:
        beyond = (values < low) | (values > high)
        for channel in beyond.nonzero()[0].tolist():
            self.statistics.saturated[channel] += 1

    def _apply_policy(self, sample: Sample) -> None:
        if self._last_t_s is None:
            return
        elapsed_s = sample.t_s - self._last_t_s
        if not elapsed_s > 0:  # also where the time is no number
            self.statistics.resets_time += 1
        elif self._n_missing > self._policy.max_missing or elapsed_s > self._policy.max_gap_s:
            self.statistics.resets_gap += 1
        else:
            self.statistics.held_gaps += self._n_missing > 0
            return
        self._clear()
