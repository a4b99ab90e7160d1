"""Nodes and constants of an ONNX graph while it is written; every value has a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from quantization.step_model import Array


class GraphBuilder:
    """Collects nodes, and the constants that they use, once each."""

    def __init__(self, weights: Mapping[str, Array], opset: int) -> None:
        self.weights = weights
        self._opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    @property
    def constants(self) -> list[onnx.TensorProto]:
        """The constants that nodes use."""
        return list(self._constants.values())

    def constant(self, name: str, value: Array) -> str:
        """Add a constant, unless there is one of that name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def weight(self, name: str) -> Array:
        """Return an array of the model."""
        return self.weights[name]

    def operand(self, name: str) -> str:
        """Name a value; one of the weights becomes a constant of the graph."""
        return self.constant(name, self.weights[name]) if name in self.weights else name

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output, and return its name."""
        self.add_many(op, inputs, [output], **attributes)
        return output

    def add_many(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        """Add a node."""
        name = f"{outputs[-1]}_{op}"
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))

    def split_in_two(self, value: str, outputs: list[str]) -> None:
        """Add a Split of the rows into two halves, however many there are."""
        counted = {"num_outputs": 2} if self._opset >= 18 else {}
        self.add_many("Split", [value], outputs, axis=0, **counted)
