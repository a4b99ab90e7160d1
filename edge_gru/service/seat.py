"""The engine that serves, who takes its place, and the event that tells of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from edge_gru.engines.base import Engine
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.upgrade import Better
from edge_gru.errors import EngineLostError, EngineUnavailableError
from edge_gru.predictor import Predictor

_log = logging.getLogger(__name__)

OpenSpare: TypeAlias = Callable[[], tuple[Engine, GoldenResult]]
Tell: TypeAlias = Callable[[str, str, GoldenResult | None], None]
"""Called with the name of the engine from before, the reason, and what the vectors said."""


class Seat:
    """Holds one engine. A better one takes over with the state; a lost one is replaced.

    ``open_spare`` opens what goes on should an engine that took over be lost: where it is None, the
    loss is the caller's.
    """

    def __init__(self, engine: Engine, open_spare: OpenSpare | None, tell: Tell) -> None:
        self.engine = engine
        self._open_spare = open_spare
        self._tell = tell
        self._may_be_lost = False

    @property
    def name(self) -> str:
        """Engine and precision, as events have it."""
        return f"{self.engine.name}-{self.engine.precision}"

    @property
    def spare(self) -> Callable[[EngineLostError], Engine] | None:
        """What a predictor calls when the engine is lost; None where it cannot be."""
        return self._replace if self._may_be_lost else None

    def take_over(self, better: Better, predictor: Predictor) -> None:
        """Let a better engine go on, and close the one from before; where there is none, say so."""
        previous = self.name
        if better.engine is None:
            _log.info("%s goes on serving: %s", previous, better.reason)
        else:
            self._may_be_lost = self._open_spare is not None
            predictor.switch(better.engine, self.spare).close()
            self.engine = better.engine
            _log.info(
                "%s serves from here on, the state carried over: %s", self.name, better.reason
            )
        self._tell(previous, better.reason, better.golden)

    def close(self) -> None:
        """Close the engine."""
        with suppress(EngineUnavailableError):  # it may be lost, and nothing is left to close
            self.engine.close()

    def _replace(self, error: EngineLostError) -> Engine:
        if self._open_spare is None:
            raise error
        engine, golden = self._open_spare()
        previous, self._may_be_lost = self.name, False
        self.close()
        self.engine = engine
        _log.warning("%s is lost (%s); %s goes on", previous, error, self.name)
        self._tell(previous, str(error), golden)
        return engine
