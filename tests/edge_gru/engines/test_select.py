from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest

from edge_gru.bundle import Bundle
from edge_gru.engines import select, table
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.measure import Measurement, fastest, measure
from edge_gru.engines.select import open_engine, open_proven
from edge_gru.engines.table import ENGINES, EngineRow
from edge_gru.errors import BundleError, EngineUnavailableError, GoldenMismatchError

PASSED = GoldenResult("any", "int8", 1, 0.0, 1.0, 100.0, 30.0)


@pytest.fixture
def with_absent_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    absent = EngineRow("edge_gru.engines.absent", "Absent", "pip install absent", serves=True)
    monkeypatch.setitem(table.ENGINES, "absent", absent)
    return


def note_in(closed: list[Engine]) -> Callable[[Engine], None]:
    def close(engine: Engine) -> None:
        closed.append(engine)

    return close


def impossible(bundle: Bundle) -> EngineSource:
    """Golden vectors that no engine reaches."""
    precisions = {
        name: msgspec.structs.replace(info, stream_sqnr_db=1e9, step_tolerance=-1.0)
        for name, info in bundle.manifest.precisions.items()
    }
    return EngineSource(
        msgspec.structs.replace(bundle.manifest, precisions=precisions), bundle.parts
    )


def test_unknown_engine_lists_what_there_is(bundle: Bundle) -> None:
    with pytest.raises(
        EngineUnavailableError,
        match=r"auto, reference, native, onnxruntime, tensorrt, got 'tensorflow'",
    ):
        bundle.open("tensorflow")


@pytest.mark.usefixtures("with_absent_engine")
def test_engine_that_is_not_installed_says_how_to_install_it(bundle: Bundle) -> None:
    with pytest.raises(
        EngineUnavailableError, match=r"'absent' is not installed here .*; pip install absent"
    ):
        bundle.open("absent")


@pytest.mark.usefixtures("with_absent_engine")
def test_measure_has_rows_for_every_engine_in_order(bundle: Bundle) -> None:
    rows = measure(bundle.source)
    assert list(dict.fromkeys(row.engine for row in rows)) == list(ENGINES)
    assert not rows[-1].usable
    assert "not installed" in rows[-1].reason
    assert rows[-1].p50_us is None
    reference = rows[0]
    assert reference.usable
    assert reference.precision == bundle.manifest.default_precision
    assert reference.p99_us >= reference.p50_us > 0


def test_auto_opens_what_was_measured(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., Engine]
) -> None:
    opened("onnxruntime").close()
    row = Measurement("onnxruntime", "fp16", 1.0, 1.0, PASSED)
    monkeypatch.setattr(select, "measure", lambda *_, **__: [row])
    with bundle.open("auto") as engine:
        assert (engine.name, engine.precision) == ("onnxruntime", "fp16")


def test_auto_serves_the_streams_and_precision_asked_for(bundle: Bundle) -> None:
    with bundle.open("auto", streams=3, precision="fp32") as engine:
        assert (engine.n_streams, engine.precision) == (3, "fp32")


@pytest.mark.parametrize("name", ["auto", *ENGINES])
def test_unknown_precision_is_one_sentence(bundle: Bundle, name: str) -> None:
    with pytest.raises(EngineUnavailableError, match=r"^expected one of the precisions .*'int2'$"):
        bundle.open(name, precision="int2")


def test_definition_serves_only_where_nothing_else_does() -> None:
    slow = Measurement("onnxruntime", "int8", 50.0, 60.0, PASSED)
    quick = Measurement("reference", "int8", 5.0, 6.0, PASSED)
    broken = replace(slow, golden=replace(PASSED, step_error=2.0))
    assert fastest([quick, slow]) is slow
    assert fastest([quick, broken]) is quick


def test_nothing_usable_says_why_for_each(bundle: Bundle) -> None:
    with pytest.raises(
        EngineUnavailableError, match=r"no engine .* here: reference: .*; onnxruntime: "
    ):
        open_engine("auto", impossible(bundle))


@pytest.mark.parametrize("name", ENGINES)
def test_engine_that_fails_its_golden_vectors_never_serves(
    bundle: Bundle, opened: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened(name).close()
    closed = []
    monkeypatch.setattr(Engine, "close", note_in(closed))
    with pytest.raises(GoldenMismatchError, match=r"does not reproduce .*; use another engine"):
        open_proven(name, impossible(bundle))
    assert len(closed) == 1


def test_engine_is_closed_when_the_golden_vectors_are_broken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(Engine, "close", note_in(closed))
    source = EngineSource(bundle.manifest, {**bundle.parts, "golden.safetensors": b""})
    with pytest.raises(BundleError):
        open_proven("reference", source)
    assert len(closed) == 1
    with pytest.raises(BundleError):
        measure(source)


def test_proven_engine_begins_fresh(bundle: Bundle) -> None:
    engine, result = open_proven("reference", bundle.source, n_streams=2)
    assert result.passed
    for stream in range(2):
        state = engine.save_state(stream)
        assert state.n_steps == 0
        assert not any(value.any() for value in state.values.values())


def test_another_precision_must_be_clearly_faster_than_the_bundles_own() -> None:
    own = Measurement("onnxruntime", "int8", 10.0, 11.0, PASSED)
    near = Measurement("native", "fp32", 9.5, 11.0, PASSED)
    clear = replace(near, p50_us=8.0)
    assert fastest([near, own], "int8") is own
    assert fastest([clear, own], "int8") is clear
    assert fastest([near, own]) is near


def test_measured_engines_are_closed(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Engine] = []
    monkeypatch.setattr(Engine, "close", note_in(closed))
    measure(bundle.source, engines=["reference"])
    assert len(closed) == 1
    monkeypatch.setattr("edge_gru.engines.measure.times_us", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure(bundle.source, engines=["reference"])
    assert len(closed) == 2


def test_many_streams_are_timed_together(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = set()
    step_batch = Engine.step_batch
    monkeypatch.setattr(
        Engine, "step_batch", lambda e, x: (shapes.add(x.shape), step_batch(e, x))[1]
    )
    (row,) = measure(bundle.source, engines=["reference"], precisions=["fp32"], n_streams=3)
    assert row.p50_us > 0
    assert shapes == {(3, bundle.manifest.n_in)}
