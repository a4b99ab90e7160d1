"""A recurrence along the parts of one sample in ONNX: the operator, between two reshapes."""

from __future__ import annotations

import numpy as np

from edge_gru.engines.cells import CELLS
from edge_gru.engines.walk import DIRECTIONS
from edge_gru.manifest import StepNode
from quantization.cells import ONNX_CELLS, reordered
from quantization.graph_builder import GraphBuilder
from quantization.step_model import Array


def write_walk(b: GraphBuilder, node: StepNode) -> None:
    """Add the operation ``Walk`` of ``edge_gru.engines.walk``."""
    (y,), kind = node.outputs, str(node.attributes["kind"])
    direction = str(node.attributes["direction"])
    x, w_ih, w_hh, b_ih, b_hh, *starts = node.inputs
    form = ONNX_CELLS[kind]

    def of(name: str) -> Array:
        order = CELLS[kind].gates, form.gates
        return np.stack([reordered(value, *order) for value in b.weight(name)])

    n_directions, n_hidden = len(DIRECTIONS[direction]), b.weight(w_hh).shape[2]
    n_parts = int(str(node.attributes["n_parts"]))
    parts = _reshaped(b, x, f"{y}.in_parts", [-1, n_parts, b.weight(w_ih).shape[2]])
    inputs = [b.add("Transpose", [parts], f"{y}.parts", perm=[1, 0, 2])]
    inputs += [b.constant(f"{name}.onnx", of(name)) for name in (w_ih, w_hh)]
    inputs.append(b.constant(f"{y}.b", np.concatenate([of(b_ih), of(b_hh)], axis=1)))
    inputs.append("")
    for k, start in enumerate(starts):
        inputs.append(_start(b, start, f"{y}.start_{k}", (parts, n_directions, n_hidden)))
    attributes = {**form.attributes, "direction": direction, "hidden_size": n_hidden}
    if "activations" in attributes:
        attributes["activations"] = list(attributes["activations"]) * n_directions
    b.add_many(str(form.operator), inputs, [f"{y}.all"], **attributes)
    rows = b.add("Transpose", [f"{y}.all"], f"{y}.rows", perm=[2, 0, 1, 3])
    width = b.constant(f"{y}.flat", np.array([0, -1]))
    b.add("Reshape", [rows, width], y)


def _reshaped(b: GraphBuilder, value: str, name: str, shape: list[int]) -> str:
    return b.add("Reshape", [value, b.constant(f"{name}.shape", np.array(shape))], name)


def _start(b: GraphBuilder, start: str, name: str, like: tuple[str, int, int]) -> str:
    """Add a state (D, batch, H): of the rows of a value, or of a constant for all of them."""
    parts, n_directions, n_hidden = like
    if start not in b.weights:
        rows = _reshaped(b, start, f"{name}.rows", [-1, n_directions, n_hidden])
        return b.add("Transpose", [rows], name, perm=[1, 0, 2])
    row = b.constant(f"{name}.row", b.weight(start).reshape(n_directions, 1, n_hidden))
    sizes = b.add("Shape", [parts], f"{name}.sizes")
    batch = b.add("Gather", [sizes, b.constant("axis_0", np.array([0]))], f"{name}.batch")
    ends = [
        b.constant(f"{name}.{k}", np.array([v])) for k, v in (("d", n_directions), ("h", n_hidden))
    ]
    shape = b.add("Concat", [ends[0], batch, ends[1]], f"{name}.shape", axis=0)
    return b.add("Expand", [row, shape], name)
