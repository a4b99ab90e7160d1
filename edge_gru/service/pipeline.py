"""From what a link delivers to events: the policy for gaps, the predictor, alerts, counters."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection

from edge_gru.engines.base import Engine
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.upgrade import Better
from edge_gru.errors import StateMismatchError
from edge_gru.predictor import Prediction, Predictor
from edge_gru.service.alerts import AlertRule
from edge_gru.service.config import RunConfig
from edge_gru.service.events import (
    AlertEvent,
    EngineEvent,
    EpochEvent,
    Event,
    GapEvent,
    HealthEvent,
    LinkEvent,
    ModelEvent,
    PredictionEvent,
)
from edge_gru.service.plausibility import Plausibility
from edge_gru.service.seat import OpenSpare, Seat
from edge_gru.service.stamp import Stamp
from edge_gru.service.statistics import Latency, LatencyHistogram, Summary
from edge_gru.service.values import ValueRepair
from firmware_bridge.link import LinkStatistics
from firmware_bridge.sample import EpochChanged, Gap, Item, LinkDown, LinkUp, SampleBlock

_log = logging.getLogger(__name__)

_SATURATED_SHARE = 1e-4
_TOO_MANY = 0.2  # resets a prediction


class Pipeline:
    """Predicts from items in their order and hands every event to ``emit``.

    Opens nothing and waits for nothing. The engine has passed ``golden``; it is closed with the
    pipeline, or when a better one takes over. ``open_spare`` opens the one that goes on should that
    be lost.

    Raises:
        ConfigError: an alert of the model does not fit its outputs.
    """

    def __init__(
        self,
        config: RunConfig,
        engine: Engine,
        golden: GoldenResult,
        *,
        emit: Callable[[Event], None],
        observe: Callable[[Prediction], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        open_spare: OpenSpare | None = None,
    ) -> None:
        manifest = engine.manifest
        self._config = config
        self._seat = Seat(engine, open_spare, self._tell_engine)
        self._golden = golden
        self._manifest = manifest
        self._emit = emit
        self._observe = observe
        self._clock = clock
        self._labels = manifest.labels if len(manifest.labels) == manifest.n_out else ()
        self._rules = [AlertRule(alert, manifest.outputs) for alert in manifest.alerts]
        if not config.alerts:
            self._rules = []
        self._rate_hz = config.rate_hz or manifest.schema.rate_hz
        self._predictor = self._new_predictor()
        self._repair = ValueRepair(config.bad_values, manifest.input_range)
        self._plausibility = Plausibility(
            manifest.schema.names, manifest.input_range, config.stuck_s
        )
        self._stamp = Stamp(config.device, config.stream, clock)
        self._latencies = LatencyHistogram()
        self._started_s = clock()
        self._n_samples = 0
        self._n_alerts = 0
        self._n_dropped = 0
        self._has_warned = False
        self._saturated: set[str] = set()  # channels warned of

    def continue_from(self, earlier: Pipeline, continues: Collection[str]) -> None:
        """Go on where another pipeline stopped, between two samples of one stream.

        The state goes along if its model is among ``continues`` and it fits; else this one warms
        up. Counters begin anew.
        """
        self._n_dropped = earlier._n_dropped
        if self._rate_hz is None and earlier._rate_hz is not None:
            self._rate_hz = earlier._rate_hz
            self._predictor = self._new_predictor()
        hash_before = earlier._seat.engine.model_hash
        if hash_before not in {self._seat.engine.model_hash, *continues}:
            _log.info("the new model does not know the state of the one before: it warms up")
            return
        try:
            self._predictor.continue_from(earlier._predictor)
        except StateMismatchError as error:
            _log.warning("the state of the model before does not fit: %s", error)

    def start(self) -> None:
        """Emit what serves from here on."""
        self._stamp.refresh()
        manifest, golden = self._manifest, self._golden
        if manifest.gate is not None and manifest.gate.verdict == "fail":
            _log.warning(
                "this model did not pass its gate when it was quantized, and was packed "
                "nevertheless: %s",
                "; ".join(manifest.gate.reasons),
            )
        self._emit(
            ModelEvent(
                **self._stamp.at(self._started_s),
                model=manifest.name,
                model_hash=self._seat.engine.model_hash,
                engine=self._seat.name,
                outputs=manifest.outputs,
                labels=manifest.labels,
                n_warmup=manifest.n_warmup,
                golden_step_error=golden.step_error,
                golden_sqnr_db=golden.stream_sqnr_db,
            )
        )

    def close(self) -> None:
        """Close the engine that serves."""
        self._seat.close()

    def take_over(self, better: Better) -> None:
        """Go on with a better engine, the state carried over; where there is none, say why."""
        self._seat.take_over(better, self._predictor)

    def checkpoint(self) -> None:
        """Save the state where the engine may be lost: about once a second is enough."""
        if self._seat.spare is not None:
            self._predictor.checkpoint()

    def _tell_engine(self, previous: str, reason: str, golden: GoldenResult | None) -> None:
        self._stamp.refresh()
        self._emit(
            EngineEvent(
                **self._stamp.at(self._clock()),
                model=self._manifest.name,
                model_hash=self._seat.engine.model_hash,
                engine=self._seat.name,
                previous=previous,
                reason=reason,
                golden_step_error=None if golden is None else golden.step_error,
                golden_sqnr_db=None if golden is None else golden.stream_sqnr_db,
            )
        )

    def process(self, item: Item, n_dropped: int = 0) -> None:
        """Take the next item; ``n_dropped``: samples so far that the link dropped before it."""
        self._stamp.refresh()
        match item:
            case SampleBlock():
                self._n_dropped = n_dropped
                self._predict(item)
            case Gap(t_s, n_missing):
                self._predictor.note_missing(n_missing)
                self._emit(GapEvent(**self._stamp.at(t_s), n_missing=n_missing))
            case EpochChanged(t_s, epoch, reason):
                self._predictor.note_new_stream()
                self._repair.begin()
                self._plausibility.begin()
                self._emit(EpochEvent(**self._stamp.at(t_s), epoch=epoch, reason=reason))
                _log.info("the board began a new stream (%s); the state was cleared", reason)
            case LinkUp():
                self._link_up(item)
            case LinkDown(t_s, reason):
                event = LinkEvent(
                    **self._stamp.at(t_s), up=False, port=self._config.port, reason=reason
                )
                self._emit(event)
                if not self._n_samples:  # later on the link itself says so
                    _log.info("waiting for %s: %s", self._config.port, reason)

    def summary(self, link: LinkStatistics, *, n_dropped_events: int = 0) -> Summary:
        """Read the counters."""
        of_state = self._predictor.statistics
        return Summary(
            model=self._manifest.name,
            engine=self._seat.name,
            duration_s=round(self._clock() - self._started_s, 3),
            n_samples=self._n_samples,
            n_predictions=of_state.n_predictions,
            rejected_samples=of_state.rejected_samples,
            repaired_samples=self._repair.n_repaired,
            lost_samples=link.lost_samples,
            overrun_samples=link.overrun_samples,
            frames_bad=link.frames_bad,
            reconnects=link.reconnects,
            resets_gap=of_state.resets_gap,
            resets_epoch=of_state.resets_epoch,
            resets_time=of_state.resets_time,
            held_gaps=of_state.held_gaps,
            n_alerts=self._n_alerts,
            dropped_events=n_dropped_events,
            saturated={
                name: n
                for name, n in zip(self._manifest.schema.names, of_state.saturated, strict=False)
                if n
            },
            outside=self._plausibility.outside,
            stuck=self._plausibility.stuck,
            latency=Latency.of(self._latencies),
            link={
                name: value
                for name, value in dataclasses.asdict(link).items()
                if isinstance(value, int | float)
            },
        )

    def _warn_of_saturation(self, summary: Summary) -> None:
        """Say once of each channel that it leaves the grid that the model was quantized on."""
        for name, n in summary.saturated.items():
            if name not in self._saturated and n > _SATURATED_SHARE * summary.n_samples:
                self._saturated.add(name)
                _log.warning(
                    "%s lay beyond the grid of the quantized model in %d of %d samples; calibrate "
                    "on data that reaches as far, or use a recipe that leaves x in float",
                    *(name, n, summary.n_samples),
                )

    def report(self, summary: Summary, *, final: bool = False) -> None:
        """Emit the counters as a health event, and warn of what does not fit the model."""
        self._stamp.refresh()
        self._warn_of_saturation(summary)
        if summary.resets_gap > _TOO_MANY * summary.n_predictions and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "gaps cleared the state %d times in %d samples, so the model remembers next to "
                "nothing; set rate_hz or max_gap_s to the pace of the sensor",
                summary.resets_gap,
                summary.n_predictions,
            )
        stamp = self._stamp.at(self._clock())
        self._emit(HealthEvent(**stamp, final=final, summary=summary))

    def _new_predictor(self) -> Predictor:
        policy = self._config.gap_policy(self._rate_hz)
        return Predictor(
            self._seat.engine,
            gap_policy=policy,
            n_warmup=self._manifest.n_warmup,
            spare=self._seat.spare,
        )

    def _link_up(self, item: LinkUp) -> None:
        if self._rate_hz is None and item.schema.rate_hz and not self._n_samples:
            self._rate_hz = item.schema.rate_hz  # neither configured nor the model's: the board's
            self._predictor = self._new_predictor()
        self._predictor.note_new_stream()
        self._repair.begin()
        self._plausibility.begin()
        names = item.schema.names
        self._emit(LinkEvent(**self._stamp.at(item.t_s), up=True, port=item.port, channels=names))

    def _predict(self, block: SampleBlock) -> None:
        self._plausibility.look(block)
        block = self._repair.apply(block)
        push, clock, add_latency = self._predictor.push, self._clock, self._latencies.add
        self._n_samples += len(block)
        for sample in block:
            prediction = push(sample)
            if prediction is None:
                continue
            latency_us = (clock() - sample.read_s) * 1e6
            add_latency(latency_us)
            if self._observe is not None:
                self._observe(prediction)
            self._publish(prediction, latency_us)

    def _publish(self, prediction: Prediction, latency_us: float) -> None:
        sample, values = prediction.sample, prediction.values.tolist()
        warming_up = prediction.is_warming_up
        manifest = self._manifest
        self._emit(
            PredictionEvent(
                **self._stamp.at(sample.t_s),
                sample_seq=sample.seq,
                y=dict(zip(manifest.outputs, values, strict=True)),
                label=self._label(values),
                status="warmup" if warming_up else "ok",
                n_steps=prediction.n_steps,
                warming_up=warming_up,
                latency_us=round(latency_us, 1),
                model=manifest.name,
                model_hash=self._seat.engine.model_hash,
                engine=self._seat.name,
                n_dropped=self._n_dropped,
            )
        )
        for rule in self._rules:
            self._check(rule, prediction, values)

    def _label(self, values: list[float]) -> str | None:
        return self._labels[values.index(max(values))] if self._labels else None

    def _check(self, rule: AlertRule, prediction: Prediction, values: list[float]) -> None:
        t_s = prediction.sample.t_s
        change = rule.update(t_s, values, is_warming_up=prediction.is_warming_up)
        if change is None:
            return
        alert = change.alert
        self._n_alerts += change.active
        self._emit(
            AlertEvent(
                **self._stamp.at(t_s),
                name=alert.name,
                on=alert.on,
                active=change.active,
                value=change.value,
                threshold=alert.enter if change.active else alert.exit,
                sample_seq=prediction.sample.seq,
            )
        )
        _log.info("alert %s %s at %g", alert.name, "on" if change.active else "off", change.value)
