"""Messages, schema and samples read back as they were written; malformed ones are refused."""

import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import Schema, SchemaError
from firmware_bridge.framing import FrameDecoder, encode_frame
from firmware_bridge.protocol import messages as m
from firmware_bridge.protocol.board_schema import BoardChannel, BoardSchema, RateRange, schema_crc32
from firmware_bridge.protocol.samples import SampleCodec

u8, u16, u32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)
tails = st.binary(max_size=200)
any_message = st.one_of(
    st.builds(m.Boot, u32, u8, u8, u8),
    st.builds(m.Welcome, u8, u8, u8, u8, u32, u32, u16, u16, u32),
    st.builds(m.SchemaPart, u16, tails),
    st.builds(m.Pong, u64, u32),
    st.builds(m.Status, u32, u32, u32, u32, u32, u16, u16, u16, u8, u8, u32, u32),
    st.builds(m.Ack, u8, u8, u8, tails),
    st.builds(m.Log, u8, tails),
    st.builds(m.Hello, u8, u8, u32),
    st.builds(m.ReadSchema, u16, u16),
    st.builds(m.Ping, u64),
    st.builds(m.Request, u8, u8, tails),
    st.builds(m.Prediction, u16, u8, u8, tails),
    st.builds(m.Alarm, u32),
)


@given(any_message, u8, u16, u32)
def test_message_round_trip(message, epoch, seq, t_us):
    wire = m.encode_message(message, epoch=epoch, seq=seq, t_us=t_us)
    (body,) = FrameDecoder().feed(wire)
    assert m.decode_message(body) == m.Received(message, epoch, seq, t_us)


@given(st.integers(0, 31), st.binary(max_size=64))
def test_any_checked_payload_is_a_message_or_none(kind, payload):
    for body in FrameDecoder().feed(encode_frame(kind, payload)):
        received = m.decode_message(body)
        assert received is None or received.message is not None


def test_wire_sizes_are_those_of_the_table():
    sizes = {
        m.Boot(1, 2, 1, 1): 8,
        m.Welcome(1, 1, 1, 0, 7, 8, 9, 256, 3): 20,
        m.Pong(5, 6): 12,
        m.Status(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 11, 12): 36,
        m.Prediction(1, 2, 2, bytes(8)): 12,
        m.Alarm(5): 4,
        m.Hello(1, 1, 3): 8,
        m.Ack(1, 1, 0, b"\0\0\0\0"): 8,
    }
    for message, n_bytes in sizes.items():
        (body,) = FrameDecoder().feed(m.encode_message(message))
        assert len(body) == 8 + n_bytes + 2, message


def test_hello_is_byte_for_byte_the_one_of_the_firmware():
    wire = m.encode_message(m.Hello(1, 1, 7))
    (body,) = FrameDecoder().feed(wire)
    assert body[:8] == bytes([1 << 5 | 16, 0, 0, 0, 0, 0, 0, 0])
    assert body[8:16] == bytes([1, 1, 0, 0, 7, 0, 0, 0])


def test_schema_of_a_small_firmware_is_read_with_its_defaults():
    wire = (
        b'{"proto":1,"fw":"demo-0.2","device":"mps2-an386","tick_hz":1000000,"dtype":"<i2",'
        b'"channels":[{"name":"ax","unit":"g","scale":0.001},{"name":"t","unit":"degC"}]}'
    )
    board = BoardSchema.from_wire(wire)
    assert board.schema(50.0) == Schema.of([("ax", "g"), ("t", "degC")], 50.0)
    assert board.channels[0].scale == 0.001
    assert board.offers_rate(123.0)
    assert board.default_rate_hz is None


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"channels":[{"unit":"g"}]}', "name"),
        (b'{"channels":[]}', "at least one channel"),
        (b'{"channels":[{"name":"a"},{"name":"a"}]}', "distinct"),
        (b'{"channels":[{"name":"a"}],"dtype":">i2"}', "raw types"),
        (b'{"channels":[{"name":"a"}],"tick_hz":32768}', "32768"),
    ],
)
def test_schema_that_is_none_is_refused_with_the_reason(wire, reason):
    with pytest.raises(SchemaError, match=reason):
        BoardSchema.from_wire(wire)


@given(st.binary(max_size=200))
def test_any_schema_bytes_are_read_or_refused(wire):
    with contextlib.suppress(SchemaError):
        assert BoardSchema.from_wire(wire).channels


def test_schema_round_trip_and_rates():
    board = BoardSchema((BoardChannel("a", "g", 0.5, 1.0),), "<i4", RateRange(1.0, 500.0), uid="42")
    assert BoardSchema.from_wire(board.to_wire()) == board
    assert board.offers_rate(500.0)
    assert not board.offers_rate(501.0)
    listed = msgspec.structs.replace(board, rate_hz=(100.0, 200.0))
    assert listed.offers_rate(200.1)
    assert not listed.offers_rate(150.0)
    assert listed.default_rate_hz == 100.0
    assert schema_crc32(b"123456789") == 0xCBF43926


def codec_and_decoder(dtype="<f4", scale=1.0, n_channels=3):
    board = BoardSchema.of(Schema.unnamed(n_channels, 100.0), dtype, scale)
    decoder = FrameDecoder()
    decoder.learn(board.to_wire())
    return SampleCodec(board), decoder


@pytest.mark.parametrize(
    ("n_channels", "k", "kind"), [(3, 1, 2), (16, 1, 2), (17, 1, 3), (3, 9, 3)]
)
def test_float32_samples_come_back_bit_for_bit(n_channels, k, kind):
    codec, decoder = codec_and_decoder(n_channels=n_channels)
    values = np.random.default_rng(0).normal(size=(k, n_channels)).astype(np.float32)
    values[0, 0] = np.nan
    (body,) = decoder.feed(codec.encode(values, epoch=7, seq=70_000, t_us=2**32 + 5))
    assert body[0] & 31 == kind
    raw = codec.decode([body])
    assert raw.values.tobytes() == values.tobytes()
    assert raw.values.shape == (k, n_channels)
    assert (raw.epoch[0], raw.seq[0], raw.t_us[0]) == (7, 70_000 & 0xFFFF, 5)


def test_int16_samples_are_scaled_and_saturate():
    codec, decoder = codec_and_decoder("<i2", 0.01)
    values = np.array([[1.234, -1000.0, 327.67]], np.float32)
    (body,) = decoder.feed(codec.encode(values, epoch=0, seq=0, t_us=0))
    np.testing.assert_allclose(codec.decode([body]).values, [[1.23, -327.68, 327.67]], rtol=1e-6)


def test_a_body_of_another_size_has_no_layout():
    codec, _ = codec_and_decoder()
    for kind, n_payload_bytes in ((2, 11), (2, 24), (2, 0), (3, 13), (3, 0)):
        body = bytes([1 << 5 | kind]) + bytes(7 + n_payload_bytes + (2 if kind == 2 else 4))
        assert codec.layout(body) is None, (kind, n_payload_bytes)


def test_the_largest_batch_fits_a_frame():
    codec, decoder = codec_and_decoder(n_channels=8)
    values = np.zeros((codec.n_max_batch, 8), np.float32)
    wire = codec.encode(values, epoch=0, seq=0, t_us=0)
    assert len(decoder.feed(wire)) == 1
    assert len(wire) <= codec.n_frame_bytes(codec.n_max_batch)
