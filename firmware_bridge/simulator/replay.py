"""Samples from arrays or a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firmware_bridge.errors import SchemaError
from firmware_bridge.formats.csv_text import read_table
from firmware_bridge.sample import Float32, Schema


class ReplaySource:
    """The rows of ``samples`` ``(T, n)``, once or, with ``loop``, for ever.

    Raises:
        SchemaError: the array has no sample, the wrong number of columns, or the schema no rate.
    """

    def __init__(self, samples: npt.ArrayLike, schema: Schema, *, loop: bool = False) -> None:
        array = np.ascontiguousarray(samples, dtype=np.float32)
        if array.ndim != 2 or array.shape[1] != schema.n_channels or not len(array):
            raise SchemaError(
                f"expected samples of shape (T, {schema.n_channels}), got {array.shape}; one row "
                "is one sample"
            )
        if schema.rate_hz is None:
            raise SchemaError("expected a rate to replay at, got none; set schema.rate_hz")
        self.samples: Float32 = array
        self._schema = schema
        self._loop = loop

    @classmethod
    def from_csv(cls, path: Path | str, rate_hz: float, *, loop: bool = False) -> ReplaySource:
        """Read a file of lines as a board prints them; a header may name channels and units.

        Raises:
            SchemaError: a line is no sample; the message gives its number.
            OSError: the file cannot be read.
        """
        channels, samples = read_table(Path(path))
        return cls(samples, Schema(channels, rate_hz), loop=loop)

    @property
    def schema(self) -> Schema:
        """Channels and rate."""
        return self._schema

    def __iter__(self) -> Iterator[Float32]:
        """Begin with the first row."""
        yield from self.samples
        while self._loop:
            yield from self.samples
