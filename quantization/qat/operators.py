"""The operations of ``edge_gru.engines.operators`` in torch, so that gradients pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch.nn import functional

Tensor: TypeAlias = torch.Tensor
Attributes: TypeAlias = Mapping[str, Any]


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    product = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _layer_normalization(
    attributes: Attributes, a: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor:
    axis = int(attributes.get("axis", -1))
    centred = a - a.mean(dim=axis, keepdim=True)
    variance = (centred**2).mean(dim=axis, keepdim=True)
    y = centred / torch.sqrt(variance + attributes.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def _clip(
    _: Attributes, a: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    a = a if low is None else torch.maximum(a, low)
    return a if high is None else torch.minimum(a, high)


def _gather(attributes: Attributes, a: Tensor, indices: Tensor) -> Tensor:
    axis = int(attributes.get("axis", 0)) % a.ndim
    place = (*(slice(None),) * axis, indices)
    return a[place]


def _slice(_: Attributes, a: Tensor, starts: Tensor, ends: Tensor, axes: Tensor) -> Tensor:
    parts = [slice(None)] * a.ndim
    for start, end, axis in zip(starts.tolist(), ends.tolist(), axes.tolist(), strict=True):
        parts[axis] = slice(start, end)
    return a[tuple(parts)]


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Div": lambda _, a, b: a / b,
    "Pow": lambda _, a, b: a**b,
    "Max": lambda _, a, b: torch.maximum(a, b),
    "Min": lambda _, a, b: torch.minimum(a, b),
    "MatMul": lambda _, a, b: a @ b,
    "Gemm": _gemm,
    "Sigmoid": lambda _, a: torch.sigmoid(a),
    "HardSigmoid": lambda at, a: (at.get("alpha", 0.2) * a + at.get("beta", 0.5)).clamp(0, 1),
    "Tanh": lambda _, a: torch.tanh(a),
    "Relu": lambda _, a: torch.relu(a),
    "LeakyRelu": lambda at, a: functional.leaky_relu(a, at.get("alpha", 0.01)),
    "Elu": lambda at, a: functional.elu(a, at.get("alpha", 1.0)),
    "Softplus": lambda _, a: torch.logaddexp(a, torch.zeros_like(a)),
    "Softsign": lambda _, a: functional.softsign(a),
    "ThresholdedRelu": lambda at, a: functional.threshold(a, at.get("alpha", 1.0), 0.0),
    "Erf": lambda _, a: torch.erf(a),
    "Exp": lambda _, a: torch.exp(a),
    "Log": lambda _, a: torch.log(a),
    "Sqrt": lambda _, a: torch.sqrt(a),
    "Reciprocal": lambda _, a: 1.0 / a,
    "Abs": lambda _, a: torch.abs(a),
    "Neg": lambda _, a: -a,
    "Clip": _clip,
    "Softmax": lambda at, a: torch.softmax(a, int(at.get("axis", -1))),
    "LogSoftmax": lambda at, a: torch.log_softmax(a, int(at.get("axis", -1))),
    "LayerNormalization": _layer_normalization,
    "Concat": lambda at, *parts: torch.cat(parts, int(at["axis"])),
    "Gather": _gather,
    "Slice": _slice,
}
