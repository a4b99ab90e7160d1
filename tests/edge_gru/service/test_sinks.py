from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edge_gru.errors import ConfigError
from edge_gru.service.events import Event, GapEvent, encode_line
from edge_gru.service.sinks import FileSink, StreamSink, open_sinks


def event(seq: int) -> Event:
    return GapEvent(
        device="d",
        stream="s",
        boot="b",
        run="r",
        seq=seq,
        wall=datetime(2026, 1, 1, tzinfo=timezone.utc),
        mono_ns=seq,
        clock_synced=False,
        n_missing=1,
    )


def line(seq: int) -> bytes:
    buffer = bytearray()
    encode_line(event(seq), buffer)
    return bytes(buffer)


def seqs(content: bytes) -> list[int]:
    assert content == b"" or content.endswith(b"\n")
    return [json.loads(text)["seq"] for text in content.splitlines()]


def write_all(path: Path, numbers: range) -> FileSink:
    sink = FileSink(path).open()
    for seq in numbers:
        sink.write(event(seq))
    sink.close()
    return sink


def test_every_event_is_a_line_of_json_that_names_its_kind(tmp_path: Path):
    write_all(tmp_path / "o", range(3))
    lines = (tmp_path / "o").read_text().splitlines()
    assert [json.loads(text)["kind"] for text in lines] == ["gap"] * 3
    assert json.loads(lines[0])["wall"] == "2026-01-01T00:00:00Z"


def test_a_second_run_appends(tmp_path: Path):
    write_all(tmp_path / "o", range(3))
    write_all(tmp_path / "o", range(3, 5))
    assert seqs((tmp_path / "o").read_bytes()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("tail", [line(9)[:-1], line(9)[:20], line(9)[:3], b"\0" * 5000])
def test_torn_last_line_is_dropped_and_counted(
    tmp_path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "o"
    path.write_bytes(line(0) + line(1) + tail)
    sink = write_all(path, range(2, 4))
    assert sink.torn_bytes == len(tail)
    assert f"dropped {len(tail)} bytes" in caplog.text
    assert seqs(path.read_bytes()) == [0, 1, 2, 3]


@pytest.mark.parametrize("content", [line(9)[:30], line(9)[:4], b"\0" * 100])
def test_file_of_nothing_but_a_torn_line_begins_anew(tmp_path: Path, content: bytes):
    path = tmp_path / "o"
    path.write_bytes(content)
    write_all(path, range(1))
    assert seqs(path.read_bytes()) == [0]


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a bundle", b'bundle = "x"', b'{"king": 1}', line(0) + b"x" * (2 << 20)]
)
def test_file_with_something_else_is_refused_and_untouched(tmp_path: Path, content: bytes):
    path = tmp_path / "o"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="choose another file"):
        FileSink(path).open()
    assert path.read_bytes() == content


def test_file_of_another_run_is_refused(tmp_path: Path):
    path = tmp_path / "o"
    first = FileSink(path).open()
    with pytest.raises(ConfigError, match="another run writes to"):
        FileSink(path).open()
    first.close()
    FileSink(path).open().close()


@pytest.mark.parametrize("name", ["absent/o", "."])
def test_place_that_cannot_be_written_is_named(tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match="cannot write events to"):
        FileSink(tmp_path / name).open()


def test_a_run_that_never_began_leaves_no_file(tmp_path: Path):
    FileSink(tmp_path / "new").open().close()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").write_bytes(b"")
    FileSink(tmp_path / "old").open().close()
    assert (tmp_path / "old").exists()


def test_open_sinks_leaves_none_open_when_one_fails(tmp_path: Path):
    with pytest.raises(ConfigError):
        open_sinks([str(tmp_path / "o"), str(tmp_path / "absent" / "o")])
    FileSink(tmp_path / "o").open().close()  # not locked any more


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A disk of 4 kB, as far as this process goes; Python ignores SIGXFSZ and gets EFBIG.

    No fixture: pytest itself writes its report, maybe to a file, before fixtures are torn down.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_is_warned_of_once_and_all_lines_follow_when_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    sink = FileSink(tmp_path / "o").open()
    with full_disk():
        for seq in range(100):
            sink.write(event(seq))
            assert sink.flush()
    assert caplog.text.count("cannot write to") == 1
    sink.write(event(100))
    sink.flush()
    assert seqs((tmp_path / "o").read_bytes()) == list(range(101))
    sink.close()
    assert sink.n_dropped == 0


def test_disk_that_stays_full_ends_in_a_whole_line_and_a_count(tmp_path: Path):
    with full_disk():
        sink = write_all(tmp_path / "o", range(100))
    written = seqs((tmp_path / "o").read_bytes())
    assert written == list(range(len(written)))
    assert 0 < len(written) < 100
    assert sink.n_dropped == 100 - len(written)


def test_beyond_the_memory_the_newest_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    sink = FileSink(tmp_path / "o", max_pending_bytes=4096).open()
    with full_disk():
        for seq in range(200):
            sink.write(event(seq))
            sink.flush()
    sink.flush()
    kept = 200 - sink.n_dropped
    sink.write(event(1000))
    sink.close()
    assert seqs((tmp_path / "o").read_bytes()) == [*range(kept), 1000]
    assert caplog.text.count("does not take events") == 1


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):  # a test closes one itself
            os.close(descriptor)


def read_available(descriptor: int) -> bytes:
    content = b""
    while select.select([descriptor], [], [], 0)[0]:
        content += os.read(descriptor, 65536)
    return content


def test_slow_reader_does_not_block_and_misses_nothing(pipe: tuple[int, int]):
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    sink = StreamSink(writing)
    for seq in range(100):
        sink.write(event(seq))
        assert sink.flush()
    content = b""
    while True:
        part = read_available(reading)
        if not part:
            break
        content += part
        sink.flush()
    assert seqs(content) == list(range(100))


def test_pipe_that_is_small_for_a_flush_interval_is_no_bottleneck(pipe: tuple[int, int]):
    reading, writing = pipe
    sink = StreamSink(writing, max_pending_bytes=100_000)
    content = b""
    for seq in range(10_000):
        sink.write(event(seq))
        if seq % 200 == 0:
            content += read_available(reading)
    sink.flush()
    assert sink.n_dropped == 0
    assert len(content) > 1_500_000


def test_reader_that_left_is_told_and_not_written_to_again(pipe: tuple[int, int]):
    reading, writing = pipe
    os.close(reading)
    sink = StreamSink(writing)
    sink.write(event(0))
    assert not sink.flush()
    sink.write(event(1))
    assert not sink.flush()
    sink.close()
    assert sink.n_dropped == 0


def test_reader_that_stands_still_at_the_end_costs_what_is_left(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge_gru.service.sinks._PATIENCE_S", 0.01)
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    sink = StreamSink(writing)
    for seq in range(100):
        sink.write(event(seq))
    sink.close()
    whole = read_available(reading).count(b"\n")
    assert sink.n_dropped == 100 - whole


def test_dev_full_counts_and_goes_on():
    sink = FileSink(Path("/dev/full")).open()
    sink.write(event(0))
    assert sink.flush()
    sink.close()
    assert sink.n_dropped == 1


_KILLED_WRITER = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from test_sinks import FileSink, event
sink = FileSink(Path({path!r})).open()
seq = 0
while True:
    sink.write(event(seq)); sink.flush(); seq += 1
    if seq == 50: print("go", flush=True)
"""


def test_file_of_a_killed_writer_goes_on_without_a_torn_line(tmp_path: Path):
    path = tmp_path / "o"
    script = _KILLED_WRITER.format(folder=str(Path(__file__).parent), path=str(path))
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"go\n"
            writer.kill()
        write_all(path, range(1))
        assert seqs(path.read_bytes())[-1] == 0
