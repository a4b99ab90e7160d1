"""A program whose loop over time was unrolled when it was exported: one turn of it is the step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from edge_gru.errors import ModelError
from quantization.importers.torch.recorder import is_recurrent

_EARLIER = object()  # stands for every value that belongs to a turn before the last
_JOINS = ("cat", "stack")


class LastTurn(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """An unrolled program as a module of one step: its last turn, from where the first starts.

    Values of earlier turns are left out, and so are their places along the axis of time. That
    nothing but the states of cells goes from turn to turn is for the proof to find out.
    """

    def __init__(self, graph: fx.GraphModule, n_steps: int, n_cells: int) -> None:
        super().__init__()
        self._graph = graph
        self._n_steps = n_steps
        self._n_cells = n_cells

    def forward(self, x: torch.Tensor, *states: Any) -> Any:
        """Run one time step: ``x`` has 1 where the program has its number of steps.

        Raises:
            ModelError: the last turn needs more of an earlier one than the states of its cells.
        """
        return _Interpreter(self._graph, self._n_steps, self._n_cells).run(x, *states)


def last_turn(graph: fx.GraphModule, n_steps: int) -> LastTurn | None:
    """Return the step of a program that runs the same cells ``n_steps`` times; None: it does not.

    A cell is known by its weights.
    """
    found = [_weights(node) for node in _calls(graph)]
    n_cells = len(found) // n_steps
    if not n_cells or found != found[:n_cells] * n_steps:
        return None
    return LastTurn(graph, n_steps, n_cells)


def _calls(graph: fx.GraphModule) -> Iterator[fx.Node]:
    return (n for n in graph.graph.nodes if n.op == "call_function" and is_recurrent(n.target))


def _weights(node: fx.Node) -> tuple[str, ...]:
    return tuple(n.target for n in pytree.tree_leaves(node.args[2:]) if isinstance(n, fx.Node))


class _Interpreter(fx.Interpreter):  # type: ignore[misc]  # torch is not followed by mypy
    """Runs the nodes of the last turn, and those that belong to none."""

    def __init__(self, graph: fx.GraphModule, n_steps: int, n_cells: int) -> None:
        super().__init__(graph)
        self._n_steps = n_steps
        self._n_cells = n_cells
        self._number = {node: k for k, node in enumerate(_calls(graph))}
        self._starts: list[Any] = []

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, unless it belongs to an earlier turn."""
        if n.op != "call_function":
            result = super().run_node(n)
            return self._checked(result) if n.op == "output" else result
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n in self._number:
            return self._cell(n, args)
        if _name(n) in ("select", "slice", "unbind") and self._is_time(n, args):
            return self._of_time(_name(n), args)
        is_part = _name(n) == "getitem" and args[0] is not _EARLIER
        if is_part or not _is_earlier((args, kwargs)):
            return n.target(*args, **kwargs)
        rest = [v for v in args[0] if v is not _EARLIER] if _name(n) in _JOINS else []
        return n.target(rest, *args[1:], **kwargs) if rest else _EARLIER

    def _cell(self, node: fx.Node, args: Sequence[Any]) -> Any:
        turn, cell = divmod(self._number[node], self._n_cells)
        x, states, *others = args
        if not turn:
            self._starts.append(states)
        if turn < self._n_steps - 1:
            return _EARLIER
        return node.target(self._checked(x), self._checked(self._starts[cell]), *others)

    def _checked(self, value: Any) -> Any:
        if _is_earlier(value):
            raise ModelError(
                "the loop over time of this program was unrolled, and its last turn needs more of "
                "the others than the states of its cells: give file.py:factory instead"
            )
        return value

    def _is_time(self, node: fx.Node, args: Sequence[Any]) -> bool:
        """Whether a node takes something along the axis of time, of which one step is left."""
        axis = args[1] if len(args) > 1 else 0
        known = node.args[0].meta["val"].shape[axis]
        return known == self._n_steps and args[0] is not _EARLIER and args[0].shape[axis] == 1

    def _of_time(self, name: str, args: Sequence[Any]) -> Any:
        x, axis, *places = [*args, 0][: max(len(args), 2)]
        if name == "unbind":
            return [_EARLIER] * (self._n_steps - 1) + [x.select(axis, 0)]
        last = self._n_steps - 1
        if name == "select":
            return x.select(axis, 0) if places[0] % self._n_steps == last else _EARLIER
        return x if last in range(self._n_steps)[slice(*(places or [None]))] else _EARLIER


def _is_earlier(value: Any) -> bool:
    return any(leaf is _EARLIER for leaf in pytree.tree_leaves(value))


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", "")).partition(".")[0]
