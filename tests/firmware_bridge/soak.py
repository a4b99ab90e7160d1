"""The long tests of the wire: ten million spoilt frames, and a day of a stream in a few minutes.

    python tests/firmware_bridge/soak.py [--frames 10000000] [--hours 24]

A day is that of the board and of the session: no port, and no clock but the one turned here.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np

from firmware_bridge import Gap, SampleBlock, Schema
from firmware_bridge.clock import DeviceClock
from firmware_bridge.formats import new_session
from firmware_bridge.formats.session import LinkStatistics, SessionSettings
from firmware_bridge.framing import BATCH, DATA, FrameDecoder, encode_frame
from firmware_bridge.link.item_queue import ItemQueue
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.simulator.firmware import FramedFirmware

CONTEXT = b'{"channels":8}'
ROWS_A_TURN = 20_000
PAYLOAD_BYTES = {DATA: 32, BATCH: 160}


def spoilt_frames(kind: int, rng: np.random.Generator) -> tuple[bytes, int]:
    """Return frames on the wire, each with two to eight changed bytes, and their number.

    No byte becomes 0x00, so that every frame stays one; the changes are anywhere in it.
    """
    n_bytes = PAYLOAD_BYTES[kind]
    distinct = [
        encode_frame(kind, rng.bytes(n_bytes), seq=k, t_us=977 * k, schema=CONTEXT)
        for k in range(200)
    ]
    longest = max(map(len, distinct))
    table = np.array([np.frombuffer(f, np.uint8) for f in distinct if len(f) == longest])
    whole = table[rng.integers(len(table), size=ROWS_A_TURN)]
    spoilt = whole.copy()
    for turn in range(8):
        rows = np.arange(ROWS_A_TURN) if turn < 2 else np.flatnonzero(rng.random(ROWS_A_TURN) < 0.5)
        columns = rng.integers(1, longest - 1, size=len(rows))
        spoilt[rows, columns] = rng.integers(1, 256, size=len(rows), dtype=np.uint8)
    is_other = (spoilt != whole).any(axis=1)
    return spoilt[is_other].tobytes(), int(is_other.sum())


def accepted(kind: int, n_frames: int, seed: int = 0) -> tuple[int, int, int]:
    """Return frames spoilt, those of them that reached the check, and those it let through."""
    rng = np.random.default_rng(seed)
    decoder = FrameDecoder()
    decoder.learn(CONTEXT)
    n_spoilt = 0
    while n_spoilt < n_frames:
        wire, n = spoilt_frames(kind, rng)
        decoder.feed(wire)
        n_spoilt += n
    counts = decoder.counts
    return n_spoilt, counts.bad_check + counts.frames_good, counts.frames_good


def most_by_chance(n: int, probability: float, share: float = 0.999) -> int:
    """Return what Binomial(n, probability) does not exceed in a share of all cases."""
    log_term = n * math.log1p(-probability)
    total, k = math.exp(log_term), 0
    while total < share:
        k += 1
        log_term += math.log((n - k + 1) / k * probability / (1 - probability))
        total += math.exp(log_term)
    return k


def resident_kib() -> int:
    """Return the memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4


def run_a_day(hours: float, rate_hz: float = 100.0) -> tuple[LinkStatistics, list[int], int, int]:
    """Let a board stream for hours; return counters, KiB held at each hour, samples, gaps.

    Nobody takes the samples from the queue, whose 65,536 stay full of the newest.
    """
    counts, clock = LinkStatistics(), DeviceClock()
    session = new_session("framed", SessionSettings(), counts, clock)
    firmware = FramedFirmware(BoardSchema.of(Schema.unnamed(8, rate_hz), "<i2"))
    queue = ItemQueue(65536)
    now_s, begun_s = 1000.0, 1000.0
    session.connected(now_s, "board", None)
    n_samples = n_gaps = 0
    memory = []

    def feed(wire: bytes) -> None:
        nonlocal n_samples, n_gaps
        items = session.receive(wire, now_s)
        n_samples += sum(len(item) for item in items if isinstance(item, SampleBlock))
        n_gaps += sum(isinstance(item, Gap) for item in items)
        queue.put(items)

    feed(firmware.boot(0))
    values = np.zeros(8, np.float32)
    period_us = int(1e6 / rate_hz)
    next_us = -1
    n_per_frame = 25
    while now_s - begun_s < hours * 3600:
        now_s += n_per_frame / rate_hz
        t_us = int((now_s - begun_s) * 1e6)
        if now_s >= session.wake_at_s:
            queue.put(session.tick(now_s))
        outgoing = session.take_outgoing()
        wire = firmware.take(outgoing, t_us) if outgoing else b""
        if firmware.is_streaming:
            firmware._n_per_frame = n_per_frame
            next_us = t_us if next_us < 0 else next_us
            for _ in range(n_per_frame):
                wire += firmware.sample(values, next_us)
                next_us += period_us
        feed(wire + firmware.tick(t_us))
        if (now_s - begun_s) // 3600 >= len(memory):
            memory.append(resident_kib())
    return counts, memory, n_samples, n_gaps


def main() -> int:
    """Write what was found to stdout; return how many of the three are not as promised."""
    options = argparse.ArgumentParser()
    options.add_argument("--frames", type=int, default=10_000_000)
    options.add_argument("--hours", type=float, default=24.0)
    given = options.parse_args()
    n_broken = 0
    for kind, name, probability in ((DATA, "CRC-16", 2.0**-16), (BATCH, "CRC-32", 0.0)):
        n_spoilt, n_checked, n_accepted = accepted(kind, given.frames)
        most = most_by_chance(n_checked, probability) if probability else 0
        n_broken += n_accepted > most
        sys.stdout.write(
            f"{name}: {n_spoilt} spoilt frames, {n_checked} reached the check, {n_accepted} "
            f"accepted, at most {most} allowed\n"
        )
        sys.stdout.flush()
    begun_s = time.monotonic()
    counts, memory, n_samples, n_gaps = run_a_day(given.hours)
    growth_kib = memory[-1] - memory[min(1, len(memory) - 1)]
    n_broken += growth_kib > 2048 or n_gaps > 0 or counts.frames_bad > 0
    sys.stdout.write(
        f"{given.hours:g} h in {time.monotonic() - begun_s:.0f} s: {n_samples} samples, {n_gaps} "
        f"gaps, {counts.frames_bad} bad frames, {counts.resyncs} resyncs; memory "
        f"{memory[-1]} KiB, {growth_kib:+d} KiB since the second hour\n"
    )
    return n_broken


if __name__ == "__main__":
    sys.exit(main())
