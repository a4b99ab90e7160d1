"""Samples in DATA and BATCH frames, both directions; many frames of one size in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from firmware_bridge.framing import HEADER, MAX_BODY_BYTES, encode_frame
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.protocol.messages import Kind
from firmware_bridge.sample import Float32

MAX_DATA_PAYLOAD_BYTES = 64
_MAX_BATCH_PAYLOAD_BYTES = MAX_BODY_BYTES - HEADER.size - 4


class RawSamples(NamedTuple):
    """Frames of one size as arrays: f frames of k samples of n channels."""

    epoch: npt.NDArray[np.uint8]  # (f,)
    seq: npt.NDArray[np.uint16]  # (f,), of each frame's first sample
    t_us: npt.NDArray[np.uint32]  # (f,), likewise
    values: Float32  # (f * k, n), physical units


class SampleCodec:
    """Turns samples of one board into frames and back."""

    def __init__(self, board: BoardSchema) -> None:
        self._wire = board.to_wire()
        self._raw_dtype = np.dtype(board.dtype)
        self._n_channels = len(board.channels)
        self._n_sample_bytes = board.n_sample_bytes
        self._scale = np.array([c.scale for c in board.channels])
        self._offset = np.array([c.offset for c in board.channels])
        self._is_plain = bool((self._scale == 1).all() and (self._offset == 0).all())
        self._layouts: dict[tuple[int, int], np.dtype[np.void] | None] = {}

    @classmethod
    def from_wire(cls, wire: bytes) -> SampleCodec:
        """Make the codec of a board from the exact schema bytes it sent.

        Raises:
            SchemaError: they are no schema.
        """
        codec = cls(BoardSchema.from_wire(wire))
        codec._wire = wire
        return codec

    @property
    def n_max_batch(self) -> int:
        """The most samples one frame can carry; 0 if not even one fits."""
        return min(255, _MAX_BATCH_PAYLOAD_BYTES // self._n_sample_bytes)

    def n_frame_bytes(self, n_samples: int) -> int:
        """Return the wire bytes, at most, of a frame of ``n_samples``."""
        n_payload_bytes = n_samples * self._n_sample_bytes
        is_data = n_samples == 1 and n_payload_bytes <= MAX_DATA_PAYLOAD_BYTES
        n_body_bytes = HEADER.size + n_payload_bytes + (2 if is_data else 4)
        return n_body_bytes + n_body_bytes // 254 + 3

    def layout(self, body: bytes) -> np.dtype[np.void] | None:
        """Return the array type of a DATA or BATCH body; None if its size fits no sample count."""
        key = body[0] & 31, len(body)
        if key not in self._layouts:
            self._layouts[key] = self._make_layout(*key)
        return self._layouts[key]

    def _make_layout(self, kind: int, n_body_bytes: int) -> np.dtype[np.void] | None:
        n_check_bytes = 4 if kind == Kind.BATCH else 2
        n_samples, remainder = divmod(
            n_body_bytes - HEADER.size - n_check_bytes, self._n_sample_bytes
        )
        if remainder or n_samples < 1 or (kind == Kind.DATA and n_samples != 1):
            return None
        return np.dtype(
            [
                ("kind", "u1"),
                ("epoch", "u1"),
                ("seq", "<u2"),
                ("t_us", "<u4"),
                ("values", self._raw_dtype, (n_samples, self._n_channels)),
                ("check", "u1", (n_check_bytes,)),
            ]
        )

    def decode(self, bodies: list[bytes]) -> RawSamples:
        """Return the samples of ``bodies``, all of one `layout`."""
        frames = np.frombuffer(b"".join(bodies), self.layout(bodies[0]))
        raw = frames["values"].reshape(-1, self._n_channels)
        if self._is_plain:
            values = raw.astype(np.float32)
        else:
            values = (raw * self._scale + self._offset).astype(np.float32)
        return RawSamples(frames["epoch"], frames["seq"], frames["t_us"], values)

    def encode(self, values: Float32, *, epoch: int, seq: int, t_us: int) -> bytes:
        """Return the frame of ``values`` ``(k, n)``, at most ``n_max_batch`` samples.

        A raw integer type saturates, as a sensor does.
        """
        payload = self._to_raw(values).tobytes()
        is_data = len(values) == 1 and len(payload) <= MAX_DATA_PAYLOAD_BYTES
        kind = Kind.DATA if is_data else Kind.BATCH
        return encode_frame(kind, payload, epoch=epoch, seq=seq, t_us=t_us, schema=self._wire)

    def _to_raw(self, values: Float32) -> npt.NDArray[np.generic]:
        if self._is_plain and self._raw_dtype.kind == "f":
            return values.astype(self._raw_dtype)
        raw = (values.astype(np.float64) - self._offset) / self._scale
        if self._raw_dtype.kind == "f":
            return raw.astype(self._raw_dtype)
        limits = np.iinfo(self._raw_dtype)
        return np.clip(np.rint(np.nan_to_num(raw)), limits.min, limits.max).astype(self._raw_dtype)
