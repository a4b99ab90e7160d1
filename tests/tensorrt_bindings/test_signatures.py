"""What the engine and its fake say of TensorRT, held against NVIDIA's own bindings and runtimes.

Versions come from ``EDGE_GRU_TENSORRT_VERSIONS``; without it, the oldest and the newest.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_gru.engines.tensorrt import cudart
from edge_gru.errors import EngineUnavailableError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "edge_gru" / "engines" / "tensorrt")]
bindings = importlib.import_module("bindings")
stubs = importlib.import_module("stubs")
fake_gpu = importlib.import_module("fake_gpu")

VERSIONS = os.environ.get("EDGE_GRU_TENSORRT_VERSIONS", "10.3.0 11.4.0.106").split()
RUNTIMES = ("nvidia-cuda-runtime-cu12==12.6.77", "nvidia-cuda-runtime==13.0.96")
SETTABLE = {"builder_optimization_level", "profiling_verbosity", "progress_monitor"}
FOR_CUDA = {"may_replay", "has_run", "uses"}  # what one fake asks the other
READABLE = {"ITensor": {"name", "shape", "dtype"}, "IBuilderConfig": SETTABLE}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(version: str) -> Path:
    try:
        return bindings.fetch(version)
    except bindings.UnavailableError as error:
        pytest.skip(f"bindings of TensorRT {version}: {error}")


@pytest.fixture(scope="module")
def api(folder: Path) -> dict[str, Any]:
    return json.loads(run(folder, HERE / "describe.py"))


def run(folder: Path, script: Path, *paths: Path) -> str:
    path = os.pathsep.join(str(p) for p in (folder, ROOT, *paths))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_bindings_are_of_that_version(api: dict[str, Any], version: str) -> None:
    assert api["version"] == version


def fake_classes(version: str) -> Iterator[tuple[str, type]]:
    with fake_gpu.fake_gpu(version) as gpu:
        for name, thing in vars(gpu.module).items():
            if inspect.isclass(thing):
                yield name, thing


def test_every_enum_of_the_fake_is_real(api: dict[str, Any], version: str) -> None:
    enums = {name: cls for name, cls in fake_classes(version) if hasattr(cls, "__members__")}
    assert len(enums) == 7
    for name, cls in enums.items():
        assert set(cls.__members__) <= set(api["enums"][name]), name
    flag = "NetworkDefinitionCreationFlag"
    assert int(enums[flag].STRONGLY_TYPED) == api["enums"][flag]["STRONGLY_TYPED"]
    severities = api["classes"]["ILogger"]["members"]["Severity"]["enum"]
    logger = dict(fake_classes(version))["ILogger"]
    assert {name: int(value) for name, value in logger.Severity.__members__.items()} == severities


def test_every_call_of_the_fake_is_real(api: dict[str, Any], version: str) -> None:
    n_checked = 0
    for name, cls in fake_classes(version):
        if hasattr(cls, "__members__"):
            continue
        real = api["classes"][name]["members"]
        for member, raw in vars(cls).items():
            if isinstance(raw, property) and member not in FOR_CUDA:
                assert "is_settable" in real[member], f"{name}.{member}"
            elif inspect.isfunction(raw) and is_public(cls, member, real):
                assert fits(raw, real[member]["signatures"]), f"{name}.{member}"
            else:
                continue
            n_checked += 1
        for member in READABLE.get(name, ()):
            assert real[member]["is_settable"] or member not in SETTABLE
    assert n_checked >= 35


def is_public(cls: type, member: str, real: dict[str, Any]) -> bool:
    if member == "__init__":  # of what only TensorRT makes, the fake's own are no API
        return bool(real.get("__init__", {}).get("signatures"))
    return not member.startswith("_") and member not in FOR_CUDA


def fits(function: Any, signatures: list[dict[str, Any]]) -> bool:
    """Whether one of the signatures begins with these parameters, and needs no others."""
    mine = list(inspect.signature(function).parameters.values())[1:]
    for signature in signatures:
        real = signature["parameters"][1:]
        names = [parameter["name"] for parameter in real]
        optional = [parameter["is_optional"] for parameter in real]
        if names[: len(mine)] == [p.name for p in mine] and all(optional[len(mine) :]):
            return all(
                o == (p.default is not p.empty) for o, p in zip(optional, mine, strict=False)
            )
    return False


def test_code_of_the_engine_runs_on_the_real_bindings(folder: Path, version: str) -> None:
    assert run(folder, HERE / "real_use.py").strip() == f"real bindings {version}"


WRONG = """\
from edge_gru.engines.tensorrt.binding import LOG, trt

builder = trt.Builder(LOG)
builder.create_network(flag=1)
trt.BuilderFlag.OF_NO_VERSION
config = builder.create_builder_config()
config.clear_flag(trt.BuilderFlag.TF32)
engine = trt.Runtime(LOG).deserialize_cuda_engine(b"")
assert engine is not None
engine.num_bindings
engine.get_tensor_name("x")
"""
WRONG_LINES = {4, 5, 7, 10, 11}


def test_types_of_the_engine_hold(api: dict[str, Any], version: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    types = bindings.CACHE / version / "types"
    (types / "tensorrt").mkdir(parents=True, exist_ok=True)
    (types / "tensorrt" / "__init__.pyi").write_text(stubs.stub(api))
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    settings = tmp_path / "mypy.ini"
    settings.write_text("[mypy]\nstrict = True\nwarn_return_any = False\nwarn_unreachable = True\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", f"--config-file={settings}", "--no-error-summary",
         "--follow-imports=silent", "--python-version=3.10", "--ignore-missing-imports",
         f"--cache-dir={bindings.CACHE / 'mypy'}", "edge_gru/engines/tensorrt", str(wrong)],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(types)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    of_engine = [line for line in lines if not line.startswith(str(wrong))]
    assert of_engine == []
    found = {int(line.removeprefix(f"{wrong}:").split(":")[0]) for line in lines}
    assert found == WRONG_LINES, done.stdout  # the types are exact enough to find these


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Any:
    try:
        return ctypes.CDLL(str(bindings.fetch_runtime(request.param)))
    except bindings.UnavailableError as error:
        pytest.skip(f"{request.param}: {error}")


def test_real_runtime_has_every_function(runtime: Any) -> None:
    for name in cudart.PROTOTYPES:
        assert hasattr(runtime, name)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver here")
def test_real_runtime_without_a_driver_is_a_sentence(runtime: Any) -> None:
    with pytest.raises(
        EngineUnavailableError,
        match=r"cudaGetDeviceCount: cudaErrorInsufficientDriver \(35\), .*run a CPU engine",
    ):
        cudart.Cuda(runtime).start(4)
