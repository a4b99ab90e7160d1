"""Products with a weight in ONNX, in every form: the one place where precision shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from onnx import TensorProto

from edge_gru.engines.products import ALL_ROWS, LO_STEPS, operand_grid
from edge_gru.manifest import ProductForm
from quantization.graph_builder import GraphBuilder
from quantization.step_model import Array


class Rows(NamedTuple):
    """Some rows of a weight (rows, n), and what the tensors made of them are called.

    ``is_transposed``: the weight itself lies as (n, rows), as in a MatMul; its integers never do.
    """

    weight: str  # cell_0.w_hh
    tag: str  # of the product: cell_0.gh
    rows: slice = ALL_ROWS
    part: str = ""
    is_transposed: bool = False

    def floats(self, b: GraphBuilder) -> Array:
        """Take the rows of the weight itself."""
        value = b.weight(self.weight)
        return (value.T if self.is_transposed else value)[self.rows]

    def integers(self, b: GraphBuilder) -> Array:
        """Take the rows as int8."""
        return b.weight(f"{self.weight}_q")[self.rows]

    def scales(self, b: GraphBuilder) -> Array:
        """Take the scale of each row."""
        return b.weight(f"{self.weight}_scale")[self.rows]

    def name(self, suffix: str) -> str:
        """Name a constant that holds these rows."""
        return "_".join(filter(None, (self.weight, self.part, suffix)))


class Integers(NamedTuple):
    """The weight of an integer product: int8 (rows, n), a scale for each row, and its name."""

    q: Array
    scales: Array
    name: str


Product: TypeAlias = Callable[[GraphBuilder, str, Integers, str, np.float32], str]
"""Adds ``operand (k, n)`` on a grid times integers; takes the tag and the step of the grid."""


def write_product(
    b: GraphBuilder, form: ProductForm, operand: str, rows: Rows, *, cpu: bool = False
) -> str:
    """Add ``operand (k, n)`` times some rows of a weight; return the name of the result."""
    if form.weight == "fp32":
        weight = b.constant(rows.name("t"), rows.floats(b).T)
        return b.add("MatMul", [operand, weight], f"{rows.tag}_product")
    if form.weight == "fp16":
        return _half(b, operand, rows)
    integers = Integers(rows.integers(b), rows.scales(b), rows.name(""))
    if not form.has_integer_operand:
        read = _read_back(b, integers) if cpu else _dequantized(b, integers)
        return b.add("MatMul", [operand, read], f"{rows.tag}_product")
    step, _ = operand_grid(b.weights, rows.weight)
    read = with_gain(b, operand, rows)
    return integer_product(b, form, read, integers, rows.tag, step, cpu=cpu)


def integer_product(
    b: GraphBuilder,
    form: ProductForm,
    operand: str,
    integers: Integers,
    tag: str,
    step: np.float32,
    *,
    cpu: bool,
) -> str:
    """Add a product of integers: ``operand`` has its gain already."""
    product = _matmul_integer if cpu else _qdq
    if form.operand == "int8":
        return product(b, operand, integers, tag, step)
    return _hilo(b, operand, integers, tag, step, product)


def with_gain(b: GraphBuilder, operand: str, rows: Rows) -> str:
    """Multiply an operand by its gains, if it has any."""
    _, gain = operand_grid(b.weights, rows.weight)
    if gain is None:
        return operand
    name = b.constant(f"{rows.weight}_operand_gain", gain)
    return b.add("Mul", [operand, name], f"{rows.tag}_operand")


def _half(b: GraphBuilder, operand: str, rows: Rows) -> str:
    half = b.constant(rows.name("t"), rows.floats(b).T.astype(np.float16))
    cast = b.add("Cast", [operand], f"{rows.tag}_operand", to=TensorProto.FLOAT16)
    rounded = b.add("MatMul", [cast, half], f"{rows.tag}_half")
    return b.add("Cast", [rounded], f"{rows.tag}_product", to=TensorProto.FLOAT)


def _dequantized(b: GraphBuilder, integers: Integers) -> str:
    parts = [
        b.constant(f"{integers.name}_q_t", integers.q.T),
        b.constant(f"{integers.name}_scale", integers.scales),
        b.constant(f"{integers.name}_zero", np.zeros(len(integers.scales), np.int8)),
    ]
    return b.add("DequantizeLinear", parts, f"{integers.name}_dq", axis=1)


def _read_back(b: GraphBuilder, integers: Integers) -> str:
    """Add a weight as float: onnxruntime rounds the operand too where it finds DQ on W alone."""
    values = (integers.q * integers.scales[:, None]).astype(np.float32)
    return b.constant(f"{integers.name}_read_t", values.T)


def _hilo(
    b: GraphBuilder,
    operand: str,
    integers: Integers,
    tag: str,
    step: np.float32,
    product: Product,
) -> str:
    """Send an operand as two rows of one product: what the first leaves, in steps of 1/254."""
    scale = b.constant(f"{tag}_hi_scale", np.array(step, np.float32))
    zero = b.constant(f"{tag}_hi_zero", np.array(0, np.int8))
    high_q = b.add("QuantizeLinear", [operand, scale, zero], f"{tag}_hi_q")
    high = b.add("DequantizeLinear", [high_q, scale, zero], f"{tag}_hi")
    times = b.constant("lo_steps", np.array(LO_STEPS, np.float32))
    left = b.add("Sub", [operand, high], f"{tag}_left")
    rest = b.add("Mul", [left, times], f"{tag}_rest")
    both = b.add("Concat", [operand, rest], f"{tag}_both", axis=0)
    rows = product(b, both, integers, f"{tag}_rows", step)
    b.split_in_two(rows, [f"{tag}_of_hi", f"{tag}_of_rest"])
    share = b.constant("lo_share", np.array(1 / LO_STEPS, np.float32))
    low = b.add("Mul", [f"{tag}_of_rest", share], f"{tag}_of_lo")
    return b.add("Add", [f"{tag}_of_hi", low], f"{tag}_product")


def _qdq(b: GraphBuilder, operand: str, integers: Integers, tag: str, step: np.float32) -> str:
    """Add the product as TensorRT reads it: Q/DQ on operand and weight."""
    scale = b.constant(f"{tag}_operand_scale", np.array(step, np.float32))
    zero = b.constant(f"{tag}_operand_zero", np.array(0, np.int8))
    quantized = b.add("QuantizeLinear", [operand, scale, zero], f"{tag}_operand_q")
    read = b.add("DequantizeLinear", [quantized, scale, zero], f"{tag}_operand_dq")
    return b.add("MatMul", [read, _dequantized(b, integers)], f"{tag}_product")


def _matmul_integer(
    b: GraphBuilder, operand: str, integers: Integers, tag: str, step: np.float32
) -> str:
    """Add the product as onnxruntime computes it fast: 20 % less than Q/DQ at 256 units.

    Weights become uint8 around 128: with int8 ones, kernels of x86 CPUs that lack VNNI saturate
    their 16-bit sums.
    """
    scale = b.constant(f"{tag}_operand_scale", np.array(step, np.float32))
    zero = b.constant("zero_128", np.array(128, np.uint8))
    quantized = b.add("QuantizeLinear", [operand, scale, zero], f"{tag}_operand_q")
    shifted = (integers.q.T.astype(np.int16) + 128).astype(np.uint8)
    weight = b.constant(f"{integers.name}_q_t", shifted)
    b.add("MatMulInteger", [quantized, weight, zero, zero], f"{tag}_steps")
    b.add("Cast", [f"{tag}_steps"], f"{tag}_float", to=TensorProto.FLOAT)
    steps = b.constant(f"{tag}_scale", (integers.scales * step).astype(np.float32))
    return b.add("Mul", [f"{tag}_float", steps], f"{tag}_product")
