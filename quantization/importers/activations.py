"""Activations that an ONNX recurrent operator may name, as operations, and what they can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_gru.engines.operators import OPERATORS
from edge_gru.errors import ModelError

_FAR = 1e300  # stands for infinity, where some activations are inf / inf
_UNBOUNDED = 1e30


@dataclass(frozen=True)
class Op:
    """One operation on a value, and on a constant where it takes two operands."""

    op: str
    constant: float | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, value: Any) -> Any:
        """Evaluate in numpy."""
        others = () if self.constant is None else (self.constant,)
        return OPERATORS[self.op](self.attributes, value, *others)


@dataclass(frozen=True)
class Activation:
    """An activation with its parameters; ``breaks`` are the points between which it is monotone."""

    name: str
    ops: tuple[Op, ...]
    breaks: tuple[float, ...] = (0.0,)

    def range(self, limit: float | None) -> tuple[float, float]:
        """Smallest and largest value for arguments in [-limit, limit]; None: for any argument."""
        end = _FAR if limit is None else limit
        value: Any = np.array([-end, end, *(b for b in self.breaks if abs(b) <= end)])
        with np.errstate(over="ignore"):
            for op in self.ops:
                value = op(value)
        return float(value.min()), float(value.max())

    def reach(self, limit: float | None) -> float | None:
        """Largest magnitude for arguments in [-limit, limit]; None: there is none, or zero."""
        largest = max(abs(end) for end in self.range(limit))
        return largest if 0.0 < largest < _UNBOUNDED else None


@dataclass(frozen=True)
class _Kind:
    """``alpha`` and ``beta`` are the defaults, None where the activation does not take one."""

    name: str
    alpha: float | None
    beta: float | None
    write: Callable[[float, float], tuple[Op, ...]]


def _plain(name: str) -> _Kind:
    return _Kind(name, None, None, lambda _a, _b: (Op(name),))


def _with_alpha(name: str, alpha: float) -> _Kind:
    return _Kind(name, alpha, None, lambda a, _b: (Op(name, None, {"alpha": a}),))


def _hard_sigmoid(alpha: float, beta: float) -> tuple[Op, ...]:
    return (Op("HardSigmoid", None, {"alpha": alpha, "beta": beta}),)


def _affine(alpha: float, beta: float) -> tuple[Op, ...]:
    return (Op("Mul", alpha), Op("Add", beta))


def _scaled_tanh(alpha: float, beta: float) -> tuple[Op, ...]:
    return (Op("Mul", beta), Op("Tanh"), Op("Mul", alpha))


# Names and defaults: the ONNX operators of these names, and Affine and ScaledTanh of opset 1.
_KINDS = {
    kind.name.lower(): kind
    for kind in (
        *(_plain(name) for name in ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")),
        _with_alpha("Elu", 1.0),
        _with_alpha("LeakyRelu", 0.01),
        _with_alpha("ThresholdedRelu", 1.0),
        _Kind("Affine", 1.0, 0.0, _affine),
        _Kind("HardSigmoid", 0.2, 0.5, _hard_sigmoid),
        _Kind("ScaledTanh", 1.0, 1.0, _scaled_tanh),
    )
}


def read_activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], who: str
) -> tuple[Activation, ...]:
    """Read the attributes of an operator; each activation takes the next parameters that it needs.

    Raises:
        ModelError: ONNX has no activation of that name.
    """
    left = iter(alphas), iter(betas)
    return tuple(_read(name, *left, who) for name in names)


def _read(name: str, alphas: Iterator[float], betas: Iterator[float], who: str) -> Activation:
    kind = _KINDS.get(name.lower())
    if kind is None:
        known = ", ".join(sorted(kind.name for kind in _KINDS.values()))
        raise ModelError(f"expected {who} with activations of ONNX ({known}), got {name!r}")
    alpha = 0.0 if kind.alpha is None else next(alphas, kind.alpha)
    beta = 0.0 if kind.beta is None else next(betas, kind.beta)
    breaks: tuple[float, ...] = (0.0,)
    if kind.name == "ThresholdedRelu":
        breaks = (alpha, float(np.nextafter(alpha, np.inf)))
    return Activation(kind.name, kind.write(alpha, beta), breaks)
