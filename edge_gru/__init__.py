"""The device side: bundles, engines, the stream runtime and the command line."""

from edge_gru.bundle import Bundle, load
from edge_gru.engines.base import Engine
from edge_gru.errors import (
    BundleError,
    ConfigError,
    DataError,
    EdgeGruError,
    EngineLostError,
    EngineUnavailableError,
    GateError,
    GoldenMismatchError,
    InputShapeError,
    ModelError,
    StateMismatchError,
    StoreError,
)
from edge_gru.predictor import GapPolicy, Prediction, Predictor
from edge_gru.state import State
from edge_gru.version import __version__

__all__ = [
    "Bundle",
    "BundleError",
    "ConfigError",
    "DataError",
    "EdgeGruError",
    "Engine",
    "EngineLostError",
    "EngineUnavailableError",
    "GapPolicy",
    "GateError",
    "GoldenMismatchError",
    "InputShapeError",
    "ModelError",
    "Prediction",
    "Predictor",
    "State",
    "StateMismatchError",
    "StoreError",
    "__version__",
    "load",
]
