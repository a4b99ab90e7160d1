"""Which model serves, and which one follows it: for ever the one in a file, or those of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from edge_gru.bundle import load
from edge_gru.engines.base import Engine
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.select import open_proven
from edge_gru.manifest import Manifest
from edge_gru.predictor import Prediction
from edge_gru.service.config import RunConfig
from edge_gru.service.statistics import Summary


@dataclass(frozen=True)
class Model:
    """A proven engine; ``continues`` are hashes of models whose state it may go on from."""

    engine: Engine
    golden: GoldenResult
    continues: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.engine.manifest


class BundleStatus(msgspec.Struct, frozen=True):
    """Which bundle of a store serves, and how far its trial is; without one the trial is null."""

    folder: str
    version: int
    trial_s: float | None = None
    served_s: float | None = None
    starts_left: int | None = None


class Models(Protocol):
    """Where the loop has its models from. All is called by the loop, and returns at once."""

    @property
    def wants_restart(self) -> bool:
        """Whether a model waits that the open link does not fit."""

    def first(self) -> Model:
        """Open the model that serves first; this one call may take its time."""

    def following(self) -> Model | None:
        """Hand out the next model once it is proven; the caller closes the engine before it."""

    def observe(self, prediction: Prediction) -> None:
        """Take notice of a prediction."""

    def look(self, now_s: float, summary: Summary) -> None:
        """Take notice of the counters, about once a second."""

    def status(self) -> BundleStatus | None:
        """Say which bundle serves, if it is one of a store."""

    def close(self, *, is_fault: bool) -> None:
        """Let go; ``is_fault``: the run ended by an error."""


class FileModels:
    """The one model of a bundle file."""

    wants_restart = False

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def first(self) -> Model:
        """Open the engine and prove it."""
        config = self._config
        source = load(config.bundle).source
        return Model(*open_proven(config.engine, source, precision=config.precision))

    def following(self) -> Model | None:
        """There is none."""
        return None

    def observe(self, prediction: Prediction) -> None:
        """Do nothing."""

    def look(self, now_s: float, summary: Summary) -> None:
        """Do nothing."""

    def status(self) -> BundleStatus | None:
        """Say nothing: there is no store."""
        return None

    def close(self, *, is_fault: bool) -> None:
        """Do nothing."""
