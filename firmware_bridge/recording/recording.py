"""A recording read back: the bytes, samples and events that a link delivered, bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from firmware_bridge.errors import FormatError
from firmware_bridge.recording.library import mcap_file
from firmware_bridge.recording.messages import (
    BYTES_TOPIC,
    EVENTS_TOPIC,
    SAMPLES_TOPIC,
    SampleMessage,
    decode_event,
    decode_sample,
    values_of,
)
from firmware_bridge.sample import Item, LinkUp, SampleBlock, Schema


class Chunk(NamedTuple):
    """Bytes as one read returned them, and when, in host monotonic seconds of the recording."""

    t_s: float
    wire: bytes


class Recording:
    """The file that a `Recorder` wrote, also if it was cut by a crash.

    It is read anew by every call; nothing is held in memory.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def about(self) -> dict[str, str]:
        """What was remembered beside: port, format and the like."""
        return next((record for record in self._records() if isinstance(record, dict)), {})

    @property
    def schema(self) -> Schema:
        """The channels of the first stream.

        Raises:
            FormatError: there is none.
        """
        for item in self.items():
            if isinstance(item, LinkUp):
                return item.schema
        raise FormatError(f"expected a recording with samples, {self.path} has none")

    def chunks(self) -> Iterator[Chunk]:
        """Yield the raw bytes as they were read.

        Raises:
            FormatError: the file cannot be read, or is no recording.
        """
        offset_s = float(self.about.get("wall_minus_monotonic_s", 0.0))
        for record in self._records():
            if not isinstance(record, dict) and record.topic == BYTES_TOPIC:
                yield Chunk(record.log_ns * 1e-9 - offset_s, record.data)

    def items(self) -> Iterator[Item]:
        """Yield samples and events as the link delivered them, samples of one read in one block.

        Raises:
            FormatError: the file cannot be read, or is no recording.
        """
        gathered: list[SampleMessage] = []
        for record in self._records():
            if isinstance(record, dict):
                continue
            if record.topic == SAMPLES_TOPIC:
                sample = decode_sample(record.data)
                if gathered and not _follows(gathered[-1], sample):
                    yield _block(gathered)
                    gathered = []
                gathered.append(sample)
            elif record.topic == EVENTS_TOPIC:
                if gathered:
                    yield _block(gathered)
                    gathered = []
                yield decode_event(record.data)
        if gathered:
            yield _block(gathered)

    def _records(self) -> Iterator[Any]:
        try:
            yield from mcap_file().read_records(self.path)
        except OSError as error:
            raise FormatError(
                f"cannot read {self.path}: {error.strerror}; check the path"
            ) from error
        except ValueError as error:
            raise FormatError(f"expected a recording, got {self.path}: {error}") from error


def _follows(before: SampleMessage, after: SampleMessage) -> bool:
    return after.read_s == before.read_s and after.seq == before.seq + 1


def _block(samples: list[SampleMessage]) -> SampleBlock:
    return SampleBlock(
        np.array([s.t_s for s in samples]),
        np.array([s.seq for s in samples], np.int64),
        np.array([values_of(s) for s in samples], np.float32),
        samples[0].read_s,
    )
