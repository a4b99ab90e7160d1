from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_gru.cli import main
from firmware_bridge.sample import Schema
from firmware_bridge.simulator import ReplaySource, SimulatedBoard

MAIN = "from edge_gru.cli import main; main(prog_name='edge-gru')"


class Live:
    """An `edge-gru` process whose stdout is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict] = []

    def read_until(self, is_wanted: Callable[[dict], bool]) -> None:
        """Read events up to the first that is wanted."""
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if is_wanted(self.events[-1]):
                return
        pytest.fail(f"the process ended first: {self.process.stderr.read()}")

    def read_sample(self, seq: int) -> None:
        """Read events up to the prediction of a sample."""
        self.read_until(lambda event: event.get("sample_seq") == seq)

    def read_stderr_until(self, sentence: str) -> None:
        """Read messages up to the one with this sentence."""
        if not any(sentence in line for line in self.process.stderr):
            pytest.fail(f"the process ended without {sentence!r}")

    def end(self, signal: int) -> str:
        """Send a signal, read the rest of stdout, return stderr."""
        self.process.send_signal(signal)
        self.events += [json.loads(line) for line in self.process.stdout]
        errors = self.process.stderr.read()
        self.process.wait(30)
        return errors

    @property
    def predictions(self) -> list[dict]:
        return [event for event in self.events if event["kind"] == "prediction"]


@pytest.fixture
def call() -> Callable[..., Result]:
    """Call a verb in this process."""

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """Start a verb in a process of its own; what still runs at the end is killed."""
    with ExitStack() as started:

        def start(*arguments: object, **environment: str) -> Live:
            command = [sys.executable, "-c", MAIN, *map(str, arguments)]
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
            started.enter_context(process)
            started.callback(process.kill)
            return Live(process)

        yield start


@pytest.fixture
def recording() -> np.ndarray:
    """Samples of the two channels of ``schema``."""
    return np.random.default_rng(1).normal(size=(400, 2)).astype(np.float32)


@pytest.fixture
def board(recording: np.ndarray, schema: Schema, tmp_path: Path) -> SimulatedBoard:
    """A board of 200 Hz that never ends, not plugged in yet, with a name that stays the same."""
    source = ReplaySource(recording, schema, loop=True)
    return SimulatedBoard(source, link_path=tmp_path / "sensor")


@pytest.fixture
def done(call):
    """Call a verb that must succeed; its stdout."""

    def invoke(*arguments: object) -> str:
        result = call(*arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return invoke


@pytest.fixture
def refused(call):
    """Call a verb that must be refused in one sentence; that sentence."""

    def invoke(*arguments: object) -> str:
        result = call(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        return result.stderr.splitlines()[-1]

    return invoke


@pytest.fixture
def released(done, pack, schema, tmp_path):
    """Make a signed release n of the tiny model; return its file."""
    secret, public = tmp_path / "k.key", tmp_path / "k.pub"
    done("keys", "generate", "-W", "-s", secret, "-p", public)

    def make(version: int, *options: object):
        file = pack(schema, seed=version).save(tmp_path / f"tiny-{version}.egb")
        done("keys", "sign", file, "-s", secret, "--version", version, *options)
        return file

    make.public = public
    make.secret = secret
    return make


@pytest.fixture
def where(released, tmp_path):
    return ("--store", tmp_path / "bundles", "--keys", released.public)


@pytest.fixture
def listed(done, where) -> Callable[[], dict]:
    """Read what `bundle list` tells of the store."""
    return lambda: json.loads(done("bundle", "list", *where[:2], "--json"))
