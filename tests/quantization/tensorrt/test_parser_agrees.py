"""Every defect that NVIDIA's parser refuses, or takes the INT8 away for, is found by the lint too.

The lint's part runs everywhere. The parser's part is skipped unless it was got (README.md).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantization import step_graph
from quantization.importers.onnx import import_onnx
from quantization.tensorrt_lint import lint

REFUSED, NO_INT8, ACCEPTED = "refused", "no INT8", "accepted"
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def beside(name: str) -> Any:
    """Import a module that lies beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


builder, networks = beside("builder"), beside("networks")


class Graph:
    """A step graph that is about to be spoilt: the joint product of a GRU is its subject."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.nodes = proto.graph.node
        self.product = self.one(lambda n: n.name.endswith("xh_product_MatMul"))
        self.operand = self.made(self.made(self.product.input[0]).input[0])  # its QuantizeLinear
        self.weight = self.made(self.product.input[1])  # its DequantizeLinear
        self.bias_add = self.one(lambda n: n.op_type == "Add" and self.product.output[0] in n.input)
        self.tanh = self.one(lambda n: n.op_type == "Tanh")

    def one(self, is_wanted: Callable[[onnx.NodeProto], bool]) -> onnx.NodeProto:
        return next(node for node in self.nodes if is_wanted(node))

    def made(self, name: str) -> onnx.NodeProto:
        return self.one(lambda node: name in node.output)

    def constant(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(
            next(t for t in self.proto.graph.initializer if t.name == name)
        )

    def set(self, name: str, value: np.ndarray) -> None:
        for tensor in self.proto.graph.initializer:
            if tensor.name == name:
                tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))

    def add(self, name: str, value: np.ndarray) -> str:
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def insert(self, before: onnx.NodeProto, *node: Any, **attributes: Any) -> None:
        self.nodes.insert(list(self.nodes).index(before), helper.make_node(*node, **attributes))

    def set_zero(self, value: np.ndarray) -> None:
        self.set(self.operand.input[2], value)

    def wrap_tanh(self, op: str, other: str, **attributes: Any) -> None:
        """Put an operation before the tanh of the candidate."""
        inputs = [self.tanh.input[0], other] if other else [self.tanh.input[0]]
        self.insert(self.tanh, op, inputs, ["wrapped"], **attributes)
        self.tanh.input[0] = "wrapped"


def _axis_along_k(g: Graph) -> None:
    n = len(g.constant(g.weight.input[0]))
    g.set(g.weight.input[1], np.full(n, 0.01, np.float32))
    g.set(g.weight.input[2], np.zeros(n, np.int8))
    g.weight.attribute[0].i = 0


def _per_channel_activation(g: Graph) -> None:
    n = len(g.constant(g.weight.input[0]))
    g.set(g.operand.input[1], np.full(n, 1 / 127, np.float32))
    g.set(g.operand.input[2], np.zeros(n, np.int8))
    for node in (g.operand, g.made(g.product.input[0])):
        node.attribute.append(helper.make_attribute("axis", 1))


def _computed_scale(g: Graph) -> None:
    g.insert(g.operand, "ReduceMax", [g.operand.input[0]], ["largest"], keepdims=0)
    for node in (g.operand, g.made(g.product.input[0])):
        node.input[1] = "largest"


def _uint8_weight(g: Graph) -> None:
    weight = g.constant(g.weight.input[0])
    g.set(g.weight.input[0], (weight.astype(np.int16) + 128).astype(np.uint8))
    g.set(g.weight.input[2], np.full(weight.shape[1], 128, np.uint8))


def _int32_weight(g: Graph) -> None:
    g.set(g.weight.input[0], g.constant(g.weight.input[0]).astype(np.int32))
    del g.weight.input[2:]


def _float_weight(g: Graph) -> None:
    values = g.constant(g.weight.input[0]) * g.constant(g.weight.input[1])
    g.product.input[1] = g.add("plain", values.astype(np.float32))


def _few_scales(g: Graph) -> None:
    g.set(g.weight.input[1], np.full(7, 0.01, np.float32))
    g.set(g.weight.input[2], np.zeros(7, np.int8))


def _int32_bias(g: Graph) -> None:
    name = next(n for n in g.bias_add.input if n != g.product.output[0])
    steps = (g.constant(name) / 1e-4).astype(np.int32)
    inputs = [g.add("steps", steps), g.add("step", np.array(1e-4, np.float32))]
    g.insert(g.bias_add, "DequantizeLinear", inputs, ["bias_read"])
    g.bias_add.input[list(g.bias_add.input).index(name)] = "bias_read"


def _transposed_gemm_along_k(g: Graph) -> None:
    weight = g.constant(g.weight.input[0]).T
    g.set(g.weight.input[0], np.ascontiguousarray(weight))
    g.set(g.weight.input[1], np.full(weight.shape[1], 0.01, np.float32))
    g.set(g.weight.input[2], np.zeros(weight.shape[1], np.int8))
    g.product.op_type = "Gemm"
    g.product.attribute.append(helper.make_attribute("transB", 1))


def _integer_product(g: Graph) -> None:
    integers = [g.operand.output[0], g.weight.input[0]]
    g.insert(g.product, "MatMulInteger", integers, ["sums"])
    g.insert(g.product, "Cast", ["sums"], list(g.product.output), to=TensorProto.FLOAT)
    g.nodes.remove(g.product)


def _qlinear_product(g: Graph) -> None:
    grid = list(g.operand.input[1:])
    inputs = [g.operand.output[0], *grid, *g.weight.input, *grid]
    g.insert(g.product, "QLinearMatMul", inputs, ["steps_out"])
    g.insert(g.product, "DequantizeLinear", ["steps_out", *grid], list(g.product.output))
    g.nodes.remove(g.product)


def _dynamic_quantize(g: Graph) -> None:
    x = g.operand.input[0]
    g.insert(g.operand, "DynamicQuantizeLinear", [x], ["q", "s", "z"])
    g.insert(g.operand, "DequantizeLinear", ["q", "s", "z"], ["read"])
    g.operand.input[0] = "read"


def _state_on_grid(g: Graph) -> None:
    last = g.made("state_00_h_out")
    last.output[0] = "wide"
    grid = list(g.operand.input[1:])
    g.nodes.append(helper.make_node("QuantizeLinear", ["wide", *grid], ["narrow"]))
    g.nodes.append(helper.make_node("DequantizeLinear", ["narrow", *grid], ["state_00_h_out"]))


def _foreign(g: Graph) -> None:
    g.proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    g.tanh.op_type, g.tanh.domain = "Gelu", "com.microsoft"


def _unread(op: str) -> Callable[[Graph], None]:
    return lambda g: setattr(g.tanh, "op_type", op)


def _opset(version: int) -> Callable[[Graph], None]:
    return lambda g: setattr(g.proto.opset_import[0], "version", version)


class Defect(NamedTuple):
    """How a graph is spoilt, what the lint says, and what the parser makes of it."""

    spoil: Callable[[Graph], object]
    says: str
    becomes: str


DEFECTS = {
    "uint8": Defect(lambda g: g.set_zero(np.array(128, np.uint8)), "got uint8", REFUSED),
    "zero point": Defect(lambda g: g.set_zero(np.array(3, np.int8)), "int8 with [3]", REFUSED),
    "no scale": Defect(
        lambda g: g.set(g.operand.input[1], np.array(0, np.float32)), "positive scale", REFUSED
    ),
    "computed scale": Defect(_computed_scale, "constant, positive scale", NO_INT8),
    "fp16 scale": Defect(
        lambda g: g.set(g.operand.input[1], np.array(0.01, np.float16)), "in float32", REFUSED
    ),
    "per channel": Defect(_per_channel_activation, "one scale for an activation", NO_INT8),
    "along k": Defect(_axis_along_k, "weight scales on axis 1", NO_INT8),
    "along k, transposed": Defect(_transposed_gemm_along_k, "weight scales on axis 0", NO_INT8),
    "axis": Defect(lambda g: g.weight.ClearField("attribute"), "axis written out", ACCEPTED),
    "few scales": Defect(_few_scales, "scales on axis 1, got 7", REFUSED),
    "uint8 weight": Defect(_uint8_weight, "got uint8", REFUSED),
    "int32 weight": Defect(_int32_weight, "to dequantize, got int32", REFUSED),
    "float weight": Defect(_float_weight, "both operands quantized", NO_INT8),
    "float operand": Defect(
        lambda g: g.product.input.__setitem__(0, g.operand.input[0]),
        "both operands quantized",
        NO_INT8,
    ),
    "int32 bias": Defect(_int32_bias, "to dequantize, got int32", REFUSED),
    "MatMulInteger": Defect(_integer_product, "no such operator", REFUSED),
    "QLinearMatMul": Defect(_qlinear_product, "no such operator", REFUSED),
    "DynamicQuantizeLinear": Defect(_dynamic_quantize, "no such operator", REFUSED),
    "state": Defect(_state_on_grid, "carried state is dequantized", ACCEPTED),
    "types": Defect(
        lambda g: g.wrap_tanh("Mul", g.add("half", np.array(0.5, np.float16))),
        "types or shapes do not fit",
        REFUSED,
    ),
    "float64": Defect(
        lambda g: g.wrap_tanh("CastLike", g.add("wide", np.array(0.5, np.float64))),
        "rounds float64",
        ACCEPTED,
    ),
    "domain": Defect(_foreign, "takes com.microsoft's for that of ONNX", ACCEPTED),
    "Det": Defect(_unread("Det"), "never seen to read it", REFUSED),
    "Unique": Defect(_unread("Unique"), "never seen to read it", REFUSED),
    "old opset": Defect(_opset(9), "expected opset 13 or newer, got 9", REFUSED),
    "new opset": Defect(_opset(21), "expected opset 20 or older, got 21", ACCEPTED),
    "IR": Defect(lambda g: setattr(g.proto, "ir_version", 11), "IR 10 or older", ACCEPTED),
}


@pytest.fixture(scope="module")
def joint_graph(tmp_path_factory, quantized_by) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("net") / "gru.onnx"
    networks.write_network(path, "GRU", n_layers=1, n_hidden=32)
    model = import_onnx(path, networks.N_IN).model
    return step_graph.build(model, quantized_by(model, "int8"))


def spoilt(graph: onnx.ModelProto, defect: Defect) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(graph)
    defect.spoil(Graph(proto))
    return proto


@pytest.mark.parametrize("name", DEFECTS)
def test_the_lint_finds_a_defect(joint_graph, name):
    assert lint(joint_graph) == []
    found = "\n".join(map(str, lint(spoilt(joint_graph, DEFECTS[name]))))
    assert DEFECTS[name].says in found


@pytest.mark.skipif(not builder.is_there(), reason="NVIDIA's parser was not got: see README.md")
def test_the_parser_agrees(joint_graph, tmp_path):
    files = [tmp_path / "as it is.onnx"]
    onnx.save(joint_graph, files[0])
    for name, defect in DEFECTS.items():
        files.append(tmp_path / f"{name}.onnx")
        onnx.save(spoilt(joint_graph, defect), files[-1])
    n_int8, *became = (
        REFUSED if built.error else built.n_int8 for built in builder.build_all(files)
    )
    assert n_int8 == 1
    words = {0: NO_INT8, n_int8: ACCEPTED}
    found = {name: words.get(b, b) for name, b in zip(DEFECTS, became, strict=True)}
    assert found == {name: defect.becomes for name, defect in DEFECTS.items()}
