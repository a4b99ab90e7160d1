from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from firmware_bridge.sample import Schema
from quantization import pack, step_graph
from quantization.calibrate import Calibration
from quantization.gate import GateSettings
from quantization.quantized import Quantized
from quantization.recipe import RECIPES
from quantization.split import split
from quantization.step_model import StepModel
from quantization.work import Work

N_IN, N_HIDDEN, N_OUT = 3, 5, 2


class GruFile:
    """Writes small ONNX files with one GRU, in the shapes that exporters leave behind."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shapes = {
            "w": (1, 15, N_IN),
            "r": (1, 15, N_HIDDEN),
            "b": (1, 30),
            "head": (N_HIDDEN, N_OUT),
        }
        self.weights = {k: rng.normal(0, 0.5, s).astype(np.float32) for k, s in shapes.items()}
        self.attributes: dict[str, object] = {"hidden_size": N_HIDDEN, "linear_before_reset": 1}
        self.dims: list[int | str] = ["time", "batch", N_IN]
        self.op = "GRU"
        self.batch_first = False
        self.squeeze_axis = 1
        self.start: np.ndarray | str | None = None
        self.tail: list[onnx.NodeProto] = []
        self.output = "y"
        self.rank = 3

    def add_tail(self, op: str, **attributes: object) -> None:
        self.tail.append(helper.make_node(op, [self.output], [f"{op}_out"], name=op, **attributes))
        self.output = f"{op}_out"

    def model(self) -> onnx.ModelProto:
        constants = [numpy_helper.from_array(v, k) for k, v in self.weights.items()]
        constants.append(numpy_helper.from_array(np.array([self.squeeze_axis]), "axis"))
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.dims)]
        nodes, x, start = [], "x", ""
        if self.batch_first:
            nodes.append(helper.make_node("Transpose", ["x"], ["x_t"], perm=[1, 0, 2]))
            x = "x_t"
        if isinstance(self.start, str):
            start = self.start
            dims = [1, "batch", N_HIDDEN]
            inputs.append(helper.make_tensor_value_info(start, TensorProto.FLOAT, dims))
        elif self.start is not None:
            start = "start"
            constants.append(numpy_helper.from_array(self.start, start))
        gru_inputs = [x, "w", "r", "b", "", start]
        nodes.append(helper.make_node(self.op, gru_inputs, ["all"], name="rnn", **self.attributes))
        nodes.append(helper.make_node("Squeeze", ["all", "axis"], ["h"]))
        nodes.append(helper.make_node("MatMul", ["h", "head"], ["y"]))
        if self.batch_first:
            nodes.append(helper.make_node("Transpose", ["y"], ["y_bt"], perm=[1, 0, 2]))
            self.output = "y_bt" if self.output == "y" else self.output
        output = helper.make_tensor_value_info(self.output, TensorProto.FLOAT, [None] * self.rank)
        graph = helper.make_graph([*nodes, *self.tail], "gru", inputs, [output], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        return model

    def save(self, path: Path) -> Path:
        onnx.save(self.model(), path)
        return path


@pytest.fixture
def gru_file() -> GruFile:
    return GruFile()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[GruFile], Path]:
    return lambda file: file.save(tmp_path / "model.onnx")


@pytest.fixture
def sequences() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=(n, N_IN)).astype(np.float32) for n in (40, 25)]


_RECIPE_OF = {"int8": "rec-nearest"}


@pytest.fixture(scope="session")
def quantized_by() -> Callable[[StepModel, str], Quantized]:
    """Apply a preset to a step, on samples of its own."""

    def apply(model: StepModel, recipe: str) -> Quantized:
        samples = np.random.default_rng(9).normal(size=(200, model.n_in)).astype(np.float32)
        data = Calibration((samples,))
        outputs = tuple(f"y{k}" for k in range(model.n_out))
        schema = Schema.unnamed(model.n_in)
        description = pack.Description("net", schema, RECIPES[recipe], outputs)
        work = Work(model, description, data, split(data), GateSettings())
        return work.narrow(RECIPES[recipe]).quantized

    return apply


@pytest.fixture(scope="session")
def build(quantized_by: Callable[[StepModel, str], Quantized]) -> Callable[..., onnx.ModelProto]:
    """Write a step graph of a recipe, or of a precision in its simplest."""

    def written(model: StepModel, recipe: str, **form: bool) -> onnx.ModelProto:
        quantized = quantized_by(model, _RECIPE_OF.get(recipe, recipe))
        return step_graph.build(model, quantized, **form)

    return written
