"""The search for a better engine, beside the loop that serves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from edge_gru.engines.table import Build
from edge_gru.engines.upgrade import Better, Upgrade
from edge_gru.errors import EdgeGruError
from edge_gru.service.build_unit import BuildUnit

_log = logging.getLogger(__name__)


class Standby:
    """Searches in a thread of its own; the loop asks for the result, and never waits for it.

    A ``unit`` that builds engines, where there is one, goes first.
    """

    def __init__(
        self,
        upgrade: Upgrade,
        *,
        progress: Callable[[str, float], None] | None = None,
        unit: BuildUnit | None = None,
    ) -> None:
        self._upgrade = upgrade
        self._unit = unit or BuildUnit()
        self._build = Build(progress)
        self._executor = ThreadPoolExecutor(1, "edge-gru-standby")
        self._search: Future[Better] | None = None

    def start(self) -> None:
        """Begin the search."""
        engine, precision = self._upgrade.serving
        _log.info(
            "building %s in the background; %s %s serves meanwhile",
            *(self._upgrade.title, engine, precision),
        )
        self._search = self._executor.submit(self._find)

    def _find(self) -> Better:
        self._unit.wait(self._build.cancel)
        self._build.check()
        return self._upgrade.find(self._build)

    def poll(self) -> Better | None:
        """Give the result, once; whatever went wrong is a reason for the engine to stay."""
        if self._search is None or not self._search.done():
            return None
        search, self._search = self._search, None
        self._executor.shutdown(wait=False)
        error = search.exception()
        if error is None:
            return search.result()
        if not isinstance(error, EdgeGruError):
            _log.warning("the search for a faster engine failed", exc_info=error)
        return Better(None, None, str(error) or type(error).__name__)

    def stop(self) -> None:
        """End the search; an engine that it still finds is closed."""
        self._build.cancel.set()
        if self._search is not None:
            self._search.add_done_callback(_close_found)
            self._search = None
        self._executor.shutdown(wait=False, cancel_futures=True)


def _close_found(search: Future[Better]) -> None:
    if search.cancelled() or search.exception() is not None:
        return
    engine = search.result().engine
    if engine is not None:
        engine.close()
