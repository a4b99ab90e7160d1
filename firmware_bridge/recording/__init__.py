"""What came over a link, kept: raw bytes, samples and events in MCAP; tables as CSV and NPZ."""

from __future__ import annotations

from firmware_bridge.recording.recorder import Recorder
from firmware_bridge.recording.recording import Recording
from firmware_bridge.recording.replay import ReplayLink
from firmware_bridge.recording.table import (
    SampleTable,
    is_sample_table,
    read_samples,
    write_samples,
)

__all__ = [
    "Recorder",
    "Recording",
    "ReplayLink",
    "SampleTable",
    "is_sample_table",
    "read_samples",
    "write_samples",
]
