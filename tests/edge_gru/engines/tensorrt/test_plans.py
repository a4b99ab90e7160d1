"""A plan for a bundle: built once, found again, built anew where it does not fit."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from fake_gpu import FakeGpu, fake_gpu

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine
from edge_gru.errors import BundleError, EngineUnavailableError

Open = Callable[..., Engine]


@pytest.fixture
def plans(gpu: FakeGpu) -> ModuleType:
    return importlib.import_module("edge_gru.engines.tensorrt.plans")


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.plan"))


def test_second_start_builds_nothing(gpu: FakeGpu, open_tiny: Open) -> None:
    for _ in range(3):
        open_tiny().close()
    assert gpu.trt.n_builds == 1


def test_every_precision_and_number_of_streams_has_a_plan_of_its_own(
    gpu: FakeGpu, open_tiny: Open, cache_folder: Path
) -> None:
    for n_streams, precision in ((1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "fp16")):
        for _ in range(2):
            open_tiny(n_streams, precision).close()
    assert gpu.trt.n_builds == 4
    assert len(entries(cache_folder)) == 4


def test_one_stream_has_no_mask_and_several_have_one(gpu: FakeGpu, open_tiny: Open) -> None:
    open_tiny(1).close()
    open_tiny(5).close()
    one, five = (facts["profile"] for facts in gpu.trt.built_with)
    assert "active" not in one
    assert one["x"] == [[1, 3]] * 3
    assert five["active"] == [[5, 1]] * 3


def test_settings_reach_the_builder_and_the_key(
    gpu: FakeGpu, open_tiny: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORKSPACE": "9", "LEVEL": "1", "DETAIL": "names"}.items():
        monkeypatch.setenv(f"EDGE_GRU_TENSORRT_{name}", value)
        open_tiny().close()
    assert gpu.trt.n_builds == 3
    last = gpu.trt.built_with[-1]
    assert (last["workspace_bytes"], last["level"]) == (9 << 20, 1)
    assert last["verbosity"] == "LAYER_NAMES_ONLY"


def another_runtime(gpu: FakeGpu) -> None:
    gpu.cuda.versions["cudaRuntimeGetVersion"] = 13000


def another_driver(gpu: FakeGpu) -> None:
    gpu.cuda.versions["cudaDriverGetVersion"] = 13020


def another_gpu(gpu: FakeGpu) -> None:
    gpu.cuda.attributes[75] = 11


def fewer_multiprocessors(gpu: FakeGpu) -> None:
    gpu.cuda.attributes[16] = 4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (another_runtime, "cuda_runtime was 12060, is 13000"),
        (another_driver, "cuda_driver was 12060, is 13020"),
        (another_gpu, "compute_capability was 8.7, is 11.7"),
        (fewer_multiprocessors, "n_multiprocessors was 8, is 4"),
    ],
)
def test_another_machine_builds_anew_and_says_what_differs(
    gpu: FakeGpu,
    open_tiny: Open,
    cache_folder: Path,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[FakeGpu], None],
    field: str,
) -> None:
    caplog.set_level("INFO")
    open_tiny().close()
    change(gpu)
    open_tiny().close()
    assert gpu.trt.n_builds == 2
    assert field in caplog.text
    assert len(entries(cache_folder)) == 1  # the old one is of no use any more


def test_another_tensorrt_builds_anew(tiny: Bundle, cache_folder: Path) -> None:
    for version in ("10.3.0", "10.16.1"):
        with fake_gpu(version) as gpu:
            tiny.open("tensorrt").close()
            assert gpu.trt.n_builds == 1
    (path,) = cache_folder.glob("*.json")
    assert json.loads(path.read_text())["key"]["tensorrt"] == "10.16.1"


def test_another_bundle_builds_its_own(
    gpu: FakeGpu, tiny: Bundle, make_bundle: Callable[..., Bundle], cache_folder: Path
) -> None:
    tiny.open("tensorrt").close()
    make_bundle("LSTM", 1, "fp32").open("tensorrt").close()
    tiny.open("tensorrt").close()
    assert gpu.trt.n_builds == 2


def test_sidecar_tells_where_and_how_the_plan_was_built(
    gpu: FakeGpu, plans: ModuleType, open_tiny: Open, cache_folder: Path, tiny: Bundle, monkeypatch
) -> None:
    board = plans.Board("Orin Nano", "", "R36", "2", 1_020_000_000)
    monkeypatch.setattr(plans.Board, "read", lambda: board)
    prepared = plans.compile_plan(tiny.source, precision="fp32")
    (path,) = cache_folder.glob("*.json")
    told = json.loads(path.read_text())
    assert told["key"]["bundle_sha256"] == tiny.hash
    assert (told["key"]["board"], told["key"]["l4t"]) == ("Orin Nano", "R36")
    assert (told["power_mode"], told["gpu_max_hz"]) == ("2", 1_020_000_000)
    assert told["n_bytes"] == prepared.cached.path.stat().st_size


@pytest.mark.parametrize("field", ["power_mode", "gpu_max_hz"])
def test_plan_of_another_power_mode_serves_and_is_mentioned(
    gpu: FakeGpu,
    plans: ModuleType,
    open_tiny: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    field: str,
) -> None:
    caplog.set_level("INFO")
    facts = {"power_mode": "2", "gpu_max_hz": 1_020_000_000}
    for value in (facts[field], facts[field], {"power_mode": "0", "gpu_max_hz": 5}[field]):
        board = plans.Board("Orin Nano", "", "R36", **{**facts, field: value})
        monkeypatch.setattr(plans.Board, "read", lambda board=board: board)
        assert "tuned in power mode" not in caplog.text
        open_tiny().close()
    assert "tuned in power mode 2 with the GPU at up to 1020000000 Hz" in caplog.text
    assert gpu.trt.n_builds == 1


def test_compile_tells_whether_it_built_and_the_engine_finds_its_plan(
    gpu: FakeGpu, plans: ModuleType, tiny: Bundle, cache_folder: Path
) -> None:
    told = []
    first = plans.compile_plan(
        tiny.source, n_streams=2, precision="fp32", progress=lambda *report: told.append(report)
    )
    again = plans.compile_plan(tiny.source, n_streams=2, precision="fp32")
    assert (first.was_built, again.was_built) == (True, False)
    assert first.cached == again.cached
    assert told[0] == ("Build", 0.0)
    tiny.open("tensorrt", streams=2, precision="fp32").close()
    assert gpu.trt.n_builds == 1
    gpu.assert_clean()


def test_compile_takes_the_precision_of_the_bundle(
    gpu: FakeGpu, plans: ModuleType, tiny: Bundle, cache_folder: Path
) -> None:
    prepared = plans.compile_plan(tiny.source)
    assert prepared.cached.info.key.precision == tiny.manifest.default_precision
    assert prepared.cached.info.key.max_batch == 1


def test_build_is_stopped_by_the_caller(
    gpu: FakeGpu, plans: ModuleType, tiny: Bundle, cache_folder: Path
) -> None:
    cancel = threading.Event()
    gpu.trt.during_build = cancel.set
    with pytest.raises(EngineUnavailableError, match="was stopped"):
        plans.compile_plan(tiny.source, cancel=cancel)
    assert not entries(cache_folder)


def test_failed_build_tells_what_memory_was_free(
    gpu: FakeGpu, open_tiny: Open, cache_folder: Path
) -> None:
    gpu.trt.fail_name = "Builder.build_serialized_network"
    with pytest.raises(EngineUnavailableError, match=r"\(1000 of 7000 MiB of memory were free\)$"):
        open_tiny()
    assert not entries(cache_folder)


def test_plan_that_tensorrt_does_not_take_is_built_anew(
    gpu: FakeGpu, open_tiny: Open, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_tiny().close()
    gpu.trt.fail_at = len(gpu.trt.calls) + 1
    open_tiny().close()
    assert gpu.trt.n_builds == 2
    assert "is built again: TensorRT does not load the plan" in caplog.text
    open_tiny().close()
    assert gpu.trt.n_builds == 2


def test_new_plan_that_does_not_load_is_not_kept(
    gpu: FakeGpu, open_tiny: Open, cache_folder: Path
) -> None:
    gpu.trt.fail_name = "Runtime.deserialize_cuda_engine"
    with pytest.raises(EngineUnavailableError, match="does not load the plan"):
        open_tiny()
    assert not entries(cache_folder)


def test_timings_pass_from_build_to_build(gpu: FakeGpu, open_tiny: Open) -> None:
    open_tiny(1).close()
    open_tiny(2).close()
    assert [facts["timings"] for facts in gpu.trt.built_with] == ["", "10.3.0 after 1 builds"]


def test_missing_graph_is_named(gpu: FakeGpu, tiny: Bundle, cache_folder: Path) -> None:
    part = tiny.manifest.precisions["fp32"].graphs["active"]
    source = msgspec.structs.replace(tiny.manifest)
    parts = {name: data for name, data in tiny.parts.items() if name != part}
    engine_source = type(tiny.source)(source, parts)
    engine = importlib.import_module("edge_gru.engines.tensorrt.engine").TensorRTEngine
    with pytest.raises(BundleError, match=part):
        engine(engine_source, n_streams=2, precision="fp32")


def test_plan_is_looked_for_again_under_the_lock(
    gpu: FakeGpu, plans: ModuleType, open_tiny: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process builds between the first look and the lock."""
    lock = plans.PlanCache.lock

    @contextmanager
    def late(cache: object, cancel: threading.Event | None = None) -> Iterator[None]:
        monkeypatch.setattr(plans.PlanCache, "lock", lock)
        open_tiny().close()
        with lock(cache, cancel):
            yield

    monkeypatch.setattr(plans.PlanCache, "lock", late)
    open_tiny().close()
    assert gpu.trt.n_builds == 1


# Other processes.


@pytest.fixture
def start(tiny: Bundle, tmp_path: Path, cache_folder: Path) -> Iterator[Callable[[str], object]]:
    """Start a process that opens the bundle, and stops at some place."""
    unlisted = msgspec.structs.replace(tiny.manifest, parts={})
    path = Bundle.pack(unlisted, tiny.parts).save(tmp_path / "tiny.egb")
    here = Path(__file__).parent
    running = []

    def run(place: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(here / "building.py"), str(path), place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def continued(process: subprocess.Popen[str]) -> tuple[int, list[float]]:
    out, _ = process.communicate("\n", timeout=120)
    assert process.returncode == 0
    n_builds, y = out.splitlines()[-1].split(" ", 1)
    return int(n_builds), json.loads(y)


@pytest.mark.parametrize(
    ("place", "n_builds"), [("build", 1), ("fsync:0", 1), ("fsync:2", 1), ("fsync:3", 0)]
)
def test_process_that_is_killed_leaves_nothing_that_is_trusted(
    start: Callable[[str], subprocess.Popen[str]],
    gpu: FakeGpu,
    open_tiny: Open,
    cache_folder: Path,
    place: str,
    n_builds: int,
) -> None:
    """During the build, with no plan on the disk, with no sidecar, with a whole entry."""
    process = start(place)
    assert process.stdout.readline() == "stopped\n"
    process.kill()
    process.wait()
    with open_tiny() as engine:
        assert np.isfinite(engine.step(np.zeros(3, np.float32))).all()
    assert gpu.trt.n_builds == n_builds
    assert len(entries(cache_folder)) == len(list(cache_folder.glob("*.json"))) == 1
    assert n_builds == 0 or not list(cache_folder.glob("*.part"))


def test_two_processes_at_once_build_once(
    start: Callable[[str], subprocess.Popen[str]], cache_folder: Path
) -> None:
    first = start("build")
    assert first.stdout.readline() == "stopped\n"
    second = start("none")
    assert second.stdout.readline() == "waiting\n"
    built, y = continued(first)
    found, other = continued(second)
    assert (built, found) == (1, 0)
    assert y == other
    assert len(entries(cache_folder)) == 1
