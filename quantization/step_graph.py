"""The single-step ONNX graphs: batch on axis 0, explicit state, one builder for every precision.

Inputs ``x`` (batch, n_in) and ``state_NN_h`` (batch, H); outputs ``y`` and ``state_NN_h_out``. The
state and the blend are fp32 and never pass a Q/DQ. Forms:

``fp32``, ``fp16``, ``int8``  what TensorRT reads; int8 is Q/DQ on the recurrent product alone
``cpu``     what onnxruntime runs fast: its GRU operator, or MatMulInteger in place of the Q/DQ pair
``active``  with an input ``active`` (batch, 1) bool: where false, the state is handed on unchanged
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_gru.engines.reference import H_SCALE, H_STEPS
from edge_gru.manifest import StepNode
from quantization.step_model import Array, StepModel

IR_VERSION = 8


class _Builder:
    """Collects nodes and constants; every value has a name."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    @property
    def constants(self) -> list[onnx.TensorProto]:
        return list(self._constants.values())

    def constant(self, name: str, value: Array) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str) -> Array:
        return self._weights[name]

    def operand(self, name: str) -> str:
        """Name a value; one of the weights becomes a constant of the graph."""
        return self.constant(name, self._weights[name]) if name in self._weights else name

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.add_many(op, inputs, [output], **attributes)
        return output

    def add_many(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        name = f"{outputs[-1]}_{op}"
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))


def build(
    model: StepModel,
    weights: Mapping[str, Array],
    precision: str,
    *,
    active: bool = False,
    cpu: bool = False,
) -> onnx.ModelProto:
    """Write the step graph of one precision and form; ``weights`` hold the int8 tensors too."""
    builder = _Builder(weights)
    for node in model.program.nodes:
        if node.op == "GRU":
            _add_gru(builder, node, precision, cpu=cpu, active=active)
        else:
            inputs = [builder.operand(name) if name else "" for name in node.inputs]
            builder.add_many(node.op, inputs, list(node.outputs), **node.attributes)
    builder.add("Identity", [model.program.output], "y")
    return _finish(builder, model, active=active)


def _finish(builder: _Builder, model: StepModel, *, active: bool) -> onnx.ModelProto:
    def value(name: str, width: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])

    inputs = [value("x", model.n_in), *(value(s.name, s.size) for s in model.states)]
    if active:
        inputs.append(helper.make_tensor_value_info("active", TensorProto.BOOL, ["batch", 1]))
    outputs = [value("y", model.n_out), *(value(f"{s.name}_out", s.size) for s in model.states)]
    graph = helper.make_graph(builder.nodes, "step", inputs, outputs, builder.constants)
    opset = helper.make_opsetid("", model.program.opset)
    proto = helper.make_model(graph, opset_imports=[opset], producer_name="edge-gru")
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _add_gru(b: _Builder, node: StepNode, precision: str, *, cpu: bool, active: bool) -> None:
    x, h = node.inputs
    cell = str(node.attributes["cell"])
    new = f"{cell}.h_stepped" if active else node.outputs[0]
    if cpu and precision == "fp32":
        _add_gru_operator(b, x, h, cell, new)
    else:
        products = _CPU_PRODUCTS if cpu else _PRODUCTS
        _add_gates(b, h, cell, new, *products[precision](b, x, h, cell))
    if active:
        b.add("Where", ["active", new, h], node.outputs[0])


def _add_gates(b: _Builder, h: str, cell: str, new: str, gi: str, gh: str) -> None:
    """Add gates and blend in fp32; the blend reads h itself, not its quantized copy."""
    n_hidden = b.weight(f"{cell}.w_hh").shape[1]
    two_one = b.constant(f"{cell}.two_one", np.array([2 * n_hidden, n_hidden]))
    one_one = b.constant(f"{cell}.one_one", np.array([n_hidden, n_hidden]))
    b.add("Add", [gi, b.operand(f"{cell}.b_ih")], f"{cell}.gi")
    b.add("Add", [gh, b.operand(f"{cell}.b_hh")], f"{cell}.gh")
    b.add_many("Split", [f"{cell}.gi", two_one], [f"{cell}.gi_rz", f"{cell}.gi_n"], axis=1)
    b.add_many("Split", [f"{cell}.gh", two_one], [f"{cell}.gh_rz", f"{cell}.gh_n"], axis=1)
    b.add("Add", [f"{cell}.gi_rz", f"{cell}.gh_rz"], f"{cell}.a_rz")
    b.add("Sigmoid", [f"{cell}.a_rz"], f"{cell}.rz")
    b.add_many("Split", [f"{cell}.rz", one_one], [f"{cell}.r", f"{cell}.z"], axis=1)
    b.add("Mul", [f"{cell}.r", f"{cell}.gh_n"], f"{cell}.r_gh_n")
    b.add("Add", [f"{cell}.gi_n", f"{cell}.r_gh_n"], f"{cell}.a_n")
    b.add("Tanh", [f"{cell}.a_n"], f"{cell}.n")
    b.add("Sub", [h, f"{cell}.n"], f"{cell}.h_less_n")
    b.add("Mul", [f"{cell}.z", f"{cell}.h_less_n"], f"{cell}.z_h_less_n")
    b.add("Add", [f"{cell}.n", f"{cell}.z_h_less_n"], new)


def _input_product(b: _Builder, x: str, cell: str) -> str:
    weight = b.constant(f"{cell}.w_ih_t", b.weight(f"{cell}.w_ih").T)
    return b.add("MatMul", [x, weight], f"{cell}.gi_product")


def _products_fp32(b: _Builder, x: str, h: str, cell: str) -> tuple[str, str]:
    weight = b.constant(f"{cell}.w_hh_t", b.weight(f"{cell}.w_hh").T)
    return _input_product(b, x, cell), b.add("MatMul", [h, weight], f"{cell}.gh_product")


def _products_fp16(b: _Builder, x: str, h: str, cell: str) -> tuple[str, str]:
    def product(operand: str, weight: str, tag: str) -> str:
        half = b.constant(f"{cell}.{weight}_t", b.weight(f"{cell}.{weight}").T.astype(np.float16))
        cast = b.add("Cast", [operand], f"{cell}.{tag}_operand", to=TensorProto.FLOAT16)
        rounded = b.add("MatMul", [cast, half], f"{cell}.{tag}_half")
        return b.add("Cast", [rounded], f"{cell}.{tag}_product", to=TensorProto.FLOAT)

    return product(x, "w_ih", "gi"), product(h, "w_hh", "gh")


def _products_int8(b: _Builder, x: str, h: str, cell: str) -> tuple[str, str]:
    scale = b.constant(f"{cell}.h_scale", np.array(H_SCALE))
    zero = b.constant(f"{cell}.h_zero", np.array(0, np.int8))
    quantized = b.add("QuantizeLinear", [h, scale, zero], f"{cell}.h_q")
    operand = b.add("DequantizeLinear", [quantized, scale, zero], f"{cell}.h_dq")
    row_scale = b.weight(f"{cell}.w_hh_scale")
    weight = [
        b.constant(f"{cell}.w_hh_q_t", b.weight(f"{cell}.w_hh_q").T),
        b.constant(f"{cell}.w_hh_scale", row_scale),
        b.constant(f"{cell}.w_hh_zero", np.zeros(len(row_scale), np.int8)),
    ]
    b.add("DequantizeLinear", weight, f"{cell}.w_hh_dq", axis=1)
    gh = b.add("MatMul", [operand, f"{cell}.w_hh_dq"], f"{cell}.gh_product")
    return _input_product(b, x, cell), gh


def _products_integer(b: _Builder, x: str, h: str, cell: str) -> tuple[str, str]:
    """Add the int8 product as onnxruntime computes it fast: 20 % less than Q/DQ at 256 units.

    Weights become uint8 around 128: with int8 ones, kernels of x86 CPUs that lack VNNI saturate
    their 16-bit sums.
    """
    scale = b.constant(f"{cell}.h_scale", np.array(H_SCALE))
    zero = b.constant(f"{cell}.zero_128", np.array(128, np.uint8))
    b.add("QuantizeLinear", [h, scale, zero], f"{cell}.h_q")
    shifted = (b.weight(f"{cell}.w_hh_q").T.astype(np.int16) + 128).astype(np.uint8)
    weight = b.constant(f"{cell}.w_hh_q_t", shifted)
    b.add("MatMulInteger", [f"{cell}.h_q", weight, zero, zero], f"{cell}.gh_steps")
    b.add("Cast", [f"{cell}.gh_steps"], f"{cell}.gh_float", to=TensorProto.FLOAT)
    step = b.weight(f"{cell}.w_hh_scale") * np.float32(1 / H_STEPS)
    gh = b.add(
        "Mul", [f"{cell}.gh_float", b.constant(f"{cell}.gh_scale", step)], f"{cell}.gh_product"
    )
    return _input_product(b, x, cell), gh


_Products = Callable[[_Builder, str, str, str], tuple[str, str]]
_PRODUCTS: dict[str, _Products] = {
    "fp32": _products_fp32,
    "fp16": _products_fp16,
    "int8": _products_int8,
}
_CPU_PRODUCTS: dict[str, _Products] = {"int8": _products_integer}
CPU_PRECISIONS = ("fp32", *_CPU_PRODUCTS)
"""Precisions with a form of their own for onnxruntime; for others it runs what TensorRT reads."""


def _add_gru_operator(b: _Builder, x: str, h: str, cell: str, new: str) -> None:
    """Add ONNX's own GRU with one time step: 15 % less than a written-out cell in onnxruntime."""
    n_hidden = b.weight(f"{cell}.w_hh").shape[1]

    def reordered(name: str) -> Array:
        r, z, n = np.split(b.weight(f"{cell}.{name}"), 3)
        return np.concatenate([z, r, n])

    axis = b.constant("axis_0", np.array([0]))
    x_3d = b.add("Unsqueeze", [x, axis], f"{cell}.x_3d")
    h_3d = b.add("Unsqueeze", [h, axis], f"{cell}.h_3d")
    w = b.constant(f"{cell}.w", reordered("w_ih")[None])
    r = b.constant(f"{cell}.r", reordered("w_hh")[None])
    bias = b.constant(f"{cell}.b", np.concatenate([reordered("b_ih"), reordered("b_hh")])[None])
    b.add_many(
        "GRU",
        [x_3d, w, r, bias, "", h_3d],
        ["", f"{cell}.h_new_3d"],
        hidden_size=n_hidden,
        linear_before_reset=1,
    )
    b.add("Squeeze", [f"{cell}.h_new_3d", axis], new)
