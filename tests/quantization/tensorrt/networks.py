"""Small trained-looking networks of every kind of cell, as ONNX files with the operators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_gru.bundle import Bundle
from quantization.pipeline import quantize

N_IN, N_OUT = 12, 4


class Kind(NamedTuple):
    """An ONNX operator with its number of gates and what it is told."""

    operator: str
    n_gates: int
    attributes: Mapping[str, Any]


KINDS = MappingProxyType(
    {
        "GRU": Kind("GRU", 3, {"linear_before_reset": 1}),
        "GRU, reset first": Kind("GRU", 3, {"linear_before_reset": 0}),
        "LSTM": Kind("LSTM", 4, {}),
        "RNN": Kind("RNN", 1, {}),
    }
)


def write_network(path: Path, kind: str, *, n_layers: int, n_hidden: int) -> Path:
    """Write a network that contracts, so that its streams stay together: ``(T, B, 12)`` in."""
    operator, n_gates, attributes = KINDS[kind]
    rng = np.random.default_rng(n_layers * n_hidden)
    nodes, constants, x, n_in = [], [numpy_helper.from_array(np.array([1]), "axis")], "x", N_IN

    def constant(name: str, *shape: int) -> str:
        values = rng.normal(0, 0.5 / np.sqrt(shape[-1]), shape).astype(np.float32)
        constants.append(numpy_helper.from_array(values, name))
        return name

    for k in range(n_layers):
        rows = n_gates * n_hidden
        tensors = [
            constant(f"w{k}", 1, rows, n_in),
            constant(f"r{k}", 1, rows, n_hidden),
            constant(f"b{k}", 1, 2 * rows),
        ]
        settings = {**attributes, "hidden_size": n_hidden}
        nodes.append(helper.make_node(operator, [x, *tensors], [f"all{k}"], **settings))
        nodes.append(helper.make_node("Squeeze", [f"all{k}", "axis"], [f"h{k}"]))
        x, n_in = f"h{k}", n_hidden
    nodes.append(helper.make_node("MatMul", [x, constant("head", n_hidden, N_OUT)], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", N_IN])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 3)]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


def quantized(path: Path, recipe: str, *, n_steps: int = 300) -> Bundle:
    """Quantize a network on noise, whatever the gate says of it."""
    rng = np.random.default_rng(5)
    sequences = [rng.normal(size=(n_steps, N_IN)).astype(np.float32) for _ in range(4)]
    return quantize(path, sequences, recipe=recipe, accept_failure=True)
