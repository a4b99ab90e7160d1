"""What reading a serial line costs: CPU, lost samples, delay; the link beside what people use.

    python tests/firmware_bridge/throughput.py [--rounds 3] [--seconds 6] [--fifo]

A process of its own writes numbered samples of 8 float32 channels, noise, to a pseudo terminal, at
1,000 a second one by one and at 10,000 a second ten by ten. Contenders take turns, medians are
printed.
The delay of a sample runs from the write of its bytes to its arrival in the reading program. CPU is
that of the whole reading process, from half a second after the first sample on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
import tty
from binascii import crc_hqx
from collections.abc import Callable, Iterator
from ctypes import Array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import serial

from firmware_bridge import Link, SampleBlock, Schema
from firmware_bridge.clock import DeviceClock
from firmware_bridge.cobs import python_cobs_decode
from firmware_bridge.formats import new_session
from firmware_bridge.formats.session import LinkStatistics, SessionSettings
from firmware_bridge.protocol.board_schema import BoardSchema
from firmware_bridge.protocol.messages import START_ARGUMENTS, Command, Hello, Request
from firmware_bridge.protocol.messages import encode_message as encode
from firmware_bridge.simulator.firmware import FramedFirmware
from firmware_bridge.simulator.text_firmware import TextFirmware

try:
    from pymavlink.dialects.v20 import common as mavlink
except ImportError:
    mavlink = None

N_CHANNELS = 8
SETTLE_S = 0.5
NOISE = np.random.default_rng(0).normal(size=(997, N_CHANNELS)).astype(np.float32)
SETTINGS = ((1_000, 1), (10_000, 10))  # frames a second, frames a write


def numbered(serial_number: int) -> np.ndarray:
    """Return a sample with its number in the first channel, and in the others what sensors say."""
    values = NOISE[serial_number % len(NOISE)].copy()
    values[0] = serial_number
    return values


# Boards: each returns what encodes the sample of a number


def framed_board(master: int, rate_hz: int) -> Callable[[int], bytes]:
    """Shake hands; then one sample a frame, whatever the host would like."""
    firmware = FramedFirmware(BoardSchema.of(Schema.unnamed(N_CHANNELS, float(rate_hz))))
    os.write(master, firmware.boot(0))
    begun_s = time.monotonic()
    while not firmware.is_streaming:
        wire = os.read(master, 4096)
        os.write(master, firmware.take(wire, int((time.monotonic() - begun_s) * 1e6)))
    firmware._n_per_frame = 1
    first_us = int((time.monotonic() - begun_s) * 1e6)
    return lambda k: firmware.sample(numbered(k), first_us + k * 1_000_000 // rate_hz)


def bare_frames(master: int, rate_hz: int) -> Callable[[int], bytes]:
    """Stream the same frames without a handshake."""
    firmware = FramedFirmware(BoardSchema.of(Schema.unnamed(N_CHANNELS, float(rate_hz))))
    firmware.boot(0)
    os.read(master, 1)
    firmware.take(encode(Hello(1, 1, 0)), 0)
    start = START_ARGUMENTS.pack(1_000_000 // rate_hz, 1)
    firmware.take(encode(Request(1, Command.START, start)), 0)
    return lambda k: firmware.sample(numbered(k), 0)


def lines(master: int, rate_hz: int) -> Callable[[int], bytes]:
    """Print lines of CSV."""
    firmware = TextFirmware(Schema.unnamed(N_CHANNELS, float(rate_hz)))
    os.read(master, 1)
    return lambda k: firmware.sample(numbered(k), 0)


def mavlink_messages(master: int, _rate_hz: int) -> Callable[[int], bytes]:
    """Send MAVLink 2 messages with eight floats."""
    packer = mavlink.MAVLink(None)
    os.read(master, 1)

    def message(k: int) -> bytes:
        controls = numbered(k).tolist()
        return packer.actuator_control_target_encode(k, 0, controls).pack(packer)

    return message


def run_board(master: int, kind: str, rate_hz: int, n_per_write: int, sent_s: Array[float]) -> None:
    """Write samples at their instants, and note when; deaf to all answers."""
    sample = BOARDS[kind](master, rate_hz)
    threading.Thread(
        target=lambda: all(iter(lambda: os.read(master, 4096), b"")), daemon=True
    ).start()
    due_s = time.monotonic()
    for first in range(0, len(sent_s), n_per_write):
        last = first + n_per_write
        wire = b"".join(sample(k) for k in range(first, last))
        sent_s[first:last] = [time.monotonic()] * n_per_write
        os.write(master, wire)
        due_s += n_per_write / rate_hz
        time.sleep(max(0.0, due_s - time.monotonic()))
    time.sleep(5.0)  # until it is stopped


BOARDS = {
    "framed": framed_board,
    "frames": bare_frames,
    "lines": lines,
    "mavlink": mavlink_messages,
}


# Contenders: each yields samples, or arrays of them


def with_link(port: str, rate_hz: int) -> Iterator[np.ndarray]:
    """Read with the link of this package."""
    with Link(port, schema=Schema.unnamed(N_CHANNELS, float(rate_hz))) as link:
        while True:
            item = link.receive(2.0)
            if isinstance(item, SampleBlock):
                yield item.values


def with_csv_link(port: str, rate_hz: int) -> Iterator[np.ndarray]:
    """Read lines with the link of this package."""
    with Link(port, format="csv", rate_hz=float(rate_hz)) as link:
        os.write(link._port.fileno(), b"g")
        while True:
            item = link.receive(2.0)
            if isinstance(item, SampleBlock):
                yield item.values


def opened(port: str) -> serial.Serial:
    """Open as tutorials do, and let the board begin."""
    line = serial.Serial(port, 921600, timeout=2.0)
    line.write(b"g")
    return line


def with_read_until(port: str, _rate_hz: int) -> Iterator[list[np.ndarray]]:
    """Read frame by frame with pyserial's read_until."""
    seed = crc_hqx(BoardSchema.of(Schema.unnamed(N_CHANNELS, float(_rate_hz))).to_wire(), 0xFFFF)
    with opened(port) as line:
        while True:
            code = line.read_until(b"\0")[:-1]
            body = python_cobs_decode(code)
            if body and crc_hqx(body, seed) == 0x1D0F:
                yield [np.frombuffer(body, "<f4", N_CHANNELS, 8)]


def with_readline(port: str, _rate_hz: int) -> Iterator[list[list[float]]]:
    """Read line by line with pyserial's readline."""
    with opened(port) as line:
        while True:
            fields = line.readline().decode().split(",")
            if len(fields) == N_CHANNELS:
                yield [[float(field) for field in fields]]


def with_pymavlink(port: str, _rate_hz: int) -> Iterator[list[list[float]]]:
    """Read what is there and let pymavlink parse it."""
    parser = mavlink.MAVLink(None)
    with opened(port) as line:
        while True:
            messages = parser.parse_buffer(line.read(line.in_waiting or 1))
            if messages:
                yield [message.controls for message in messages]


CONTENDERS = {
    "link, framed": ("framed", with_link),
    "link, csv": ("lines", with_csv_link),
    "pyserial read_until + check": ("frames", with_read_until),
    "pyserial readline + float": ("lines", with_readline),
    "pymavlink": ("mavlink", with_pymavlink),
}


@dataclass
class Run:
    """What one contender did in one round."""

    lost: int
    cpu_percent: float
    p50_us: float
    p99_us: float


def measure(name: str, rate_hz: int, n_per_write: int, duration_s: float) -> Run:
    """Let a contender read a board of its own."""
    kind, contender = CONTENDERS[name]
    master, slave = os.openpty()
    tty.setraw(slave)
    n = int(rate_hz * duration_s)
    sent_s = multiprocessing.RawArray("d", n)
    board = multiprocessing.get_context("fork").Process(
        target=run_board, args=(master, kind, rate_hz, n_per_write, sent_s), daemon=True
    )
    board.start()
    samples = contender(os.ttyname(slave), rate_hz)
    got: list[tuple[float, list[list[float]] | np.ndarray]] = []
    begun_s, cpu_s, end_s = 0.0, 0.0, float("inf")
    for rows in samples:
        now_s = time.monotonic()
        if not got:
            begun_s, end_s = now_s, now_s + duration_s - 0.1
        if not cpu_s and now_s > begun_s + SETTLE_S:
            begun_s, cpu_s = now_s, time.process_time()
        got.append((now_s, rows))
        if rows[-1][0] == n - 1 or now_s > end_s:
            break
    cpu_percent = 100 * (time.process_time() - cpu_s) / (time.monotonic() - begun_s)
    samples.close()
    board.terminate()
    board.join()
    os.close(master)
    os.close(slave)
    numbers = np.concatenate([[row[0] for row in rows] for _, rows in got]).astype(int)
    arrived_s = np.repeat([now_s for now_s, _ in got], [len(rows) for _, rows in got])
    delays_us = 1e6 * (arrived_s - np.array(sent_s)[numbers])
    lost = int(numbers[-1] - numbers[0] + 1 - len(numbers))
    settled = slice(min(rate_hz // 2, len(numbers) // 2), None)
    return Run(lost, cpu_percent, *np.percentile(delays_us[settled], (50, 99)))


def flood() -> str:
    """Decode 100,000 frames from a file, to samples with time and number."""
    rate_hz, n = 10_000.0, 100_000
    firmware = FramedFirmware(BoardSchema.of(Schema.unnamed(N_CHANNELS, rate_hz), "<i2", 0.01))
    session = new_session("framed", SessionSettings(), LinkStatistics(), DeviceClock())
    session.connected(0.0, "file", None)
    session.receive(firmware.boot(0), 0.0)
    for step in range(20):
        session.tick(step * 0.01)
        session.receive(firmware.take(session.take_outgoing(), step * 10_000), step * 0.01)
    firmware._n_per_frame = 1
    values = np.random.default_rng(0).normal(size=(n, N_CHANNELS)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "flood.bin")
        path.write_bytes(b"".join(firmware.sample(v, 100 * k) for k, v in enumerate(values)))
        got = 0
        begun_s = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            for chunk in iter(lambda: file.read(65536), b""):
                got += sum(
                    len(i) for i in session.receive(chunk, 1.0) if isinstance(i, SampleBlock)
                )
        elapsed_s = time.perf_counter() - begun_s
    return f"flood from a file: {got} of {n} frames, {got / elapsed_s:,.0f} a second"


def report(rate_hz: int, n_per_write: int, runs: dict[str, list[Run]]) -> str:
    """Return a table of medians."""
    rows = [
        (
            f"{rate_hz} frames/s of {N_CHANNELS} channels, {n_per_write} a write, "
            f"load {os.getloadavg()[0]:.1f}"
        )
    ]
    for name, rounds in runs.items():
        lost, cpu, p50, p99 = (
            statistics.median(getattr(run, field) for run in rounds)
            for field in ("lost", "cpu_percent", "p50_us", "p99_us")
        )
        rows.append(
            f"  {name:28} CPU {cpu:5.1f} %  lost {lost:6.0f}  p50 {p50:7.0f} us  p99 {p99:7.0f} us"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Write the tables to stdout."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=6.0)
    options.add_argument("--fifo", action="store_true", help="ahead of all others; for root")
    given = options.parse_args()
    if given.fifo:  # for what is started from here on, too
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    names = [name for name in CONTENDERS if mavlink or name != "pymavlink"]
    for rate_hz, n_per_write in SETTINGS:
        runs: dict[str, list[Run]] = {name: [] for name in names}
        for _ in range(given.rounds):
            for name in names:
                runs[name].append(measure(name, rate_hz, n_per_write, given.seconds))
        sys.stdout.write(report(rate_hz, n_per_write, runs))
        sys.stdout.flush()
    for _ in range(given.rounds):
        sys.stdout.write(flood() + "\n")


if __name__ == "__main__":
    main()
