from __future__ import annotations

import builtins
import subprocess
import sys

import pytest

import edge_gru
from edge_gru import errors

PUBLIC = {
    "Bundle", "BundleError", "ConfigError", "DataError", "EdgeGruError", "Engine",
    "EngineLostError", "EngineUnavailableError", "GapPolicy", "GateError", "GoldenMismatchError",
    "InputShapeError", "ModelError", "Prediction", "Predictor", "State", "StateMismatchError",
    "StoreError",
    "__version__", "load",
}  # fmt: skip
LEAVES = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.EdgeGruError)
    if error is not errors.EdgeGruError
]


def test_public_names_are_pinned() -> None:
    assert set(edge_gru.__all__) == PUBLIC
    assert all(hasattr(edge_gru, name) for name in PUBLIC)


@pytest.mark.parametrize("error", LEAVES)
def test_every_error_is_also_a_builtin_and_public(error: type[Exception]) -> None:
    assert any(base.__module__ == builtins.__name__ for base in error.__bases__)
    assert getattr(edge_gru, error.__name__) is error


def test_import_loads_no_engine_and_no_build_host_library() -> None:
    script = (
        "import sys, edge_gru; heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
