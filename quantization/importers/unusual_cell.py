"""Cells that no engine has as one: other activations, a clip, peepholes, coupled gates.

Each is written out in operations of the program, with the same tensors as a cell of its operator
(``w_ih``, ``w_hh``, ``b_ih``, ``b_hh``, gates in PyTorch's order), so that a recipe finds its
products by their names. Equations: https://onnx.ai/onnx/operators, GRU, LSTM and RNN; the clip acts
on what the activations of gates read, as in onnxruntime, and not on the c that h is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from quantization.importers.activations import Activation, Op
from quantization.importers.emitter import Emitter
from quantization.importers.trace import Array

Bounds: TypeAlias = "Mapping[str, float | None]"

_ALL = slice(None)


@dataclass(frozen=True)
class Unusual:
    """How a cell differs: ``activations`` f, g, h as ONNX names them, ``clip`` None for none.

    ``kind`` is that of ``edge_gru.engines.cells`` with the same wiring; ``is_coupled`` makes the
    forget gate one minus the input gate.
    """

    kind: str
    activations: tuple[Activation, ...]
    clip: float | None = None
    is_coupled: bool = False

    @property
    def bounds(self) -> Bounds:
        """Largest magnitude of each state, from a start within it; None where there is none."""
        return _WIRINGS[self.kind].bounds(self)

    def is_share(self, k: int) -> bool:
        """Whether an activation stays in [0, 1], so that its gate can blend two values."""
        low, high = self.activations[k].range(self.clip)
        return low >= 0.0 and high <= 1.0


class _Writer:
    """Adds the operations of one cell under its name; what is tagged ``new_h`` is its next h."""

    def __init__(
        self, emitter: Emitter, cell: str, form: Unusual, tensors: Mapping[str, Array]
    ) -> None:
        self._emitter = emitter
        self._cell = cell
        self._form = form
        self._tensors = tensors
        self._n_hidden = tensors["w_hh"].shape[1]
        self._names: dict[str, str] = {}
        self.is_coupled = form.is_coupled

    def call(self, tag: str, name: str) -> None:
        """Give a value a name of its own."""
        self._names[tag] = name

    def has(self, name: str) -> bool:
        """Whether the cell has a tensor of that name."""
        return name in self._tensors

    def add(self, op: str, inputs: Sequence[str], tag: str, **attributes: Any) -> str:
        """Add an operation, and name its result."""
        name = self._names.get(tag, f"{self._cell}.{tag}")
        return self._emitter.emit_between(op, list(inputs), name, **attributes)

    def constant(self, tag: str, value: Array) -> str:
        """Add a constant of the cell."""
        return self._emitter.constant(f"{self._cell}.{tag}", value)

    def tensor(self, name: str) -> str:
        """Name a tensor of the cell."""
        return self.constant(name, self._tensors[name])

    def product(
        self, operand: str, side: str, tag: str, gates: slice = _ALL, part: str = ""
    ) -> str:
        """Multiply by ``w_<side>`` and add the bias: all gates, or ``part`` of them."""
        n = self._n_hidden
        rows = slice(*(None if k is None else k * n for k in (gates.start, gates.stop)))
        values = {f"{k}_{side}{part}": self._tensors[f"{k}_{side}"][rows] for k in ("w", "b")}
        inputs = [self.constant(name, value) for name, value in values.items()]
        return self.add("Gemm", [operand, *inputs], tag, transB=1)

    def part(self, value: str, first: int, n_gates: int, tag: str) -> str:
        """Take some gates out of a row of gates."""
        n = self._n_hidden
        ends = {"starts": first * n, "ends": (first + n_gates) * n, "axes": 1}
        limits = [self.constant(f"{tag}.{k}", np.array([v])) for k, v in ends.items()]
        return self.add("Slice", [value, *limits], tag)

    def activate(self, k: int, value: str, tag: str, *, is_clipped: bool = True) -> str:
        """Apply the k-th activation to what the clip leaves of a value."""
        if self._form.clip is not None and is_clipped:
            clip = np.array(self._form.clip, np.float32)
            ends = [self.constant(f"clip_{n}", v) for n, v in (("low", -clip), ("high", clip))]
            value = self.add("Clip", [value, *ends], f"{tag}_argument")
        *first, last = self._form.activations[k].ops
        for n, op in enumerate(first):
            value = self._apply(op, value, f"{tag}.{n}")
        return self._apply(last, value, tag)

    def _apply(self, op: Op, value: str, tag: str) -> str:
        inputs = [value]
        if op.constant is not None:
            inputs.append(self.constant(f"{tag}.by", np.array([op.constant], np.float32)))
        return self.add(op.op, inputs, tag, **op.attributes)


def _gru(w: _Writer, x: str, states: Sequence[str]) -> None:
    (h,) = states
    gi, gh = w.product(x, "ih", "gi"), w.product(h, "hh", "gh")
    sums = [w.part(value, 0, 2, f"{tag}_rz") for value, tag in ((gi, "gi"), (gh, "gh"))]
    rz = w.activate(0, w.add("Add", sums, "a_rz"), "rz")
    reset = w.add("Mul", [w.part(rz, 0, 1, "r"), w.part(gh, 2, 1, "gh_n")], "r_gh_n")
    _blend(w, h, rz, w.add("Add", [w.part(gi, 2, 1, "gi_n"), reset], "a_n"))


def _gru_reset_first(w: _Writer, x: str, states: Sequence[str]) -> None:
    (h,) = states
    gi = w.product(x, "ih", "gi")
    gh = w.product(h, "hh", "gh_rz", slice(0, 2), "_rz")
    rz = w.activate(0, w.add("Add", [w.part(gi, 0, 2, "gi_rz"), gh], "a_rz"), "rz")
    reset = w.add("Mul", [w.part(rz, 0, 1, "r"), h], "r_h")
    gh_n = w.product(reset, "hh", "gh_n", slice(2, 3), "_n")
    _blend(w, h, rz, w.add("Add", [w.part(gi, 2, 1, "gi_n"), gh_n], "a_n"))


def _blend(w: _Writer, h: str, rz: str, a_n: str) -> None:
    n = w.activate(1, a_n, "n")
    change = w.add("Mul", [w.part(rz, 1, 1, "z"), w.add("Sub", [h, n], "h_less_n")], "z_h_less_n")
    w.add("Add", [n, change], "new_h")


def _lstm(w: _Writer, x: str, states: Sequence[str]) -> None:
    h, c = states
    gates = w.add("Add", [w.product(x, "ih", "gi"), w.product(h, "hh", "gh")], "a")
    i = w.activate(0, _peeped(w, "i", w.part(gates, 0, 1, "a_i"), c), "i")
    if w.is_coupled:
        f = w.add("Sub", [w.constant("one", np.ones(1, np.float32)), i], "f")
    else:
        f = w.activate(0, _peeped(w, "f", w.part(gates, 1, 1, "a_f"), c), "f")
    added = w.add("Mul", [i, w.activate(1, w.part(gates, 2, 1, "a_g"), "g")], "i_g")
    new_c = w.add("Add", [w.add("Mul", [f, c], "f_c"), added], "new_c")
    o = w.activate(0, _peeped(w, "o", w.part(gates, 3, 1, "a_o"), new_c), "o")
    squashed = w.activate(2, new_c, "squashed_c", is_clipped=False)
    w.add("Mul", [o, squashed], "new_h")


def _peeped(w: _Writer, gate: str, a: str, c: str) -> str:
    """Add what a gate reads of c, where it has a peephole."""
    if not w.has(f"p_{gate}"):
        return a
    peeped = w.add("Mul", [c, w.tensor(f"p_{gate}")], f"p_{gate}_c")
    return w.add("Add", [a, peeped], f"a_{gate}_peeped")


def _rnn(w: _Writer, x: str, states: Sequence[str]) -> None:
    sums = [w.product(x, "ih", "gi"), w.product(states[0], "hh", "gh")]
    w.activate(0, w.add("Add", sums, "a"), "new_h")


def _bounds_of_gru(form: Unusual) -> Bounds:
    return {"h": form.activations[1].reach(form.clip) if form.is_share(0) else None}


def _bounds_of_lstm(form: Unusual) -> Bounds:
    """Bound c only where it is a blend of itself and new values: a forget gate alone may add up."""
    gate, new, squash = form.activations
    is_blend = form.is_coupled and form.is_share(0)
    c = new.reach(form.clip) if is_blend else None
    factors = gate.reach(form.clip), squash.reach(c)
    h = None if None in factors else float(np.prod(np.array(factors, np.float64)))
    return {"h": h, "c": c}


def _bounds_of_rnn(form: Unusual) -> Bounds:
    return {"h": form.activations[0].reach(form.clip)}


@dataclass(frozen=True)
class _Wiring:
    write: Callable[[_Writer, str, Sequence[str]], None]
    bounds: Callable[[Unusual], Bounds]


_WIRINGS = {
    "GRU": _Wiring(_gru, _bounds_of_gru),
    "GRU_RESET_FIRST": _Wiring(_gru_reset_first, _bounds_of_gru),
    "LSTM": _Wiring(_lstm, _bounds_of_lstm),
    "RNN_TANH": _Wiring(_rnn, _bounds_of_rnn),
}


def write_out(
    emitter: Emitter,
    cell: str,
    form: Unusual,
    tensors: Mapping[str, Array],
    wires: tuple[str, Sequence[str]],
) -> None:
    """Add the operations of a cell; ``wires`` name its x and its states, the new ones with _out."""
    x, states = wires
    writer = _Writer(emitter, cell, form, tensors)
    for letter, state in zip(form.bounds, states, strict=True):
        writer.call(f"new_{letter}", f"{state}_out")
    _WIRINGS[form.kind].write(writer, x, states)
