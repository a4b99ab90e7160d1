"""The long-running loop: one port, one model, any number of sinks, until it is told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

import msgspec

from edge_gru.errors import ConfigError
from edge_gru.manifest import Manifest
from edge_gru.service.board_sink import BoardSink, WayBack
from edge_gru.service.build_unit import BuildUnit
from edge_gru.service.config import BOARD, RunConfig
from edge_gru.service.events import Event
from edge_gru.service.models import BundleStatus, FileModels, Model, Models
from edge_gru.service.notify import Notifier
from edge_gru.service.pipeline import Pipeline
from edge_gru.service.sinks import Sink
from edge_gru.service.standby import Standby
from edge_gru.service.statistics import Summary
from firmware_bridge.errors import PortError
from firmware_bridge.link import Link, LinkStatistics
from firmware_bridge.recording import ReplayLink
from firmware_bridge.sample import Item, Schema

_log = logging.getLogger(__name__)

_RECORDING = ".mcap"
_SILENCE_S = 1.0  # the loop shows that it is alive at least this often


class ItemSource(Protocol):
    """What the loop needs of a link."""

    @property
    def statistics(self) -> LinkStatistics:
        """The counters so far."""

    @property
    def overrun_samples(self) -> int:
        """How many samples were dropped here so far; as in the counters, and quicker."""

    @property
    def finished(self) -> bool:
        """Stopped, and everything that was read has been received."""

    def receive(self, timeout_s: float) -> Item | None:
        """Wait for the next item."""

    def stop(self) -> None:
        """Read no more; what was read can still be received."""


class Monitor(Protocol):
    """What wants to know the counters about once a second."""

    def look(self, now_s: float, summary: Summary, bundle: BundleStatus | None) -> None:
        """Take notice of them; returns at once."""


LinkFactory = Callable[[RunConfig, Manifest], AbstractContextManager[ItemSource]]


def make_link(config: RunConfig, manifest: Manifest) -> Link | ReplayLink:
    """Make the link to the configured port, for samples such as the model was trained on.

    A recording in the place of a port is replayed as fast as it is predicted from.
    """
    rate_hz = config.rate_hz or manifest.schema.rate_hz
    if config.port.endswith(_RECORDING):
        return ReplayLink(config.port, schema=manifest.schema)
    return Link(
        config.port,
        format=config.format,
        baud=config.baud,
        stop_bits=config.stop_bits,
        schema=Schema(manifest.schema.channels, rate_hz),
        rate_hz=rate_hz,
        wait_for_port=config.wait_for_port,
    )


class Service:
    """Predicts from one port; every sample that was read is predicted, also those before a stop.

    The sinks are this service's once ``run`` is called: it flushes and closes them, whatever
    happens. When the reader of one has left, the run ends as if it had been stopped.
    """

    def __init__(
        self,
        config: RunConfig,
        sinks: Sequence[Sink],
        *,
        notifier: Notifier | None = None,
        models: Models | None = None,
        monitors: Sequence[Monitor] = (),
        build_unit: BuildUnit | None = None,
        link_factory: LinkFactory = make_link,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._sinks = tuple(sinks)
        self._notifier = notifier or Notifier()
        self._models = models or FileModels(config)
        self._monitors = tuple(monitors)
        self._build_unit = build_unit
        self._link_factory = link_factory
        self._clock = clock
        self._engines = ExitStack()
        self._link: ItemSource | None = None
        self._standby: Standby | None = None
        self._is_stopping = False

    def stop(self) -> None:
        """Read no more, and let ``run`` end with what was read; safe in threads and signals."""
        self._is_stopping = True
        if self._link is not None:
            self._link.stop()

    def run(self) -> Summary:
        """Prove the engine on the golden vectors, then predict until stopped.

        Raises:
            BundleError: the bundle cannot be read.
            EngineUnavailableError: the engine cannot run it here.
            GoldenMismatchError: the engine does not reproduce the golden vectors.
            PortError: the port cannot be opened.
            SchemaError: the board's channels are not the model's.
            ProtocolError: the board cannot be worked with.
            ConfigError: the output board is wanted and the port has no way back.
        """
        try:
            summary = self._run()
        finally:
            for sink in self._sinks:
                sink.close()
        return msgspec.structs.replace(summary, dropped_events=self._n_dropped_events())

    def _run(self) -> Summary:
        models = self._models
        model = models.first()
        is_fault = True
        try:
            summary = self._serve(self._pipeline(model), model.manifest)
            is_fault = False
        except (PortError, ConfigError):  # whatever the model is like
            is_fault = False
            raise
        finally:
            self._engines.close()
            models.close(is_fault=is_fault)
        return summary

    def _serve(self, pipeline: Pipeline, manifest: Manifest) -> Summary:
        with self._link_factory(self._config, manifest) as link:
            self._link = link
            self._answer_board(link, manifest)
            if self._is_stopping:  # stopped while there was no link yet
                link.stop()
            self._notifier.ready()
            self._begin(pipeline)
            pipeline = self._loop(link, pipeline)
            self._notifier.stopping()
            _log.info("reading has ended; all that was read is predicted")
            summary = self._summary(link, pipeline)
            pipeline.report(summary, final=True)
            self._look(summary)
            return summary

    def _pipeline(self, model: Model) -> Pipeline:
        engines = self._engines
        engines.callback(model.engine.close)  # closing twice is fine
        pipeline = Pipeline(
            self._config,
            model.engine,
            model.golden,
            emit=self._emit,
            observe=self._models.observe,
            clock=self._clock,
            open_spare=model.open_spare,
        )
        engines.callback(pipeline.close)
        self._standby = None
        if model.upgrade is not None:
            self._standby = Standby(
                model.upgrade, progress=self._tell_progress, unit=self._build_unit
            )
            engines.callback(self._standby.stop)
        return pipeline

    def _begin(self, pipeline: Pipeline) -> None:
        pipeline.start()
        if self._standby is not None:
            self._standby.start()

    def _loop(self, link: ItemSource, pipeline: Pipeline) -> Pipeline:
        """Predict until the link has ended; return what predicted last."""
        config, clock = self._config, self._clock
        flush, alive = _Timer(config.flush_s, clock()), _Timer(_SILENCE_S, clock())
        health = _Timer(config.health_s or float("inf"), clock())
        while True:
            wait_s = min(flush.left_s(clock()), _SILENCE_S) if config.flush_s else _SILENCE_S
            item = link.receive(wait_s)
            if item is not None:
                pipeline.process(item, link.overrun_samples)
            elif link.finished:
                return pipeline
            self._take_over(pipeline)
            now_s = clock()
            if flush.is_due(now_s):
                self._flush()
            if alive.is_due(now_s):
                self._notifier.alive()
                pipeline.checkpoint()
                self._look(self._summary(link, pipeline))
                pipeline = self._follow(link, pipeline)
            if health.is_due(now_s):
                pipeline.report(self._summary(link, pipeline))

    def _look(self, summary: Summary) -> None:
        now_s = self._clock()
        self._models.look(now_s, summary)
        for monitor in self._monitors:
            monitor.look(now_s, summary, self._models.status())

    def _follow(self, link: ItemSource, pipeline: Pipeline) -> Pipeline:
        """Let the next model take over between two samples, if there is one."""
        model = self._models.following()
        if self._models.wants_restart and not self._is_stopping:
            self.stop()
        if model is None:
            return pipeline
        before, self._engines = self._engines, ExitStack()
        with before:
            successor = self._pipeline(model)
            successor.continue_from(pipeline, model.continues)
        self._answer_board(link, model.manifest)
        self._begin(successor)
        return successor

    def _answer_board(self, link: ItemSource, manifest: Manifest) -> None:
        """Send the answers of a model back to the board, if that is wanted."""
        if BOARD not in self._config.outputs:
            return
        others = [sink for sink in self._sinks if not isinstance(sink, BoardSink)]
        self._sinks = (*others, _board_sink(link, manifest))

    def _take_over(self, pipeline: Pipeline) -> None:
        better = None if self._standby is None else self._standby.poll()
        if better is not None:
            pipeline.take_over(better)

    def _tell_progress(self, stage: str, share: float) -> None:
        self._notifier.status(f"predicting; building a faster engine: {stage}, {share:.0%}")

    def _summary(self, link: ItemSource, pipeline: Pipeline) -> Summary:
        return pipeline.summary(link.statistics, n_dropped_events=self._n_dropped_events())

    def _n_dropped_events(self) -> int:
        return sum(sink.n_dropped for sink in self._sinks)

    def _emit(self, event: Event) -> None:
        for sink in self._sinks:
            sink.write(event)

    def _flush(self) -> None:
        readers = [sink.flush() for sink in self._sinks]
        if not all(readers) and not self._is_stopping:
            _log.info("the reader of the predictions has left; ending")
            self.stop()


def _board_sink(link: ItemSource, manifest: Manifest) -> BoardSink:
    if not isinstance(link, WayBack):
        raise ConfigError(
            "expected a board's port for the output board, got one that only reads; leave that "
            "output out"
        )
    return BoardSink(link, [alert.name for alert in manifest.alerts])


class _Timer:
    """Is due every ``period_s`` seconds, counted from when it was last seen to be."""

    def __init__(self, period_s: float, now_s: float) -> None:
        self._period_s = period_s
        self._due_s = now_s + period_s

    def left_s(self, now_s: float) -> float:
        return max(self._due_s - now_s, 0.0)

    def is_due(self, now_s: float) -> bool:
        if now_s < self._due_s:
            return False
        self._due_s = now_s + self._period_s
        return True
