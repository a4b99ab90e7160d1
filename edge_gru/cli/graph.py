"""The step of a bundle as a tree of text, from what it answers down to what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from rich.text import Text
from rich.tree import Tree

from edge_gru.bundle import Bundle
from edge_gru.engines.tensors import WEIGHTS
from edge_gru.manifest import Manifest, StepNode

Weights = Mapping[str, npt.NDArray[Any]]


def step_tree(bundle: Bundle) -> Tree:
    """Draw the program: every operation once, its operands below it, its weights beside it."""
    manifest = bundle.manifest
    weights = bundle.source.tensors(WEIGHTS) if WEIGHTS in bundle.parts else {}
    drawing = _Drawing(manifest, weights)
    root = Tree(Text(f"{manifest.name}: one step, {manifest.default_precision}"))
    answer = root.add(Text(f"y ({', '.join(manifest.outputs)})"))
    drawing.add(answer, manifest.program.output)
    for state in manifest.states:
        drawing.add(root.add(Text(f"{state.name}_out, carried on in float32")), f"{state.name}_out")
    return root


_INTEGERS = ("_q", "_q4", "_scale", "_operand_scale", "_operand_gain")


class _Drawing:
    """Knows what makes each value, and what has been drawn."""

    def __init__(self, manifest: Manifest, weights: Weights) -> None:
        self._makers = {name: node for node in manifest.program.nodes for name in node.outputs}
        self._inputs = {"x": f"x ({', '.join(manifest.schema.names)})"}
        self._inputs |= {s.name: f"{s.name} ({s.size}), carried" for s in manifest.states}
        self._weights = weights
        self._drawn: set[str] = set()

    def add(self, tree: Tree, value: str) -> None:
        """Draw a value and all that it is made of; on a stack, however many operations there are.

        Operations with one operand follow each other in one branch.
        """
        waiting = [(tree, value)]
        while waiting:
            above, name = waiting.pop()
            lines, operands = [], [name]
            while len(operands) == 1:
                line, operands = self._line(operands[0])
                lines.append(line)
            branch = above.add(Text("\n  of ".join(lines)))
            waiting += [(branch, operand) for operand in reversed(operands)]

    def _line(self, value: str) -> tuple[str, list[str]]:
        """Describe a value; return what it is made of that is still to be drawn."""
        node = self._makers.get(value)
        if node is None:
            return self._inputs.get(value, value), []
        if value in self._drawn:
            return f"{value}, as above", []
        self._drawn.update(node.outputs)
        operands = [name for name in node.inputs if name and name not in self._weights]
        return f"{value} = {self._title(node)}", operands

    def _title(self, node: StepNode) -> str:
        cell = node.attributes.get("cell")
        inputs = [name for name in node.inputs if name in self._weights]
        names = [
            f"{name}{end}"
            for name in inputs
            for end in ("", *_INTEGERS)
            if f"{name}{end}" in self._weights
        ]
        if cell is not None:
            names += [name for name in self._weights if name.startswith(f"{cell}.")]
        tensors = ", ".join(self._tensor(name) for name in sorted(names))
        return f"{node.op} [{tensors}]" if tensors else node.op

    def _tensor(self, name: str) -> str:
        value = self._weights[name]
        return f"{name} {'x'.join(map(str, value.shape))} {value.dtype}"
