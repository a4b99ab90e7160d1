"""The closed set of operations of a step, in numpy float64: ONNX semantics on ``(k, n)`` arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]
Attributes = Mapping[str, Any]


def sigmoid(a: Float64) -> Float64:
    """Compute the logistic function without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * a))


def _gemm(attributes: Attributes, a: Float64, b: Float64, c: Float64 | None = None) -> Float64:
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _softmax(attributes: Attributes, a: Float64) -> Float64:
    axis = int(attributes.get("axis", -1))
    e = np.exp(a - a.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _layer_normalization(
    attributes: Attributes, a: Float64, scale: Float64, bias: Float64 | None = None
) -> Float64:
    axis = int(attributes.get("axis", -1))
    centred = a - a.mean(axis=axis, keepdims=True)
    variance = (centred**2).mean(axis=axis, keepdims=True)
    y = centred / np.sqrt(variance + attributes.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def _clip(
    _: Attributes, a: Float64, low: Float64 | None = None, high: Float64 | None = None
) -> Float64:
    a = a if low is None else np.maximum(a, low)
    return a if high is None else np.minimum(a, high)


def _slice(_: Attributes, a: Float64, starts: Array, ends: Array, axes: Array) -> Float64:
    parts = [slice(None)] * a.ndim
    for start, end, axis in zip(starts, ends, axes, strict=True):
        parts[int(axis)] = slice(int(start), int(end))
    return a[tuple(parts)]


_erf = np.vectorize(math.erf, otypes=[np.float64])

OPERATORS: dict[str, Callable[..., Float64]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "Pow": lambda _, a, b: a**b,
    "Max": lambda _, a, b: np.maximum(a, b),
    "Min": lambda _, a, b: np.minimum(a, b),
    "MatMul": lambda _, a, b: a @ b,
    "Gemm": _gemm,
    "Sigmoid": lambda _, a: sigmoid(a),
    "HardSigmoid": lambda at, a: np.clip(at.get("alpha", 0.2) * a + at.get("beta", 0.5), 0, 1),
    "Tanh": lambda _, a: np.tanh(a),
    "Relu": lambda _, a: np.maximum(a, 0),
    "LeakyRelu": lambda at, a: np.where(a < 0, at.get("alpha", 0.01) * a, a),
    "Elu": lambda at, a: np.where(a < 0, at.get("alpha", 1.0) * np.expm1(np.minimum(a, 0)), a),
    "Softplus": lambda _, a: np.logaddexp(0, a),
    "Softsign": lambda _, a: a / (1.0 + np.abs(a)),
    "ThresholdedRelu": lambda at, a: np.where(a > at.get("alpha", 1.0), a, 0.0),
    "Erf": lambda _, a: _erf(a),
    "Exp": lambda _, a: np.exp(a),
    "Log": lambda _, a: np.log(a),
    "Sqrt": lambda _, a: np.sqrt(a),
    "Reciprocal": lambda _, a: 1.0 / a,
    "Abs": lambda _, a: np.abs(a),
    "Neg": lambda _, a: -a,
    "Clip": _clip,
    "Softmax": _softmax,
    "LogSoftmax": lambda at, a: np.log(_softmax(at, a)),
    "LayerNormalization": _layer_normalization,
    "Concat": lambda at, *parts: np.concatenate(parts, axis=int(at["axis"])),
    "Gather": lambda at, a, indices: np.take(a, indices, axis=int(at.get("axis", 0))),
    "Slice": _slice,
}
