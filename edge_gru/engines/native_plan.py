"""The program of a bundle as instructions of a native network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.cells import CELLS
from edge_gru.engines.native_products import Product, Products
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import Manifest, StepNode

if TYPE_CHECKING:
    from edge_gru.native import Network

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

_LAST_AXIS = (1, -1)  # of rows (k, n)
# Operations with numbers from attributes: name and default, in the order that C takes them.
_PARAMETERS = {
    "LeakyRelu": (("alpha", 0.01),),
    "Elu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
    "LayerNormalization": (("epsilon", 1e-5),),
}
_ALONG_ROWS = ("Softmax", "LogSoftmax", "LayerNormalization")
_ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp"),
    *("Log", "Erf", "Sigmoid", "Tanh", "Relu", "LeakyRelu", "Elu", "Softplus", "HardSigmoid"),
)


class Plan:
    """Adds a program to a network, node by node.

    Raises:
        EngineUnavailableError: from ``build``: names an operation that the network does not have,
            or says how the program does not fit the weights.
    """

    def __init__(
        self, network: Network, manifest: Manifest, weights: Mapping[str, Array], products: Products
    ) -> None:
        self._network = network
        self._program = manifest.program
        self._weights = weights
        self._products = products
        self._ids = {"x": 0}
        self._widths = {0: manifest.n_in}
        self._state_names = tuple(manifest.state_sizes)
        self._n_out = manifest.n_out
        ends = (self._program.output, *(f"{name}_out" for name in self._state_names))
        reads = (name for node in self._program.nodes for name in node.inputs)
        self._n_reads = Counter([*reads, *ends])
        self._others: dict[str, Callable[[StepNode], None]] = {
            "MatMul": self._matmul,
            "Gemm": self._gemm,
            "Clip": self._clip,
            "Concat": self._concat,
            "Gather": self._gather,
            "Slice": self._slice,
        }
        self._biases: dict[str, str] = {}  # output of an Add that a product has taken in

    def build(self, starts: Mapping[str, Float32]) -> dict[str, int]:
        """Add the states, every operation, and seal the network; return the value of each state."""
        for name in self._state_names:
            self._name(name, self._network.state(starts[name]), starts[name].size)
        states = {name: self._ids[name] for name in self._state_names}
        for k, node in enumerate(self._program.nodes):
            self._add(k, node)
        for name, state in states.items():
            new = self._value(f"{name}_out")
            if new != state:
                self._network.operation("Copy", (new,), state, (), None)
        output = self._value(self._program.output)
        if self._widths[output] != self._n_out:
            raise EngineUnavailableError(
                f"expected {self._n_out} outputs from the program, got {self._widths[output]}; "
                "pack the model again"
            )
        self._network.seal(output)
        return states

    def _add(self, k: int, node: StepNode) -> None:
        if node.outputs[0] in self._biases:
            return
        if node.op in CELLS:
            self._cell(k, node)
        elif node.op in _ELEMENTWISE or node.op in _ALONG_ROWS:
            self._operation(node)
        elif node.op in self._others:
            self._others[node.op](node)
        else:
            raise EngineUnavailableError(
                f"the native engine has no operator {node.op}; use onnxruntime"
            )

    # Names and values

    def _name(self, name: str, value: int, width: int) -> int:
        self._ids[name] = value
        self._widths[value] = width
        return value

    def _new(self, name: str, width: int) -> int:
        return self._name(name, self._network.scratch(width), width)

    def _value(self, name: str) -> int:
        """Return the value of a name; a constant becomes one where it is first used."""
        if name in self._ids:
            return self._ids[name]
        constant = self._constant(name)
        if constant.ndim and constant.size != constant.shape[-1]:
            raise self._refused(f"a constant row, got {name} of shape {constant.shape}")
        row = np.ascontiguousarray(constant, np.float32).reshape(-1)
        return self._name(name, self._network.constant(row), row.size)

    def _constant(self, name: str) -> Array:
        found = self._weights.get(name)
        if found is None:
            raise self._refused(f"a constant {name!r}")
        return found

    @staticmethod
    def _refused(expected: str) -> EngineUnavailableError:
        return EngineUnavailableError(f"the native engine expected {expected}; use onnxruntime")

    # Operations

    def _operation(self, node: StepNode) -> None:
        if node.op in _ALONG_ROWS and node.attributes.get("axis", -1) not in _LAST_AXIS:
            raise self._refused(f"{node.op} along the channels, got {node.attributes}")
        inputs = tuple(self._value(name) for name in node.inputs if name)
        parameters = tuple(
            float(self._number(node, name, default))
            for name, default in _PARAMETERS.get(node.op, ())
        )
        width = max(self._widths[value] for value in inputs)
        self._network.operation(
            node.op, inputs, self._new(node.outputs[0], width), parameters, None
        )

    @staticmethod
    def _number(node: StepNode, name: str, default: float) -> float:
        value = node.attributes.get(name, default)
        if not isinstance(value, int | float):
            raise EngineUnavailableError(
                f"expected a number as {name} of {node.op}, got {value!r}; pack the model again"
            )
        return value

    def _clip(self, node: StepNode) -> None:
        a = self._value(node.inputs[0])
        low, high = (*node.inputs[1:], "", "")[:2]
        bounds = (
            self._value(low) if low else self._unbounded(-np.inf),
            self._value(high) if high else self._unbounded(np.inf),
        )
        output = self._new(node.outputs[0], self._widths[a])
        self._network.operation("Clip", (a, *bounds), output, (), None)

    def _unbounded(self, bound: float) -> int:
        name = f"{bound} as a bound"  # no node can be called so: a space is no part of a name
        if name not in self._ids:
            self._name(name, self._network.constant(np.array([bound], np.float32)), 1)
        return self._ids[name]

    def _concat(self, node: StepNode) -> None:
        if node.attributes.get("axis") not in _LAST_AXIS:
            raise self._refused(f"Concat along the channels, got {node.attributes}")
        parts = [self._value(name) for name in node.inputs]
        whole = self._new(node.outputs[0], sum(self._widths[part] for part in parts))
        offset = 0
        for part in parts:
            indices = np.arange(offset, offset + self._widths[part], dtype=np.int32)
            self._network.operation("Scatter", (part,), whole, (), indices)
            offset += self._widths[part]

    def _gather(self, node: StepNode) -> None:
        indices = self._constant(node.inputs[1])
        if node.attributes.get("axis", 0) not in _LAST_AXIS or indices.ndim != 1:
            raise self._refused("Gather of channels by a list")
        self._pick(node, indices)

    def _slice(self, node: StepNode) -> None:
        starts, ends, axes = (self._constant(name).reshape(-1) for name in node.inputs[1:])
        if len(axes) != 1 or axes[0] not in _LAST_AXIS:
            raise self._refused("Slice of channels")
        width = self._widths[self._value(node.inputs[0])]
        self._pick(node, np.arange(width)[int(starts[0]) : int(ends[0])])

    def _pick(self, node: StepNode, indices: Array) -> None:
        value = self._value(node.inputs[0])
        wrapped = np.where(indices < 0, indices + self._widths[value], indices).astype(np.int32)
        if not wrapped.size:
            raise self._refused(f"at least one channel left by {node.op}")
        self._network.operation(
            "Gather", (value,), self._new(node.outputs[0], wrapped.size), (), wrapped
        )

    # Products

    def _matmul(self, node: StepNode) -> None:
        name, matrix = node.inputs
        self._dense(node, name, self._products.take(matrix, transposed=True))

    def _gemm(self, node: StepNode) -> None:
        plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        if any(node.attributes.get(name, usual) != usual for name, usual in plain.items()):
            raise self._refused(f"Gemm as a linear layer, got {node.attributes}")
        name, matrix, *bias = node.inputs
        is_in_rows = bool(node.attributes.get("transB", 0))
        product = self._products.take(matrix, transposed=not is_in_rows)
        self._dense(node, name, product, bias[0] if bias else "")

    def _dense(self, node: StepNode, name: str, product: Product, bias: str = "") -> None:
        n_rows = len(product[1])
        output = node.outputs[0]
        row = np.zeros(n_rows, np.float32)
        if bias:
            row = row + self._constant(bias).astype(np.float32).reshape(-1)
        else:
            found = self._bias_after(output, n_rows)
            if found is not None:
                output, row = found
        x = self._value(name)
        self._network.dense(x, self._new(output, n_rows), product, np.ascontiguousarray(row))

    def _bias_after(self, product: str, n_rows: int) -> tuple[str, Float32] | None:
        """Find the Add of a constant row that alone reads a product."""
        if self._n_reads[product] != 1:
            return None
        for node in self._program.nodes:
            if node.op == "Add" and product in node.inputs:
                (other,) = (name for name in node.inputs if name != product)
                row = self._weights.get(other)
                if row is None or row.dtype != np.float32 or row.size not in (1, n_rows):
                    return None
                self._biases[node.outputs[0]] = product
                return node.outputs[0], np.broadcast_to(row.reshape(-1), n_rows)
        return None

    # Cells

    def _cell(self, k: int, node: StepNode) -> None:
        prefix = str(node.attributes["cell"])
        n_gates = len(CELLS[node.op].gates)
        biases = [self._constant(f"{prefix}.{name}") for name in ("b_ih", "b_hh")]
        n_hidden = biases[0].size // n_gates
        if any(b.shape != (n_gates * n_hidden,) or b.dtype != np.float32 for b in biases):
            raise self._refused(f"biases of {prefix} with {n_gates} gates")
        x, *states = node.inputs
        x_value = self._value(x)
        values = [
            self._state_of(k, name, new) for name, new in zip(states, node.outputs, strict=True)
        ]
        kind, recurrent, candidate, projection = self._recurrent(node.op, prefix, n_hidden)
        bias, bias_candidate = _biases(node.op, n_hidden, *biases)
        self._network.cell(
            kind,
            n_hidden,
            x_value,
            values[0],
            values[-1] if len(values) > 1 else -1,
            self._products.take(f"{prefix}.w_ih"),
            recurrent,
            candidate,
            projection,
            bias,
            bias_candidate,
        )

    def _recurrent(
        self, op: str, prefix: str, n_hidden: int
    ) -> tuple[str, Product, Product | None, Product | None]:
        """Return the kind in C, the product with h, that of the candidate, and the projection."""
        name = f"{prefix}.w_hh"
        if op == "GRU_RESET_FIRST":
            gates, candidate = slice(0, 2 * n_hidden), slice(2 * n_hidden, None)
            return op, self._products.take(name, gates), self._products.take(name, candidate), None
        if op == "LSTM_PROJECTED":
            projection = self._products.take(f"{prefix}.w_hr")
            return "LSTM", self._products.take(name), None, projection
        return op, self._products.take(name), None, None

    def _state_of(self, k: int, state: str, new: str) -> int:
        """Return where a cell advances a state: in place if nothing reads the old one later."""
        old = self._value(state)
        later = self._program.nodes[k + 1 :]
        is_read = state == self._program.output or any(state in node.inputs for node in later)
        if state in self._state_names and new == f"{state}_out" and not is_read:
            return self._name(new, old, self._widths[old])
        copy = self._new(new, self._widths[old])
        self._network.operation("Copy", (old,), copy, (), None)
        return copy


def _biases(op: str, n_hidden: int, b_ih: Float32, b_hh: Float32) -> tuple[Float32, Float32 | None]:
    """Return what is added to the product with x, and to the candidate's product with h.

    A GRU's reset gate acts on the latter, so its bias cannot move over.
    """
    if op != "GRU":
        return b_ih + b_hh, None
    both = b_ih.copy()
    both[: 2 * n_hidden] += b_hh[: 2 * n_hidden]
    return both, np.ascontiguousarray(b_hh[2 * n_hidden :])
