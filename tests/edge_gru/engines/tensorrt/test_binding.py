"""The binding: which versions serve, what is said where there is none, where its messages go."""

from __future__ import annotations

import importlib
import logging
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fake_gpu import FakeGpu, fake_gpu

from edge_gru.bundle import Bundle
from edge_gru.engines.tensorrt import INSTALL
from edge_gru.errors import EngineUnavailableError


@pytest.fixture
def binding(gpu: FakeGpu) -> ModuleType:
    return importlib.import_module("edge_gru.engines.tensorrt.binding")


@pytest.mark.parametrize("version", ["8.6.2", "10.2.0", "9.9.9", "10.0.1", "", "nonsense"])
def test_older_than_10_3_is_refused(binding: ModuleType, version: str) -> None:
    with pytest.raises(
        EngineUnavailableError, match=r"expected TensorRT 10\.3 or newer, got .*JetPack 6\.2"
    ):
        binding.check_version(version)


@pytest.mark.parametrize("version", ["10.3.0", "10.16.2", "11.0.0.114", "11.12"])
def test_what_is_known_is_taken(binding: ModuleType, version: str) -> None:
    binding.check_version(version)


def test_newer_than_11_is_refused(binding: ModuleType) -> None:
    with pytest.raises(EngineUnavailableError, match=r"expected TensorRT 10\.3 to 11, got 12\.0"):
        binding.check_version("12.0.0")


def test_version_is_checked_before_anything_is_used(tiny: Bundle, cache_folder: Path) -> None:
    with (
        fake_gpu("8.6.2") as gpu,
        pytest.raises(EngineUnavailableError, match=r"10\.3 or newer, got 8\.6\.2"),
    ):
        tiny.open("tensorrt")
    assert gpu.cuda.calls == gpu.trt.calls == []


@pytest.mark.parametrize("version", ["10.16.1", "11.4.0"])
def test_other_versions_run(tiny: Bundle, cache_folder: Path, batch: np.ndarray, version: str):
    with fake_gpu(version) as gpu:
        with tiny.open("tensorrt", streams=2) as engine, tiny.open("reference") as reference:
            np.testing.assert_allclose(engine.step(batch[0]), reference.step(batch[0]), atol=1e-5)
        gpu.assert_clean()


@pytest.mark.parametrize("error", [ImportError("no module"), OSError("libnvinfer.so.10")])
def test_without_a_binding_both_ways_to_get_it_are_named(
    gpu: FakeGpu, tiny: Bundle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "tensorrt":
                raise error

    with monkeypatch.context() as patch:  # undone before the fake GPU goes
        patch.delitem(sys.modules, "tensorrt")
        for name in [name for name in sys.modules if name.startswith("edge_gru.engines.tensorrt.")]:
            patch.delitem(sys.modules, name)
        patch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
        with pytest.raises(EngineUnavailableError) as caught:
            tiny.open("tensorrt")
    assert str(error) in str(caught.value)
    assert INSTALL in str(caught.value)
    assert caught.value.__cause__ is error


def test_install_names_apt_the_environment_and_no_pip_on_a_board() -> None:
    assert "apt install python3-libnvinfer" in INSTALL
    assert "python3 -m venv --system-site-packages" in INSTALL
    assert "never pip" in INSTALL


def test_messages_go_to_logging_and_errors_are_the_reason(
    binding: ModuleType, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "edge_gru.engines.tensorrt.binding")
    log = binding.Log()
    assert log.reason() == "TensorRT gave no reason"
    for name in ("VERBOSE", "INFO", "WARNING", "ERROR", "INTERNAL_ERROR"):
        log.log(gpu.module.ILogger.Severity[name], " ".join(("of", name)))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("DEBUG", "TensorRT: of INFO"),
        ("WARNING", "TensorRT: of WARNING"),
        ("WARNING", "TensorRT: of ERROR"),
        ("WARNING", "TensorRT: of INTERNAL_ERROR"),
    ]
    assert log.reason() == "of ERROR; of INTERNAL_ERROR"
    assert log.messages() == ("of WARNING", "of ERROR", "of INTERNAL_ERROR")
    log.log("a severity of tomorrow", "whatever")
    log.clear()
    assert log.messages() == ()
    assert log.reason() == "TensorRT gave no reason"


def test_only_the_last_messages_are_kept(binding: ModuleType, gpu: FakeGpu) -> None:
    log = binding.Log()
    for k in range(1000):
        log.log(gpu.module.ILogger.ERROR, str(k))
    assert log.messages() == tuple(str(k) for k in range(950, 1000))
