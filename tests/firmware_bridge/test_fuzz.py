"""Whatever comes over the wire, at whatever moment: sessions and firmware go on."""

import contextlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_bridge import ProtocolError, Schema, SchemaError
from firmware_bridge.framing import encode_frame
from firmware_bridge.protocol import messages as m
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator.firmware import FramedFirmware

BOARD = BoardSchema.of(Schema.unnamed(2, 100.0))


def payloads(layout):
    n = layout.fixed.size
    return st.binary(min_size=n, max_size=n + 20 if layout.has_tail else n)


control_frames = st.one_of(
    [
        st.builds(encode_frame, st.just(int(kind)), payloads(layout), epoch=st.integers(0, 255))
        for kind, layout in m._LAYOUTS.items()
    ]
)
sample_frames = st.builds(
    encode_frame,
    st.sampled_from([2, 3]),
    st.sampled_from([bytes(8), bytes(16), bytes(800), b"", b"\xff" * 8, bytes(9)]),
    epoch=st.sampled_from([98, 99, 0]),  # the epochs of a first boot among them
    seq=st.integers(0, 0xFFFF),
    t_us=st.integers(0, 0xFFFFFFFF),
    schema=st.just(BOARD.to_wire()),
)
odd_frames = st.builds(encode_frame, st.integers(0, 31), st.binary(max_size=40))
wires = st.lists(control_frames | sample_frames | odd_frames | st.binary(max_size=30), max_size=15)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(wires, st.integers(0, 300), st.randoms(use_true_random=False))
def test_no_frame_at_any_moment_breaks_session_or_firmware(make_bench, frames, start_ms, rng):
    firmware = FramedFirmware(BOARD)
    bench = make_bench(firmware=firmware)
    bench.samples = iter(np.zeros((1000, 2), np.float32))
    with contextlib.suppress(SchemaError, ProtocolError):  # a forged answer may well refuse us
        bench.run(start_ms / 1000)
        for frame in frames:
            bench.feed(frame)
            bench.feed(firmware.take(frame, bench.t_us))
            bench.run(rng.choice([0.001, 0.1]))
    seqs = [i.seq for i in bench.items if hasattr(i, "seq")]
    assert all((np.diff(seq) == 1).all() for seq in seqs)


@pytest.mark.parametrize("seed", range(20))
def test_a_board_with_a_bad_line_is_read_in_the_end(make_bench, rows, seed):
    """One byte in a hundred is wrong, in both directions, during and after the handshake."""
    bench = make_bench()
    rng = np.random.default_rng(seed)

    def spoil(wire):
        spoilt = np.frombuffer(wire, np.uint8).copy()
        hits = rng.random(len(spoilt)) < 0.01
        spoilt[hits] = rng.integers(0, 256, hits.sum())
        return spoilt.tobytes()

    bench.to_host = bench.to_board = spoil
    bench.run(20.0, step_s=0.005)
    assert bench.counts.samples > 500
    assert set(map(bytes, bench.values())) <= set(map(bytes, rows))
