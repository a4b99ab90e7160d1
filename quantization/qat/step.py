"""The step of a model in torch: what the reference engine computes, so that gradients pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
import torch

from edge_gru.engines.products import ALL_ROWS, dense_weight
from edge_gru.engines.reference import of_cell
from edge_gru.errors import ConfigError
from edge_gru.manifest import StepNode
from quantization.qat.cells import CELLS
from quantization.qat.operators import OPERATORS
from quantization.qat.order import order_of
from quantization.qat.products import Factor
from quantization.step_model import Array, StepModel

Tensor: TypeAlias = torch.Tensor
Factors: TypeAlias = Mapping[str, Factor]
Values: TypeAlias = Mapping[str, Tensor]


class TorchStep:
    """Runs the program of a model over windows of a stream, many of them side by side.

    Raises:
        ConfigError: the program has an operation that is not here; names it.
    """

    def __init__(self, model: StepModel, dtype: torch.dtype = torch.float32) -> None:
        nodes = model.program.nodes
        unknown = sorted({node.op for node in nodes} - set(OPERATORS) - set(CELLS))
        if unknown:
            raise ConfigError(
                f"finetuning cannot follow operation {', '.join(unknown)}; "
                "use a recipe without n_finetune_steps"
            )
        self._output = model.program.output
        self._states = tuple(state.name for state in model.states)
        self._order = order_of(model.program, self._states)
        self._constants = {name: _tensor(v, dtype) for name, v in model.weights.items()}
        self._dense = {node.outputs[0]: dense_weight(node, model.weights) for node in nodes}
        cells = {str(node.attributes["cell"]) for node in nodes if node.op in CELLS}
        self._cells = {cell: of_cell(self._constants, cell) for cell in cells}

    def run(
        self,
        x: Tensor,
        start: Values,
        restart: Mapping[int, tuple[Tensor, Values]],
        factors: Factors,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run windows from given states.

        Args:
            x: ``(n_steps, k, n_in)``.
            start: the states ``(k, size)`` by name.
            restart: by the step, which of the windows ``(k, 1)`` begin anew before it, and the
                states ``(k, size)`` that they begin in.
            factors: the weights that are not float, by name.

        Returns the outputs ``(n_steps, k, n_out)``, and the states after each step, alike.
        """
        n_steps, k = x.shape[:2]
        values: dict[str, Tensor] = {**self._constants, "x": x.flatten(0, 1)}
        self._evaluate(self._order.before, values, factors, {})
        timed = {name: values.pop(name) for name in self._order.timed}
        # Not indexed step by step: the gradient of every index would be as long as the window.
        pieces = {name: v.unflatten(0, (n_steps, k)).unbind() for name, v in timed.items()}
        ready = {
            cell: v.unflatten(0, (n_steps, k)).unbind()
            for cell, v in self._products_of_x(timed, factors).items()
        }
        kept: dict[str, list[Tensor]] = {name: [] for name in self._order.kept}
        states = dict(start)
        for t in range(n_steps):
            if t in restart:
                begins, anew = restart[t]
                states = {name: torch.where(begins, anew[name], v) for name, v in states.items()}
            now = {**values, **{name: v[t] for name, v in pieces.items()}, **states}
            self._evaluate(self._order.within, now, factors, {c: v[t] for c, v in ready.items()})
            states = {name: now[f"{name}_out"] for name in states}
            for name, found in kept.items():
                found.append(now[name])
        values |= {**timed, **{name: torch.cat(found) for name, found in kept.items()}}
        self._evaluate(self._order.after, values, factors, {})
        return values[self._output].unflatten(0, (n_steps, k)), {
            name: values[f"{name}_out"].unflatten(0, (n_steps, k)) for name in self._states
        }

    def _products_of_x(self, timed: Values, factors: Factors) -> dict[str, Tensor]:
        """Multiply the x of every cell that reads no state by its weight, all steps at once."""
        return {
            cell: self._factor(cell, "w_ih", factors).multiply(timed[node.inputs[0]], ALL_ROWS)
            for node in self._order.within
            if node.op in CELLS and node.inputs[0] in timed
            for cell in [str(node.attributes["cell"])]
        }

    def _evaluate(
        self,
        nodes: Iterable[StepNode],
        values: dict[str, Tensor],
        factors: Factors,
        ready: Values,
    ) -> None:
        for node in nodes:
            if node.op in CELLS:
                found = self._step_cell(node, values, factors, ready)
            else:
                found = (self._operate(node, values, factors),)
            values.update(zip(node.outputs, found, strict=True))

    def _operate(self, node: StepNode, values: Values, factors: Factors) -> Tensor:
        dense = self._dense[node.outputs[0]]
        if dense is not None and dense[0] in factors:
            product = factors[dense[0]].multiply(values[node.inputs[0]], ALL_ROWS)
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
            return product + values[bias] if bias else product
        operands = [values[name] if name else None for name in node.inputs]
        return OPERATORS[node.op](node.attributes, *operands)

    def _step_cell(
        self, node: StepNode, values: Values, factors: Factors, ready: Values
    ) -> tuple[Tensor, ...]:
        cell = str(node.attributes["cell"])

        def product(operand: Tensor, weight: str, rows: slice) -> Tensor:
            if weight == "w_ih" and cell in ready:
                return ready[cell][:, rows]
            return self._factor(cell, weight, factors).multiply(operand, rows)

        x, *states = (values[name] for name in node.inputs)
        return CELLS[node.op](x, tuple(states), self._cells[cell], product)

    def _factor(self, cell: str, weight: str, factors: Factors) -> Factor:
        return factors.get(f"{cell}.{weight}") or Factor(self._cells[cell][weight])


def _tensor(value: Array, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(np.array(value, order="C"))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
