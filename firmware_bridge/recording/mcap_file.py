"""MCAP files that survive a crash: written in small chunks, read up to where they were cut.

The one home of the ``mcap`` library; `firmware_bridge.recording.library` imports it when needed.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from mcap.exceptions import McapError
from mcap.records import Channel, Message, Metadata
from mcap.stream_reader import CRCValidationError, StreamReader
from mcap.writer import Writer
from zstandard import ZstdError

_log = logging.getLogger(__name__)

_MAGIC_BYTES = 8
_RECORD_HEADER = struct.Struct("<BQ")
_CHUNK_BYTES = 64 * 1024
_FOOTER = 0x02
# Bytes that went bad on the disk: checks, compression, and what the library trips over.
_DAMAGE = (
    *(CRCValidationError, McapError, ZstdError, RuntimeError),
    *(UnicodeDecodeError, KeyError, struct.error),
)


class McapOut:
    """A file being written; what was flushed is safe from a crash of this process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._writer = Writer(self._file, chunk_size=_CHUNK_BYTES)
        self._writer.start(library="edge-gru")
        self._channels: dict[tuple[str, bytes], int] = {}

    def add_metadata(self, name: str, values: dict[str, str]) -> None:
        """Write key-value pairs."""
        self._writer.add_metadata(name, values)

    def channel(self, topic: str, encoding: str, schema: bytes) -> int:
        """Return the channel of a topic whose messages have this JSON schema; empty: none."""
        key = topic, schema
        if key not in self._channels:
            schema_id = 0
            if schema:
                name = topic.strip("/")
                schema_id = self._writer.register_schema(name, "jsonschema", schema)
            self._channels[key] = self._writer.register_channel(topic, encoding, schema_id)
        return self._channels[key]

    def add(self, channel: int, log_ns: int, data: bytes, sequence: int = 0) -> None:
        """Write a message."""
        self._writer.add_message(channel, log_ns, data, log_ns, sequence & 0xFFFFFFFF)

    def flush(self) -> None:
        """End the chunk, and hand everything to the system."""
        self._writer.flush()

    def close(self) -> None:
        """Write index and end, and make it durable."""
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class Record(NamedTuple):
    """A message: its topic, when it was logged, and what is in it."""

    topic: str
    log_ns: int
    data: bytes


def read_records(path: Path) -> Iterator[Record | dict[str, str]]:
    """Yield the messages and metadata of a file in their order, up to where it was cut or spoilt.

    A warning then says how much that was.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no MCAP file.
    """
    with path.open("rb") as file:
        whole = _Whole(file)
        reader = StreamReader(whole, validate_crcs=True)
        topics: dict[int, str] = {}
        n_messages = 0
        fault = "" if whole.has_footer else "is cut short"
        try:
            for record in reader.records:
                if isinstance(record, Channel):
                    topics[record.id] = record.topic
                elif isinstance(record, Message):
                    yield Record(topics[record.channel_id], record.log_time, record.data)
                    n_messages += 1
                elif isinstance(record, Metadata):
                    yield dict(record.metadata)
        except _DAMAGE as error:
            if file.tell() <= _MAGIC_BYTES:
                raise ValueError(f"{path} is no MCAP file") from error
            fault = fault or "is damaged"
        if fault:
            _log.warning(
                "%s %s: %d messages were read, up to byte %d of %d; what came after is lost",
                *(path, fault, n_messages, file.tell(), path.stat().st_size),
            )


class _Whole:
    """A file that ends behind its last whole record, as the library cannot read half of one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.has_footer = False
        self._end = self._find_end()

    def read(self, n_bytes: int) -> bytes:
        """Read, but not beyond the last whole record."""
        return self._file.read(min(n_bytes, self._end - self._file.tell()))

    def _find_end(self) -> int:
        size = self._file.seek(0, os.SEEK_END)
        end = min(_MAGIC_BYTES, size)
        opcode = 0
        while opcode != _FOOTER:
            self._file.seek(end)
            header = self._file.read(_RECORD_HEADER.size)
            if len(header) < _RECORD_HEADER.size:
                break
            opcode, n_bytes = _RECORD_HEADER.unpack(header)
            if end + _RECORD_HEADER.size + n_bytes > size:
                break
            end += _RECORD_HEADER.size + n_bytes
        self._file.seek(0)
        self.has_footer = opcode == _FOOTER
        return min(end + _MAGIC_BYTES, size) if self.has_footer else end
