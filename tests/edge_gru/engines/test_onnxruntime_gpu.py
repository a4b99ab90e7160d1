"""The GPU providers of onnxruntime: the whole graph or nothing, and plans that can be trusted."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edge_gru.bundle import Bundle
from edge_gru.engines import choices, select
from edge_gru.engines.measure import fastest, measure
from edge_gru.engines.select import open_proven
from edge_gru.engines.table import ENGINES, Build, open_named, unavailable
from edge_gru.engines.upgrade import Start, start
from edge_gru.errors import EngineUnavailableError, GoldenMismatchError

onnxruntime = pytest.importorskip("onnxruntime", reason="engine onnxruntime is not installed")

ENGINE_CUDA, ENGINE_TENSORRT = "onnxruntime-cuda", "onnxruntime-tensorrt"
KINDS = ("min", "opt", "max")
BOTH = (ENGINE_CUDA, ENGINE_TENSORRT)
SCRIPT = Path(__file__).parent / "tensorrt" / "provider_build.py"


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of plans, none in it."""
    folder = tmp_path / "plans"
    monkeypatch.setenv("EDGE_GRU_TENSORRT_CACHE", str(folder))
    return folder


@pytest.fixture
def here(providers: Any, plans: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both providers, whose plans are built in this process."""
    providers.build_in_this_process(monkeypatch)
    return providers


def folders(plans: Path) -> list[Path]:
    return sorted(plans.glob("onnxruntime-*"))


def opened(bundle: Bundle, precision: str | None = "int8", streams: int = 1) -> None:
    bundle.open(ENGINE_TENSORRT, streams=streams, precision=precision).close()


def test_double_takes_what_a_real_session_takes(providers: Any) -> None:
    double = onnxruntime.InferenceSession
    (real,) = double.__bases__
    for name in ("__init__", "run", "get_providers"):
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (double, real))
        assert list(ours.parameters) == list(theirs.parameters)
        assert [p.default for p in ours.parameters.values()] == [
            p.default for p in theirs.parameters.values()
        ]


@pytest.mark.parametrize("provider", ["CUDA", "Tensorrt"])
def test_onnxruntime_without_the_provider_says_so(bundle: Bundle, provider: str) -> None:
    name = {"CUDA": ENGINE_CUDA, "Tensorrt": ENGINE_TENSORRT}[provider]
    reason = rf"^onnxruntime [\d.]+ has no {provider}ExecutionProvider here; install a build of"
    with pytest.raises(EngineUnavailableError, match=reason):
        bundle.open(name)
    (row,) = measure(bundle.source, engines=[name])
    assert not row.usable
    assert row.reason == unavailable(name)
    with pytest.raises(EngineUnavailableError, match=reason):
        start(name, bundle.source).engine.close()


def test_provider_that_appears_is_found(bundle: Bundle, request: pytest.FixtureRequest) -> None:
    assert unavailable(ENGINE_CUDA) is not None
    request.getfixturevalue("here")
    assert unavailable(ENGINE_CUDA) is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_cuda_takes_the_explicit_step_and_computes_fp32_in_fp32(
    here: Any, bundle: Bundle, precision: str
) -> None:
    with bundle.open(ENGINE_CUDA, precision=precision) as engine:
        assert (engine.name, engine.precision) == (ENGINE_CUDA, precision)
    step = bundle.parts[bundle.manifest.precisions[precision].graphs["step"]]
    assert here.opened == [("CUDAExecutionProvider", {"use_tf32": "0"}, step)]


@pytest.mark.parametrize("name", BOTH)
def test_session_that_runs_on_the_cpu_is_refused(here: Any, bundle: Bundle, name: str) -> None:
    here.runs_on_cpu = True
    with pytest.raises(
        EngineUnavailableError, match=r"to run in its \w+, got CPUExecutionProvider; install the"
    ):
        bundle.open(name, precision="int8")


def test_node_that_would_be_left_to_the_cpu_is_refused(bundle: Bundle) -> None:
    """By onnxruntime itself: here has a provider that takes no node of a step."""
    module = importlib.import_module("edge_gru.engines.onnxruntime")
    place = module.Place("AzureExecutionProvider", "step")
    if place.provider not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no AzureExecutionProvider")
    with pytest.raises(EngineUnavailableError, match=r"in its Azure.*fallback.*; use another eng"):
        module.BoundStep(bundle.source, "int8", place)


@pytest.mark.parametrize("name", BOTH)
def test_what_a_provider_raises_is_one_sentence(
    here: Any, bundle: Bundle, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    bundle.open(name, precision="fp32").close()
    here.error = RuntimeError("CUDA failure 35: driver too old\nat line 7")
    with pytest.raises(EngineUnavailableError) as caught:
        bundle.open(name, precision="fp32")
    assert "driver too old" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("use another engine")
    assert capfd.readouterr().out == ""  # where onnxruntime tells that it falls back


@pytest.mark.parametrize("name", BOTH)
def test_provider_that_answers_otherwise_does_not_serve(
    here: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = bundle.open(name, precision="fp32")
    step = type(engine)._step

    def wrong(self: Any, x: np.ndarray, out: np.ndarray) -> None:
        step(self, x, out)
        out += 1

    monkeypatch.setattr(type(engine), "_step", wrong)
    with pytest.raises(GoldenMismatchError, match=f"{name} .* does not reproduce the golden"):
        open_proven(name, bundle.source, precision="fp32")


def test_both_are_measured_in_all_that_may_be_the_fastest(here: Any, bundle: Bundle) -> None:
    rows = measure(bundle.source, engines=BOTH)
    own = bundle.manifest.default_precision
    expected = [(name, p) for name in BOTH for p in dict.fromkeys((own, "fp16", "fp32"))]
    assert [(row.engine, row.precision) for row in rows] == expected
    assert all(row.usable and row.p50_us > 0 for row in rows)
    assert fastest(rows).engine in BOTH


def test_auto_measures_what_needs_no_build(here: Any, bundle: Bundle, monkeypatch) -> None:
    assert ENGINE_CUDA in select.ready_engines()
    assert ENGINE_TENSORRT not in select.ready_engines()
    monkeypatch.setattr(select, "fastest", lambda rows, _: rows[-1])
    with bundle.open("auto") as engine:
        assert engine.name == ENGINE_CUDA
    assert here.n_builds == 0


def test_tensorrt_is_looked_for_while_another_serves(here: Any, bundle: Bundle) -> None:
    begun: Start = start(ENGINE_TENSORRT, bundle.source)
    with begun.engine:
        assert not ENGINES[begun.engine.name].needs_build
        better = begun.upgrade.find(Build())
    with better.engine as engine:
        assert engine.name == ENGINE_TENSORRT
        assert better.golden.passed


def test_another_build_of_onnxruntime_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = choices._surroundings()
    version = choices.importlib.metadata.version

    def with_gpu(name: str) -> str:
        return "1.23.0" if name == "onnxruntime-gpu" else version(name)

    monkeypatch.setattr(choices.importlib.metadata, "version", with_gpu)
    assert choices._surroundings() != before


# Plans.


def test_tensorrt_is_told_shapes_limits_and_a_folder_of_ours(
    here: Any, bundle: Bundle, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_GRU_TENSORRT_WORKSPACE", "9")
    monkeypatch.setenv("EDGE_GRU_TENSORRT_LEVEL", "1")
    opened(bundle, streams=5)
    (folder,) = folders(plans)
    name, options, graph = here.opened[-1]
    assert name == "TensorrtExecutionProvider"
    assert graph == bundle.parts[bundle.manifest.precisions["int8"].graphs["step"]]
    sizes = {"x": bundle.manifest.n_in, **bundle.manifest.state_sizes}
    for kind, n in zip(KINDS, (1, 5, 5), strict=True):
        shapes = ",".join(f"{tensor}:{n}x{k}" for tensor, k in sizes.items())
        assert options.pop(f"trt_profile_{kind}_shapes") == shapes
    assert options == {
        "trt_max_workspace_size": str(9 << 20),
        "trt_builder_optimization_level": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
    }
    assert folder.stat().st_mode & 0o777 == plans.stat().st_mode & 0o777 == 0o700


def test_plan_of_one_stream_takes_the_two_rows_that_an_engine_is_tried_with(
    here: Any, bundle: Bundle, plans: Path
) -> None:
    opened(bundle)
    options = here.opened[-1][1]
    rows = [options[f"trt_profile_{kind}_shapes"].partition("x:")[2][0] for kind in KINDS]
    assert rows == ["1", "1", "2"]


def test_plan_is_built_once_for_each_graph_and_number_of_streams(
    here: Any, bundle: Bundle, other_bundle: Bundle, plans: Path
) -> None:
    for _ in range(2):
        opened(bundle)
        opened(bundle, "fp16")
        opened(bundle, streams=4)
        opened(other_bundle)
    assert here.n_builds == len(folders(plans)) == 4


def another_runtime(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.cuda.versions["cudaRuntimeGetVersion"] = 13000


def another_gpu(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.cuda.attributes[16] = 4


def another_release(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("edge_gru.engines.onnxruntime_tensorrt")
    monkeypatch.setattr(module.Board, "read", lambda: module.Board("Orin", "", "R39", "", None))


def another_onnxruntime(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("edge_gru.engines.onnxruntime_tensorrt")
    monkeypatch.setattr(module, "_VERSION", "1.99")


def another_limit(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_GRU_TENSORRT_WORKSPACE", "9")


@pytest.mark.parametrize(
    "change", [another_runtime, another_gpu, another_release, another_onnxruntime, another_limit]
)
def test_another_machine_builds_its_own(
    here: Any,
    gpu: Any,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Any, pytest.MonkeyPatch], None],
) -> None:
    opened(bundle)
    change(gpu, monkeypatch)
    opened(bundle)
    assert here.n_builds == 2


def the_plan(folder: Path) -> Path:
    (path,) = folder.glob("*.engine")
    return path


def altered(folder: Path) -> None:
    the_plan(folder).write_bytes(b"code of somebody else")


def cut_short(folder: Path) -> None:
    the_plan(folder).write_bytes(the_plan(folder).read_bytes()[:-1])


def gone(folder: Path) -> None:
    the_plan(folder).unlink()


def one_more(folder: Path) -> None:
    (folder / "TensorrtExecutionProvider_other.engine").write_bytes(b"code of somebody else")


def linked(folder: Path) -> None:
    path = the_plan(folder)
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def unsealed(folder: Path) -> None:
    (folder / "hashes.json").unlink()


def sealed_with_nonsense(folder: Path) -> None:
    (folder / "hashes.json").write_bytes(b"\xff{")


def sealed_with_too_much(folder: Path) -> None:
    path = folder / "hashes.json"
    path.write_bytes(path.read_bytes() + b" " * (1 << 16))


@pytest.mark.parametrize(
    "change",
    [altered, cut_short, gone, one_more, linked, unsealed, sealed_with_nonsense,
     sealed_with_too_much],
)  # fmt: skip
def test_plan_that_is_not_what_was_built_is_never_trusted(
    here: Any, bundle: Bundle, plans: Path, change: Callable[[Path], None]
) -> None:
    opened(bundle)
    (folder,) = folders(plans)
    change(folder)
    opened(bundle)
    assert here.n_builds == 2
    assert {path.suffix for path in folder.iterdir()} == {".engine", ".profile", ".json"}
    opened(bundle)
    assert here.n_builds == 2


def test_altered_plan_is_mentioned_and_a_missing_one_is_not(
    here: Any, bundle: Bundle, plans: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(bundle)
    assert caplog.text == ""
    altered(*folders(plans))
    opened(bundle)
    assert "is not what was built, and is built again" in caplog.text


def test_plan_that_tensorrt_does_not_take_any_more_is_built_again(
    here: Any, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    opened(bundle)
    here.libraries = "TensorRT 10.10"
    opened(bundle)
    assert here.n_builds == 2
    assert "built again: onnxruntime cannot run the int8 graph" in caplog.text
    opened(bundle)
    assert here.n_builds == 2


def test_new_plan_that_is_not_taken_is_an_error_at_once(here: Any, bundle: Bundle) -> None:
    build = here.take

    def spoilt(*arguments: Any) -> Any:
        if here.n_builds:
            raise RuntimeError("could not deserialize")
        return build(*arguments)

    here.take = spoilt
    with pytest.raises(EngineUnavailableError, match="could not deserialize"):
        opened(bundle)
    assert here.n_builds == 1


def test_provider_that_keeps_no_plan_is_refused(here: Any, bundle: Bundle, plans: Path) -> None:
    here.keeps_no_plan = True
    with pytest.raises(EngineUnavailableError, match=r"expected a plan of onnx.* in .*, got none"):
        opened(bundle)


def test_folder_that_others_can_write_to_is_refused(here: Any, bundle: Bundle, plans: Path) -> None:
    opened(bundle)
    plans.chmod(0o770)
    with pytest.raises(EngineUnavailableError, match="only its owner can write"):
        opened(bundle)


def test_the_oldest_of_many_plans_go(here: Any, bundle: Bundle, plans: Path) -> None:
    module = importlib.import_module("edge_gru.engines.onnxruntime_plans")
    opened(bundle)
    (first,) = folders(plans)
    os.utime(first, (1, 1))  # folders of one tick of the clock are equally old
    for n in range(module._MAX_FOLDERS - 1):
        (plans / f"onnxruntime-{n}").mkdir()
    opened(bundle, "fp16")
    assert not first.exists()
    assert len(folders(plans)) == module._MAX_FOLDERS


def test_plan_is_looked_for_again_under_the_lock(
    here: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("edge_gru.engines.onnxruntime_plans")
    lock = module.PlanCache.lock

    def late(cache: Any, cancel: Any) -> Any:
        monkeypatch.setattr(module.PlanCache, "lock", lock)
        opened(bundle)
        return lock(cache, cancel)

    monkeypatch.setattr(module.PlanCache, "lock", late)
    opened(bundle)
    assert here.n_builds == 1


def test_plan_that_is_there_serves_while_another_process_builds(
    here: Any, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("edge_gru.engines.onnxruntime_plans")
    opened(bundle)

    def lock(*_: Any) -> None:
        raise TimeoutError("it would wait for the other")

    monkeypatch.setattr(module.PlanCache, "lock", lock)
    opened(bundle)
    assert here.n_builds == 1


# In a process of its own.


@pytest.fixture
def build_as(
    providers: Any, plans: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], ModuleType]:
    module = importlib.import_module("edge_gru.engines.onnxruntime_build")

    def choose(how: str) -> ModuleType:
        monkeypatch.setattr(module, "COMMAND", [sys.executable, str(SCRIPT), how])
        return module

    return choose


def test_plan_is_built_by_another_process(
    providers: Any, bundle: Bundle, plans: Path, build_as: Callable[[str], ModuleType]
) -> None:
    build_as("as it is")
    told: list[tuple[str, float]] = []
    build = Build(lambda *report: told.append(report))
    with open_named(ENGINE_TENSORRT, bundle.source, precision="int8", build=build) as engine:
        assert np.isfinite(engine.step(np.zeros(engine.n_in, np.float32))).all()
    assert providers.n_builds == 0
    assert len(providers.opened) == 1  # found what the other had built
    assert told == [("onnxruntime's TensorRT plan", 0.0), ("onnxruntime's TensorRT plan", 1.0)]


def test_folder_may_be_given_from_here(
    providers: Any,
    bundle: Bundle,
    tmp_path: Path,
    build_as: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build_as("as it is")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGE_GRU_TENSORRT_CACHE", "from-here")
    opened(bundle)
    assert len(folders(tmp_path / "from-here")) == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("fails", r"\(no kernel for this GPU\); use another engine"),
        ("crashes", r"\(the build ended with code 7\); use another engine"),
    ],
)
def test_build_that_fails_tells_why(
    bundle: Bundle, plans: Path, build_as: Callable[[str], ModuleType], how: str, reason: str
) -> None:
    build_as(how)
    with pytest.raises(EngineUnavailableError, match=reason):
        opened(bundle)
    (folder,) = folders(plans)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("is_waiting", [False, True])
def test_build_is_stopped(
    bundle: Bundle,
    build_as: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_waiting: bool,
) -> None:
    module, cancel = build_as("hangs"), threading.Event()
    begun = []
    popen = module.subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> Any:
        begun.append(popen(*arguments, **options))
        cancel.set()
        return begun[0]

    if is_waiting:
        monkeypatch.setattr(module.subprocess, "Popen", noted)
    else:
        cancel.set()
    begin_s = time.monotonic()
    with pytest.raises(EngineUnavailableError, match="was stopped"):
        open_named(ENGINE_TENSORRT, bundle.source, precision="int8", build=Build(cancel=cancel))
    assert time.monotonic() - begin_s < 60
    assert all(process.returncode is not None for process in begun)


def test_real_build_without_the_provider_tells_so(bundle: Bundle, tmp_path: Path) -> None:
    """The command as users run it, with the onnxruntime that is here."""
    module = importlib.import_module("edge_gru.engines.onnxruntime_build")
    place = module.Place("TensorrtExecutionProvider", "step")
    with pytest.raises(EngineUnavailableError, match=r"builds no plan in its Tensorrt.* \(.*EP"):
        module.build_apart(bundle.parts["int8.onnx"], place, threading.Event())
