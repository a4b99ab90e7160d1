"""ONNX's recurrent operators over a whole sequence, for runtimes that have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_gru.engines.base import Float32
from edge_gru.engines.cells import CELLS
from quantization.benchmark.latency.weights import OPSET, Weights
from quantization.benchmark.native import N_OUT
from quantization.cells import ONNX_CELLS
from quantization.step_graph import IR_VERSION


def over_time(weights: Weights) -> bytes:
    """Write recurrent operators over a whole sequence, ``x`` (t, n_in) to ``y`` (t, n_out)."""
    form = ONNX_CELLS[weights.cell]
    order = [CELLS[weights.cell].gates.index(gate) for gate in form.gates]

    def gates(value: Float32) -> Float32:
        parts = np.split(value, len(order))
        return np.concatenate([parts[k] for k in order])

    constants: dict[str, Any] = {"one": np.array([1]), "head": weights.arrays["head"]}
    constants["head_bias"] = weights.arrays["head_bias"]
    nodes = [helper.make_node("Unsqueeze", ["x", "one"], ["below_0"])]
    for k in range(weights.n_layers):
        w = weights.layer(k)
        biases = np.concatenate([gates(w["b_ih"]), gates(w["b_hh"])])
        made = dict(zip(("w", "r", "b"), (gates(w["w_ih"]), gates(w["w_hh"]), biases), strict=True))
        constants |= {f"{name}_{k}": value[None] for name, value in made.items()}
        inputs = [f"below_{k}", f"w_{k}", f"r_{k}", f"b_{k}"]
        attributes = {"hidden_size": weights.n_hidden, **form.attributes}
        nodes.append(helper.make_node(str(form.operator), inputs, [f"all_{k}"], **attributes))
        nodes.append(helper.make_node("Squeeze", [f"all_{k}", "one"], [f"below_{k + 1}"]))
    top = f"below_{weights.n_layers}"
    nodes.append(helper.make_node("MatMul", [top, "head"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "head_bias"], ["outputs"]))
    nodes.append(helper.make_node("Squeeze", ["outputs", "one"], ["y"]))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["t", n])
        for name, n in (("x", weights.n_in), ("y", N_OUT))
    ]
    made_of = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "sequence", ends[:1], ends[1:], made_of)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
