"""Samples as a table: out of recordings, into CSV and NPZ files, and back."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firmware_bridge.errors import FormatError, SchemaError
from firmware_bridge.formats.csv_text import parse_header
from firmware_bridge.recording.recording import Recording
from firmware_bridge.sample import (
    Channel,
    EpochChanged,
    Float32,
    Float64,
    Gap,
    Int64,
    Item,
    LinkUp,
    SampleBlock,
    Schema,
)

_OWN_COLUMNS = ("t_s", "seq", "stream")
_RECORDING = ".mcap"


@dataclass(frozen=True)
class SampleTable:
    """Samples ``(T, n)`` with their instants, numbers, and the stream that each belongs to.

    A stream is a stretch without restart; a step of ``seq`` by more than one within it is a gap.
    """

    schema: Schema
    t_s: Float64
    seq: Int64
    stream: Int64
    values: Float32

    @classmethod
    def from_items(cls, items: Iterable[Item]) -> SampleTable:
        """Gather the samples of a link or a recording.

        Raises:
            SchemaError: there are none, or the channels change on the way.
        """
        schema: Schema | None = None
        blocks: list[SampleBlock] = []
        streams: list[int] = []
        stream = -1
        for item in items:
            if isinstance(item, LinkUp):
                if schema is not None and item.schema.channels != schema.channels:
                    raise SchemaError(
                        f"expected one set of channels, got {schema.names} and then "
                        f"{item.schema.names}; cut the recording between them"
                    )
                schema = schema or item.schema
            if isinstance(item, LinkUp | EpochChanged):
                stream += 1
            elif isinstance(item, SampleBlock):
                blocks.append(item)
                streams += [stream] * len(item)
        if schema is None or not blocks:
            raise SchemaError("expected samples, got none")
        return cls(
            schema,
            np.concatenate([b.t_s for b in blocks]),
            np.concatenate([b.seq for b in blocks]),
            np.array(streams, np.int64),
            np.concatenate([b.values for b in blocks]),
        )

    def items(self) -> Iterator[Item]:
        """Yield what a link would have delivered: blocks, with gaps and restarts between them."""
        new_stream = np.diff(self.stream) != 0
        cuts = np.flatnonzero(new_stream | (np.diff(self.seq) != 1)) + 1
        before: int | None = None
        for start, stop in zip([0, *cuts.tolist()], [*cuts.tolist(), len(self.seq)], strict=True):
            t_s = float(self.t_s[start])
            if before is None:
                yield LinkUp(t_s, "table", self.schema)
            elif self.stream[start] != self.stream[start - 1]:
                yield EpochChanged(t_s, int(self.stream[start]) % 256, "a new stream begins")
            else:
                yield Gap(t_s, int(self.seq[start]) - before - 1)
            run = slice(start, stop)
            yield SampleBlock(
                self.t_s[run], self.seq[run], self.values[run], float(self.t_s[stop - 1])
            )
            before = int(self.seq[stop - 1])


def read_samples(path: Path | str) -> SampleTable:
    """Read a recording, or a table in CSV or NPZ; the ending says which.

    Raises:
        FormatError: the file cannot be read, or its ending is unknown.
        SchemaError: it holds no samples, or channels that change.
    """
    path = Path(path)
    try:
        if path.suffix == _RECORDING:
            return SampleTable.from_items(Recording(path).items())
        if path.suffix == ".npz":
            return _read_npz(path)
        if path.suffix == ".csv":
            return _read_csv(path)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}; check the path") from error
    raise FormatError(f"expected a file .mcap, .csv or .npz, got {path}")


def is_sample_table(path: Path) -> bool:
    """Tell whether a file is a table as ``write_samples`` writes it.

    Raises:
        OSError: the file cannot be read.
    """
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().startswith(",".join(_OWN_COLUMNS))
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {f"{name}.npy" for name in (*_OWN_COLUMNS, "names")} <= set(archive.namelist())


def write_samples(table: SampleTable, path: Path | str) -> None:
    """Write a table as CSV or NPZ; the ending says which.

    Raises:
        FormatError: the file cannot be written, or its ending is unknown.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".npz"):
        raise FormatError(f"expected a file .csv or .npz, got {path}")
    try:
        if path.suffix == ".npz":
            _write_npz(table, path)
        else:
            _write_csv(table, path)
    except OSError as error:
        raise FormatError(f"cannot write {path}: {error.strerror}; check the path") from error


def _write_npz(table: SampleTable, path: Path) -> None:
    np.savez_compressed(
        path,
        t_s=table.t_s,
        seq=table.seq,
        stream=table.stream,
        values=table.values,
        names=np.array(table.schema.names),
        units=np.array([c.unit for c in table.schema.channels]),
        rate_hz=np.array(table.schema.rate_hz or 0.0),
    )


def _read_npz(path: Path) -> SampleTable:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, units = arrays["names"].tolist(), arrays["units"].tolist()
            channels = tuple(Channel(name, unit) for name, unit in zip(names, units, strict=True))
            return SampleTable(
                Schema(channels, float(arrays["rate_hz"]) or None),
                arrays["t_s"],
                arrays["seq"],
                arrays["stream"],
                arrays["values"],
            )
    except (KeyError, ValueError) as error:
        raise FormatError(f"expected samples as `edge-gru convert` writes, got {path}") from error


def _write_csv(table: SampleTable, path: Path) -> None:
    titles = [f"{c.name} [{c.unit}]" if c.unit else c.name for c in table.schema.channels]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_OWN_COLUMNS, *titles])
        own = zip(table.t_s.tolist(), table.seq.tolist(), table.stream.tolist(), strict=True)
        for (t_s, seq, stream), values in zip(own, table.values.tolist(), strict=True):
            writer.writerow([repr(t_s), seq, stream, *(f"{value:.9g}" for value in values)])


def _read_csv(path: Path) -> SampleTable:
    """Read what `_write_csv` wrote; the rate is that of the instants."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.reader(file) if row]
    titles = rows[0] if rows else []
    channels = parse_header(titles[len(_OWN_COLUMNS) :])
    if tuple(titles[: len(_OWN_COLUMNS)]) != _OWN_COLUMNS or not channels:
        raise FormatError(
            f"expected the columns {', '.join(_OWN_COLUMNS)} and then channels in {path}, got "
            f"{','.join(titles)[:60]!r}"
        )
    if len(rows) < 2:
        raise SchemaError(f"expected samples, {path} has none")
    try:
        table = np.array([[float(field) for field in row] for row in rows[1:]])
        table = table.reshape(len(rows) - 1, len(titles))
    except ValueError as error:
        raise FormatError(f"expected {len(titles)} numbers in every row of {path}") from error
    return SampleTable(
        Schema(channels, _rate_hz(table[:, 0])),
        table[:, 0],
        table[:, 1].astype(np.int64),
        table[:, 2].astype(np.int64),
        table[:, len(_OWN_COLUMNS) :].astype(np.float32),
    )


def _rate_hz(t_s: Float64) -> float | None:
    steps = np.diff(t_s)
    middle = float(np.median(steps)) if len(steps) else 0.0
    return 1 / middle if middle > 0 else None
