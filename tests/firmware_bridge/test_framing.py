"""Frames survive any chunking; what was not sent is not accepted; garbage costs nothing."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.cobs import cobs_encode
from firmware_bridge.framing import (
    BATCH,
    DATA,
    MAX_BODY_BYTES,
    MAX_CODE_BYTES,
    SCHEMA,
    FrameDecoder,
    encode_frame,
    payload_of,
)

CONTEXT = b'{"channels":8}'
CRC32_KINDS = (BATCH, SCHEMA)

kinds = st.sampled_from([DATA, BATCH, SCHEMA, 1, 4, 7, 16, 19])
payloads = st.binary(max_size=300) | st.integers(0, 1012).map(lambda n: b"\xaa" * n)
sent_frames = st.builds(
    lambda kind, payload, epoch, seq, t_us: encode_frame(
        kind, payload, epoch=epoch, seq=seq, t_us=t_us, schema=CONTEXT
    ),
    kinds,
    payloads,
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
)
noise = st.binary(max_size=80) | st.just(b"\0" * 40) | st.just(b"\xff" * 1500) | st.just(b"AT\r")
streams = st.lists(sent_frames | noise, max_size=12)


def decoder():
    made = FrameDecoder()
    made.learn(CONTEXT)
    return made


def cut(stream, seed):
    """Cut a stream into chunks."""
    rng = random.Random(seed)
    while stream:
        n = rng.choice([1, 2, 7, 29, 200, 4095])
        yield stream[:n]
        stream = stream[n:]


@given(streams, st.integers())
def test_any_split_gives_the_same_frames_and_counters(parts, seed):
    stream = b"".join(parts)
    whole, pieces = decoder(), decoder()
    expected = whole.feed(stream)
    got = [body for chunk in cut(stream, seed) for body in pieces.feed(chunk)]
    assert got == expected
    assert pieces.counts == whole.counts
    assert pieces.n_pending_bytes == whole.n_pending_bytes


@given(streams, st.integers())
def test_every_byte_is_accounted_for_and_memory_is_bounded(parts, seed):
    stream = b"".join(parts)
    made = decoder()
    for chunk in cut(stream, seed):
        made.feed(chunk)
        assert made.n_pending_bytes <= MAX_CODE_BYTES
    counts = made.counts
    counted = counts.frame_bytes + counts.discarded_bytes + counts.delimiters
    assert counted + made.n_pending_bytes == len(stream)


@given(streams)
def test_a_whole_frame_is_accepted_whatever_came_before(parts):
    made = decoder()
    made.feed(b"".join(parts))
    assert [payload_of(b) for b in made.feed(encode_frame(4, b"after all that"))][-1:] == [
        b"after all that"
    ]
    assert made.n_pending_bytes == 0


@settings(max_examples=300)
@given(st.lists(st.tuples(sent_frames, st.integers(0, 5), st.integers(0)), max_size=12))
def test_an_accepted_crc32_frame_was_sent_in_order_once(parts):
    stream, sent = bytearray(), []
    for frame, fault, where in parts:
        wire = bytearray(frame)
        sent += decoder().feed(frame)
        if fault == 0:
            wire[where % len(wire)] ^= 1 << where % 8
        elif fault == 1:
            del wire[where % len(wire) :]
        elif fault == 2:
            wire[where % len(wire) : where % len(wire)] = b"\x00\x01\xff"
        stream += wire
    got = [b for b in decoder().feed(bytes(stream)) if b[0] & 31 in CRC32_KINDS]
    remaining = iter(sent)
    assert all(any(body == other for other in remaining) for body in got)


def test_every_single_bit_error_is_refused():
    frame = encode_frame(DATA, bytes(range(16)), epoch=3, seq=9, t_us=77, schema=CONTEXT)
    good = decoder().feed(frame)
    for bit in range(8 * len(frame)):
        wire = bytearray(frame)
        wire[bit // 8] ^= 1 << bit % 8
        assert decoder().feed(bytes(wire)) in ([], good), bit  # an outer delimiter may be spare


def test_a_zero_byte_too_many_is_refused():
    body = decoder().feed(encode_frame(4, b"\0\0"))[0]
    made = decoder()
    assert made.feed(b"\0" + cobs_encode(body + b"\0") + b"\0") == []
    assert made.counts.bad_check == 1


def test_samples_before_the_schema_are_unverified_not_bad():
    made = FrameDecoder()
    assert made.feed(encode_frame(DATA, b"1234", schema=CONTEXT)) == []
    assert made.counts.unverified_frames == 1
    assert made.counts.bad_check == 0


def test_samples_of_another_schema_are_refused():
    made = decoder()
    assert made.feed(encode_frame(DATA, b"1234", schema=b"other")) == []
    assert made.feed(encode_frame(BATCH, b"1234", schema=b"other")) == []
    assert made.counts.bad_check == 2


def test_another_version_is_counted_apart():
    body = bytearray(decoder().feed(encode_frame(SCHEMA, b"xx"))[0])
    made = decoder()
    wire = encode_frame(2 << 5 ^ 1 << 5 ^ 4, b"")
    assert made.feed(wire) == []
    assert made.counts.bad_version == 1
    assert body[0] >> 5 == 1


def test_a_board_that_resets_in_mid_frame_costs_one_frame():
    cut_frame = encode_frame(DATA, b"12345678", schema=CONTEXT)[:9]
    boot = encode_frame(1, b"booted..")
    made = decoder()
    assert [payload_of(b) for b in made.feed(cut_frame + boot)] == [b"booted.."]
    counts = made.counts
    assert counts.bad_code + counts.bad_check + counts.bad_length == 1


def test_join_at_every_byte_costs_at_most_one_bad_frame():
    frames = [encode_frame(DATA, bytes([i] * 8), seq=i, schema=CONTEXT) for i in range(3)]
    stream = b"".join(frames)
    for start in range(len(frames[0]) + 1):
        made = decoder()
        assert len(made.feed(stream[start:])) >= 2
        counts = made.counts
        assert counts.bad_code + counts.bad_check + counts.bad_length <= 1, start


def test_ten_megabytes_without_a_delimiter_are_discarded():
    made = decoder()
    for _ in range(160):
        assert made.feed(b"\x55" * 65536) == []
        assert made.n_pending_bytes <= MAX_CODE_BYTES
    assert made.counts.too_long == 1
    frame = encode_frame(4, b"ok")
    assert [payload_of(b) for b in made.feed(b"\0" + frame)] == [b"ok"]
    assert made.counts.discarded_bytes == 160 * 65536


def test_the_longest_body_passes_and_a_longer_one_does_not():
    n_most = MAX_BODY_BYTES - 8 - 4
    assert len(decoder().feed(encode_frame(SCHEMA, b"x" * n_most))) == 1
    assert decoder().feed(encode_frame(SCHEMA, b"x" * (n_most + 1))) == []
    assert decoder().feed(encode_frame(SCHEMA, b"\0" * (n_most + 1))) == []
