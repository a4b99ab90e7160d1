"""The long-running loop: samples from a port through the engine to sinks, for months."""

from edge_gru.service.build_unit import BuildUnit
from edge_gru.service.config import RunConfig, make_config, read_settings
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
from edge_gru.service.health import Health, HealthFile, read_health
from edge_gru.service.loop import Service
from edge_gru.service.models import BundleStatus
from edge_gru.service.notify import Notifier, StatusSink
from edge_gru.service.signals import stop_on_signals
from edge_gru.service.sinks import FileSink, Sink, StreamSink, open_sinks
from edge_gru.service.statistics import Latency, Summary
from edge_gru.service.stored_models import StoredModels

__all__ = [
    "AlertEvent",
    "BuildUnit",
    "BundleStatus",
    "EngineEvent",
    "EpochEvent",
    "Event",
    "FileSink",
    "GapEvent",
    "Health",
    "HealthEvent",
    "HealthFile",
    "Latency",
    "LinkEvent",
    "ModelEvent",
    "Notifier",
    "PredictionEvent",
    "RunConfig",
    "Service",
    "Sink",
    "StatusSink",
    "StoredModels",
    "StreamSink",
    "Summary",
    "make_config",
    "open_sinks",
    "read_health",
    "read_settings",
    "stop_on_signals",
]
