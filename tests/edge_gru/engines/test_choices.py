"""What auto chose is remembered, proven again, and measured anew when it no longer holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_gru.bundle import Bundle
from edge_gru.engines import choices, select, table
from edge_gru.engines.base import Engine
from edge_gru.engines.choices import Choice, recall, remember
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.measure import Measurement
from edge_gru.engines.select import open_engine

PASSED = GoldenResult("any", "fp32", 1, 0.0, 1.0, 100.0, 30.0)
ROW = Measurement("reference", "fp32", 5.0, 6.0, PASSED)


@pytest.fixture
def n_measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count measurements, each of which finds the reference in fp32 the fastest."""
    calls: list[int] = []

    def measure(*_: object, **__: object) -> list[Measurement]:
        calls.append(1)
        return [ROW]

    monkeypatch.setattr(select, "measure", measure)
    return calls


def opened(bundle: Bundle, n_streams: int = 1) -> tuple[str, str]:
    with open_engine("auto", bundle.source, n_streams=n_streams) as engine:
        assert engine.n_streams == n_streams
        return engine.name, engine.precision


def test_second_time_nothing_is_measured(bundle: Bundle, n_measured: list[int]) -> None:
    assert opened(bundle) == opened(bundle, 3) == ("reference", "fp32")
    assert len(n_measured) == 1


def test_another_bundle_and_another_precision_are_measured_for_themselves(
    bundle: Bundle, other_bundle: Bundle, n_measured: list[int]
) -> None:
    opened(bundle)
    opened(other_bundle)
    open_engine("auto", bundle.source, precision="fp32").close()
    assert len(n_measured) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: patch.setattr(choices, "_cpu", lambda: ["another CPU"]),
        lambda patch: patch.setattr(choices, "_version_of", lambda _: "another version"),
        lambda patch: patch.setenv("EDGE_GRU_NATIVE_KERNEL", "scalar"),
        lambda patch: patch.setenv("EDGE_GRU_TENSORRT_WAIT", "spin"),
        lambda patch: patch.setattr(choices, "_board", lambda: ["another GPU"]),
    ],
)
def test_another_machine_is_measured(
    bundle: Bundle,
    n_measured: list[int],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    opened(bundle)
    change(monkeypatch)
    opened(bundle)
    assert len(n_measured) == 2


def files() -> list[Path]:
    return list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.choice"))


@pytest.mark.parametrize(
    "content", [b"", b"\x81", b"\x90", b"\x81\xa6engine\x07", b"\x81\xa1\xff\x00"]
)
def test_what_cannot_be_read_is_measured_again(
    bundle: Bundle, n_measured: list[int], content: bytes
) -> None:
    opened(bundle)
    (path,) = files()
    path.write_bytes(content)
    opened(bundle)
    opened(bundle)
    assert len(n_measured) == 2


def test_engine_that_is_gone_or_fails_its_vectors_is_measured_again(
    bundle: Bundle, n_measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_hash = bundle.hash
    remember(model_hash, None, Choice("abacus", "fp32", (), is_whole=True))
    opened(bundle)
    remember(model_hash, None, Choice("reference", "int3", (), is_whole=True))
    opened(bundle)
    assert len(n_measured) == 2
    kept = recall(model_hash, None)
    assert (kept.engine, kept.precision, kept.rows) == ("reference", "fp32", (ROW,))
    assert kept.wall_s > 1.7e9


def test_folder_that_cannot_be_written_only_costs_time(
    bundle: Bundle, n_measured: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert opened(bundle) == opened(bundle) == ("reference", "fp32")
    assert len(n_measured) == 2


def test_known_engine_must_still_pass(
    bundle: Bundle, n_measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(bundle)
    failed: list[Engine] = []

    def replay(engine: Engine, _: bytes) -> GoldenResult:
        failed.append(engine)
        return replace(PASSED, step_error=2.0 if len(failed) == 1 else 0.0)

    monkeypatch.setattr(table, "replay", replay)
    opened(bundle)
    assert len(n_measured) == 2
    assert [engine._is_closed for engine in failed] == [True, True]


def test_a_service_keeps_its_choice_in_its_own_cache(
    bundle: Bundle, n_measured: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path}/cache:{tmp_path}/other")
    assert opened(bundle) == opened(bundle)
    assert len(n_measured) == 1
    assert len(list((tmp_path / "cache").glob("*.choice"))) == 1
