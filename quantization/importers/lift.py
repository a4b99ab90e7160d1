"""A graph traced at one time step to a step model: the recurrence lifted out, the rest flattened.

At one time step every tensor is some rows of values, whatever axes the trainer gave it. So each
node becomes an operation on ``(batch, n)`` arrays, and its result is compared with the traced one.
"""

from __future__ import annotations

import numpy as np
import onnx

from edge_gru.errors import ModelError
from edge_gru.manifest import Program, StateInfo, StepNode
from quantization.importers.emitter import Emitter
from quantization.importers.flatten import RULES, attributes_of, flatten_other
from quantization.importers.trace import Array, Trace
from quantization.step_model import GATES, StepModel

_RECURRENT = ("GRU", "LSTM", "RNN")


def lift(trace: Trace, output: str) -> tuple[StepModel, tuple[str, ...]]:
    """Turn a trace into a step model.

    Returns the model, and remarks on nodes that do nothing at one step but may over many: the
    suspects, should the proof on whole sequences fail.

    Raises:
        ModelError: without recurrence, starting from a state that is not zero, or with a node that
            cannot be a step; names the node and the reason.
    """
    emitter = Emitter(trace)
    for node in _needed(trace, output):
        if node.op_type in _RECURRENT:
            _emit_gru(emitter, node)
        elif not (node.op_type in RULES and RULES[node.op_type](emitter, node)):
            flatten_other(emitter, node)
    if not emitter.states:
        raise ModelError(
            "expected a model with GRU layers (torch nn.GRU, ONNX GRU), got one without memory"
        )
    model = StepModel(
        program=Program(tuple(emitter.nodes), emitter.name_of(output), emitter.opset),
        weights=emitter.weights,
        states=tuple(emitter.states),
        n_in=emitter.width(trace.x),
        n_out=emitter.width(output),
    )
    return model, tuple(emitter.suspects)


def _needed(trace: Trace, output: str) -> list[onnx.NodeProto]:
    """Nodes on the way from x to the output, in order; an initial state is not on the way."""
    wanted, nodes = {output}, []
    for node in reversed(trace.model.graph.node):
        if wanted.isdisjoint(node.output) or trace.varying.isdisjoint(node.output):
            continue
        nodes.append(node)
        wanted.update(node.input[:1] if node.op_type in _RECURRENT else node.input)
    return nodes[::-1]


def _emit_gru(emitter: Emitter, node: onnx.NodeProto) -> None:
    _check_initial_state(emitter.trace, node)
    index = len(emitter.states)
    cell, state = f"gru_{index:02d}", f"state_{index:02d}_h"
    w_ih, w_hh = (emitter.trace.values[name][0] for name in node.input[1:3])
    n_hidden = w_hh.shape[1]
    has_bias = len(node.input) > 3 and node.input[3]
    bias = emitter.trace.values[node.input[3]][0] if has_bias else np.zeros(2 * len(w_hh))
    b_ih, b_hh = np.split(bias, 2)
    for name, value in (("w_ih", w_ih), ("w_hh", w_hh), ("b_ih", b_ih), ("b_hh", b_hh)):
        emitter.constant(f"{cell}.{name}", _in_torch_order(value.astype(np.float32)))
    emitter.states.append(StateInfo(state, n_hidden, bound=1.0))
    inputs = (emitter.name_of(node.input[0]), state)
    emitter.nodes.append(StepNode("GRU", inputs, (f"{state}_out",), {"cell": cell}))
    for name in filter(None, node.output):
        emitter.alias(name, f"{state}_out")


def _in_torch_order(value: Array) -> Array:
    """Reorder gates from ONNX's z, r, h to PyTorch's r, z, n."""
    z, r, n = np.split(value, GATES)
    return np.concatenate([r, z, n])


def check_cells(graph: onnx.GraphProto) -> None:
    """Refuse recurrent operators that are no causal GRU with PyTorch's equations.

    Raises:
        ModelError: bidirectional or backwards, no GRU, another reset convention or activation.
    """
    for node in graph.node:
        if node.op_type in _RECURRENT:
            _check_cell(node)


def _check_cell(node: onnx.NodeProto) -> None:
    attributes, who = attributes_of(node), _who(node)
    if attributes.get("direction", "forward") != "forward":
        raise ModelError(
            f"{who} is {attributes['direction']}: it reads the future, which a stream does not "
            "have; train it with bidirectional=False"
        )
    if node.op_type != "GRU":
        raise ModelError(f"expected GRU layers, got {who}")
    if not attributes.get("linear_before_reset", 0):
        raise ModelError(
            f"{who} has linear_before_reset=0: it resets before the recurrent product, unlike "
            "torch.nn.GRU and Keras's reset_after=True; if it was trained in PyTorch, the exporter "
            "lost it (onnxscript before 0.7.1): export it again"
        )
    activations = [_text(name).lower() for name in attributes.get("activations", [])]
    if activations not in ([], ["sigmoid", "tanh"]) or attributes.get("clip"):
        raise ModelError(
            f"expected {who} with Sigmoid and Tanh and without clip, got "
            f"{activations or 'a clip'}: its INT8 grid rests on |h| <= 1"
        )


def _check_initial_state(trace: Trace, node: onnx.NodeProto) -> None:
    lengths, initial = ([*node.input, "", "", ""])[4:6]
    who = _who(node)
    if lengths and not (trace.is_constant(lengths) and (trace.values[lengths] == 1).all()):
        raise ModelError(f"{who} takes sequence lengths; expected none: a stream has no end")
    if not initial:
        return
    if initial in trace.varying:
        raise ModelError(f"{who} starts from a state computed from x; a stream has no first sample")
    if np.any(trace.values[initial]):
        raise ModelError(f"{who} starts from a constant that is not zero; expected zero")


def _who(node: onnx.NodeProto) -> str:
    return f"{node.op_type} ({node.name or node.output[0]})"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
