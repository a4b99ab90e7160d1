"""Sequences from files: NPZ, NPY and CSV."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.errors import DataError
from firmware_bridge.errors import FormatError, SchemaError
from firmware_bridge.formats.csv_text import read_table
from firmware_bridge.recording import SampleTable, is_sample_table, read_samples
from firmware_bridge.sample import Channel


@dataclass(frozen=True)
class Recordings:
    """Sequences ``(n_steps, n_in)``, and the channels where a file names them."""

    sequences: list[npt.NDArray[np.float32]]
    channels: tuple[Channel, ...] | None


def read_recordings(paths: Iterable[Path]) -> Recordings:
    """Read every file: each CSV is one sequence, each array of an NPZ or NPY one or, in 3-D, many.

    A recording of a port (.mcap), or a table made of one, has a sequence for each of its streams.

    Raises:
        DataError: a file is missing, of another kind, or holds something else.
    """
    sequences: list[npt.NDArray[np.float32]] = []
    channels: tuple[Channel, ...] | None = None
    for path in paths:
        found = _read_one(path)
        sequences += found.sequences
        channels = channels or found.channels
    return Recordings(sequences, channels)


def read_targets(paths: Iterable[Path], n_sequences: int) -> list[npt.NDArray[Any]]:
    """Read the truth of recordings, in their order.

    Each CSV is of one recording, and so is each array of an NPZ or NPY, or in 3-D of many. A single
    array of as many values as there are recordings has one value for the end of each.

    Raises:
        DataError: a file is missing, of another kind, or holds something else.
    """
    targets: list[npt.NDArray[Any]] = []
    for path in paths:
        for found in _read_one(path).sequences:
            is_column = found.ndim == 2 and found.shape[1] == 1
            targets.append(found[:, 0] if is_column else found)
    if len(targets) == 1 < n_sequences == len(np.atleast_1d(targets[0])):
        return list(targets[0])
    return targets


def _read_one(path: Path) -> Recordings:
    try:
        if path.suffix == ".mcap" or is_sample_table(path):
            return _of_table(read_samples(path))
        if path.suffix == ".csv":
            channels, samples = read_table(path)
            return Recordings([samples], None if _is_unnamed(channels) else channels)
        if path.suffix in (".npz", ".npy"):
            return Recordings(_read_arrays(path), None)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (FormatError, SchemaError) as error:
        raise DataError(str(error)) from error
    raise DataError(f"expected recordings as .csv, .npz, .npy or .mcap, got {path}")


def _of_table(table: SampleTable) -> Recordings:
    """Take the streams of a recording: each began with a restart or a new connection."""
    streams = np.unique(table.stream)
    return Recordings([table.values[table.stream == s] for s in streams], table.schema.channels)


def _is_unnamed(channels: Sequence[Channel]) -> bool:
    return all(channel.name == f"ch{k}" for k, channel in enumerate(channels))


def _read_arrays(path: Path) -> list[npt.NDArray[np.float32]]:
    try:
        # An .npy is mapped, and so read as it is needed.
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        arrays = [loaded] if path.suffix == ".npy" else [loaded[name] for name in loaded.files]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"expected arrays of numbers in {path}, got something else; save it with numpy.savez"
        ) from error
    sequences: list[npt.NDArray[np.float32]] = []
    for array in arrays:
        sequences.extend(array if array.ndim == 3 else [array])
    return sequences
