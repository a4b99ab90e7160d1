"""Which model serves, and which one follows it: for ever the one in a file, or those of a store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import msgspec

from edge_gru.bundle import load
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.upgrade import Upgrade, open_ready, start
from edge_gru.manifest import Manifest
from edge_gru.predictor import Prediction
from edge_gru.service.config import RunConfig
from edge_gru.service.seat import OpenSpare
from edge_gru.service.statistics import Summary


@dataclass(frozen=True)
class Model:
    """A proven engine, and what may take its place.

    ``open_spare`` opens one that goes on should it be lost, ``upgrade`` finds a better one if there
    may be one; ``continues`` are hashes of models whose state it may go on from.
    """

    engine: Engine
    golden: GoldenResult
    open_spare: OpenSpare
    upgrade: Upgrade | None = None
    continues: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.engine.manifest


def open_model(source: EngineSource, config: RunConfig, continues: tuple[str, ...] = ()) -> Model:
    """Open the engine that is asked for, or one that serves until that is built, and prove it.

    Raises:
        EngineUnavailableError: what is asked for is unknown, not installed, or cannot run this.
        GoldenMismatchError: it does not reproduce the golden vectors.
        BundleError: a part of the bundle is missing or broken.
    """
    begun = start(config.engine, source, precision=config.precision)
    return Model(
        begun.engine,
        begun.golden,
        partial(open_ready, source, config.precision),
        begun.upgrade,
        continues,
    )


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
        return open_model(load(self._config.bundle).source, self._config)

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
