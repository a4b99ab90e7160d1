"""Every error that edge_gru raises, each one also a builtin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EdgeGruError(Exception):
    """Root of the errors of edge_gru and quantization."""


class BundleError(EdgeGruError, ValueError):
    """A bundle cannot be read or written: truncated, tampered with, hostile, of another format."""


class EngineUnavailableError(EdgeGruError, RuntimeError):
    """An engine is unknown, not installed here, or cannot run this bundle."""


class EngineLostError(EngineUnavailableError, RuntimeError):
    """An engine broke under its streams, and cannot run again in this process.

    ``states`` holds the last saved or loaded state of each stream that has one, by its number: what
    another engine can continue from.
    """

    def __init__(self, message: str, states: Mapping[int, Any] | None = None) -> None:
        super().__init__(message)
        self.states = dict(states or {})


class GoldenMismatchError(EdgeGruError, RuntimeError):
    """An engine does not reproduce the golden vectors of the bundle, so it may not serve."""


class InputShapeError(EdgeGruError, ValueError):
    """An array has the wrong shape, or names a stream that the engine does not have."""


class StateMismatchError(EdgeGruError, ValueError):
    """A state belongs to another model."""


class ConfigError(EdgeGruError, ValueError):
    """A setting is unknown, missing or out of its range."""


class StoreError(EdgeGruError, RuntimeError):
    """A bundle may not be put on this device, or the store cannot do what it was asked."""


class ShippingError(EdgeGruError, RuntimeError):
    """What goes on a board cannot be made, or cannot be brought there."""


class ModelError(EdgeGruError, ValueError):
    """A trained model cannot become a step graph, or the step graph is not equal to it."""


class DataError(EdgeGruError, ValueError):
    """Calibration or test data do not fit: wrong channels, not finite, too short, unreadable."""


class GateError(EdgeGruError, RuntimeError):
    """A quantized model does not pass its gate, so it is not packed.

    ``report`` is the whole report, as the bundle would have carried it.
    """

    def __init__(self, message: str, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report
