"""One definition, two ends: the same vectors through Python and C, and both decoders on noise."""

import re
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import firmware_bridge.firmware
from firmware_bridge.framing import (
    DATA,
    HEADER,
    FrameDecoder,
    cobs_encode,
    encode_frame,
    payload_of,
)
from firmware_bridge.protocol import messages as m
from firmware_bridge.protocol.samples import MAX_DATA_PAYLOAD_BYTES

HERE = Path(__file__).parent
HEADER_FILE = Path(firmware_bridge.firmware.__file__).parent / "library" / "edge_link.h"
LINES = (HERE / "vectors.txt").read_text().splitlines()
SCHEMA = bytes.fromhex(LINES[0].split()[1])


def vectors():
    for line in LINES[1:]:
        *numbers, payload, wire = line.split()
        payload = b"" if payload == "-" else bytes.fromhex(payload)
        yield tuple(map(int, numbers)), payload, bytes.fromhex(wire)


def python_decoder():
    decoder = FrameDecoder()
    decoder.learn(SCHEMA)
    return decoder


@pytest.fixture
def board(make_board):
    made = make_board(SCHEMA, 4)
    made.boot(1, 0)
    made.sent()
    return made


def test_the_vectors_are_those_of_the_script():
    assert runpy.run_path(str(HERE / "make_vectors.py"))["text"]() == "\n".join(LINES) + "\n"
    assert {numbers[0] for numbers, _, _ in vectors()} == set(m.Kind)


def test_python_writes_and_reads_the_vectors():
    decoder = python_decoder()
    for (kind, epoch, seq, t_us), payload, wire in vectors():
        assert encode_frame(kind, payload, epoch=epoch, seq=seq, t_us=t_us, schema=SCHEMA) == wire
        (body,) = decoder.feed(wire)
        assert HEADER.unpack_from(body) == (1 << 5 | kind, epoch, seq, t_us)
        assert payload_of(body) == payload


def test_c_writes_and_reads_the_vectors(board):
    for (kind, epoch, seq, t_us), payload, wire in vectors():
        assert board.encode(kind, epoch, seq, t_us, payload, len(payload))
        assert board.sent() == wire
        (body,) = board.decoded(wire)
        assert HEADER.unpack_from(body) == (1 << 5 | kind, epoch, seq, t_us)
        assert payload_of(body) == payload


def test_every_constant_of_the_header_is_pythons():
    numbers = {
        name: int(value)
        for name, value in re.findall(r"EDGE_LINK_(\w+) = (\d+)", HEADER_FILE.read_text())
    }
    expected = {
        **{kind.name: kind for kind in m.Kind},
        **{command.name: command for command in m.Command},
        **{status.name: status for status in m.AckStatus},
        "FIRST_OWN_COMMAND": m.FIRST_OWN_COMMAND,
        "STREAMING": m.FLAG_STREAMING,
        "SENSOR_FAULT": m.FLAG_SENSOR_FAULT,
        "CLOCK_NOT_LOCKED": m.FLAG_CLOCK_NOT_LOCKED,
        "ALARM_LIT": m.FLAG_ALARM_LIT,
        "WARMING_UP": m.PREDICTION_WARMING_UP,
        "HAS_ALARM": m.PREDICTION_HAS_ALARM,
        "PROTO_MIN": 1,
        "PROTO_MAX": 1,
        "MAX_BODY_BYTES": 1024,
        "MAX_DATA_BYTES": MAX_DATA_PAYLOAD_BYTES,
    }
    own = {"MAX_RESULT_BYTES", "MIN_TX_BYTES"}
    assert {name: numbers[name] for name in numbers if name not in own} == expected


def test_c_refuses_every_single_bit_error(board):
    frame = encode_frame(DATA, bytes(range(16)), epoch=3, seq=9, t_us=77, schema=SCHEMA)
    good = python_decoder().feed(frame)
    assert board.decoded(frame) == good
    for bit in range(8 * len(frame)):
        wire = bytearray(frame)
        wire[bit // 8] ^= 1 << bit % 8
        assert board.decoded(bytes(wire) + b"\0") in ([], good), bit


def test_c_refuses_another_version_with_a_good_check(board):
    wire = encode_frame(2 << 5 ^ 1 << 5 ^ 4, b"abc")
    assert board.decoded(wire) == python_decoder().feed(wire) == []
    assert board.n_rx_bad() == 1


def test_c_refuses_what_is_too_long_although_it_begins_well(board):
    (body,) = python_decoder().feed(encode_frame(9, b"x" * 1014))
    assert len(body) == 1024
    wire = b"\0" + cobs_encode(body + b"more") + b"\0"
    assert board.decoded(wire) == python_decoder().feed(wire) == []
    assert board.n_rx_bad() == 1


frames = st.builds(
    lambda kind, payload, seq: encode_frame(kind, payload, seq=seq, schema=SCHEMA),
    st.sampled_from([1, 2, 3, 4, 5, 16, 19, 20, 31]),
    st.binary(max_size=300) | st.integers(0, 1012).map(lambda n: b"\xaa" * n),
    st.integers(0, 0xFFFF),
)
noise = st.binary(max_size=80) | st.just(b"\0" * 40) | st.just(b"\xff" * 1500) | st.just(b"AT\r")


@st.composite
def damaged(draw):
    wire = bytearray(draw(frames))
    at = draw(st.integers(0, len(wire) - 1))
    if draw(st.booleans()):
        wire[at] ^= 1 << draw(st.integers(0, 7))
    else:
        del wire[at:]
    return bytes(wire)


@settings(max_examples=400)
@given(parts=st.lists(frames | noise | damaged(), max_size=12))
def test_both_decoders_agree_on_any_stream(library, make_one_board, parts):
    stream = b"".join(parts) + b"\0"
    board, decoder = make_one_board(SCHEMA, 4), python_decoder()
    assert board.decoded(stream) == decoder.feed(stream)
    counts = decoder.counts
    n_bad = counts.bad_code + counts.bad_length + counts.bad_check + counts.bad_version
    assert board.n_rx_bad() == n_bad + counts.too_long
    assert board.n_rx_good() == counts.frames_good
