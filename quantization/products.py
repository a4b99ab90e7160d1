"""The products of a cell in ONNX, in every precision: the one place where precision shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from onnx import TensorProto

from edge_gru.engines.cells import ALL_ROWS, H_SCALE
from quantization.graph_builder import GraphBuilder
from quantization.step_model import Array


class Rows(NamedTuple):
    """Some rows of a cell's matrix, and what the tensors made of them are called."""

    weight: str  # w_ih, w_hh
    tag: str  # of the product: gi, gh, gh_n
    rows: slice = ALL_ROWS

    def of(self, b: GraphBuilder, cell: str, suffix: str = "") -> Array:
        """Take the rows of a tensor of the cell: ``w_hh``, with a suffix ``w_hh_q``."""
        return b.weight(f"{cell}.{self.weight}{suffix}")[self.rows]

    def name(self, cell: str, suffix: str) -> str:
        """Name a constant that holds these rows."""
        part = self.tag.partition("_")[2]
        return f"{cell}.{self.weight}_{part}_{suffix}" if part else f"{cell}.{self.weight}_{suffix}"


INPUT = Rows("w_ih", "gi")
RECURRENT = Rows("w_hh", "gh")

Product: TypeAlias = Callable[[GraphBuilder, str, str, Rows], str]
"""Adds ``operand (k, n)`` times the rows of a cell's matrix; returns the name of the result."""


def _fp32(b: GraphBuilder, cell: str, operand: str, rows: Rows) -> str:
    weight = b.constant(rows.name(cell, "t"), rows.of(b, cell).T)
    return b.add("MatMul", [operand, weight], f"{cell}.{rows.tag}_product")


def _fp16(b: GraphBuilder, cell: str, operand: str, rows: Rows) -> str:
    half = b.constant(rows.name(cell, "t"), rows.of(b, cell).T.astype(np.float16))
    cast = b.add("Cast", [operand], f"{cell}.{rows.tag}_operand", to=TensorProto.FLOAT16)
    rounded = b.add("MatMul", [cast, half], f"{cell}.{rows.tag}_half")
    return b.add("Cast", [rounded], f"{cell}.{rows.tag}_product", to=TensorProto.FLOAT)


def _int8(b: GraphBuilder, cell: str, operand: str, rows: Rows) -> str:
    """Add Q/DQ on the operand and the rows of the recurrent matrix; x stays float."""
    if rows.weight != "w_hh":
        return _fp32(b, cell, operand, rows)
    scale = b.constant(f"{cell}.h_scale", h_scale(b, cell))
    zero = b.constant(f"{cell}.h_zero", np.array(0, np.int8))
    tag = f"{cell}.{rows.tag.replace('gh', 'h')}"
    quantized = b.add("QuantizeLinear", [operand, scale, zero], f"{tag}_q")
    read = b.add("DequantizeLinear", [quantized, scale, zero], f"{tag}_dq")
    row_scale = rows.of(b, cell, "_scale")
    weight = [
        b.constant(rows.name(cell, "q_t"), rows.of(b, cell, "_q").T),
        b.constant(rows.name(cell, "scale"), row_scale),
        b.constant(rows.name(cell, "zero"), np.zeros(len(row_scale), np.int8)),
    ]
    matrix = b.add("DequantizeLinear", weight, rows.name(cell, "dq"), axis=1)
    return b.add("MatMul", [read, matrix], f"{cell}.{rows.tag}_product")


def _integer(b: GraphBuilder, cell: str, operand: str, rows: Rows) -> str:
    """Add the int8 product as onnxruntime computes it fast: 20 % less than Q/DQ at 256 units.

    Weights become uint8 around 128: with int8 ones, kernels of x86 CPUs that lack VNNI saturate
    their 16-bit sums.
    """
    if rows.weight != "w_hh":
        return _fp32(b, cell, operand, rows)
    scale = b.constant(f"{cell}.h_scale", h_scale(b, cell))
    zero = b.constant(f"{cell}.zero_128", np.array(128, np.uint8))
    tag = f"{cell}.{rows.tag.replace('gh', 'h')}"
    quantized = b.add("QuantizeLinear", [operand, scale, zero], f"{tag}_q")
    shifted = (rows.of(b, cell, "_q").T.astype(np.int16) + 128).astype(np.uint8)
    weight = b.constant(rows.name(cell, "q_t"), shifted)
    start = f"{cell}.{rows.tag}"
    b.add("MatMulInteger", [quantized, weight, zero, zero], f"{start}_steps")
    b.add("Cast", [f"{start}_steps"], f"{start}_float", to=TensorProto.FLOAT)
    step = b.constant(f"{start}_scale", rows.of(b, cell, "_scale") * h_scale(b, cell))
    return b.add("Mul", [f"{start}_float", step], f"{start}_product")


PRODUCTS: dict[str, Product] = {"fp32": _fp32, "fp16": _fp16, "int8": _int8}
CPU_PRODUCTS: dict[str, Product] = {"int8": _integer}


def h_scale(b: GraphBuilder, cell: str) -> Array:
    """Step of the grid that the recurrent product reads h on: 1/127, or calibrated."""
    name = f"{cell}.h_scale"
    return np.array(b.weight(name) if b.has_weight(name) else H_SCALE, np.float32).reshape(())
