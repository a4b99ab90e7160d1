"""ONNX files that are no stream, or hold what no engine has, and the reason that must be given."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def _load(name: str) -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


zoo, walks = _load("onnx_zoo"), _load("walk_zoo")
KERAS = Path(__file__).parent / "keras_files"


def _over_rows() -> onnx.ModelProto:
    """A walk along the rows of the batch instead of the channels."""
    model = walks.build("gru", "forward")
    next(n for n in model.graph.node if n.output[0] == "x.parts").attribute[0].ints[:] = [0, 1, 2]
    next(n for n in model.graph.node if n.output[0] == "across.rows").attribute[0].ints[:] = [
        0, 2, 1, 3,
    ]  # fmt: skip
    return model


def _turning_twice() -> onnx.ModelProto:
    """A recurrence that goes over every sequence twice."""
    model = onnx.load(KERAS / "rnn.onnx")
    first = next(node for node in model.graph.node if node.op_type == "Transpose")
    twice = helper.make_node("Concat", [first.output[0], first.output[0]], ["twice"], axis=0)
    for node in model.graph.node:
        node.input[:] = ["twice" if name == first.output[0] else name for name in node.input]
    for node in next(n for n in model.graph.node if n.op_type == "Loop").attribute[0].g.node:
        node.input[:] = ["twice" if name == first.output[0] else name for name in node.input]
    model.graph.node.insert(list(model.graph.node).index(first) + 1, twice)
    return model


def _loop_in_a_loop() -> onnx.ModelProto:
    model = onnx.load(KERAS / "rnn.onnx")
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    last = body.node[-1].output[0]
    branch = helper.make_graph(
        [helper.make_node("Identity", [last], ["chosen"])],
        "branch",
        [],
        [helper.make_tensor_value_info("chosen", onnx.TensorProto.BOOL, [])],
    )
    body.initializer.append(numpy_helper.from_array(np.array(1, bool), "always"))
    node = helper.make_node(
        "If", ["always"], ["go_on"], name="if", then_branch=branch, else_branch=branch
    )
    body.node.append(node)
    body.output[0].name = "go_on"
    return model


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an activation that ONNX does not have": (
        lambda: zoo.with_attribute("gru", activations=["Sigmoid", "Swish"]),
        r"expected GRU \(all\) with activations of ONNX \(Affine, .*\), got 'Swish'",
    ),
    "backwards": (lambda: zoo.with_attribute("lstm", direction="reverse"), "reads the future"),
    "bidirectional GRU of Keras": (
        lambda: onnx.load(KERAS / "gru_bidirectional.onnx"),
        r"GRU \(.*\) is bidirectional: it reads the future",
    ),
    "normalisation of Keras, written for one batch size": (
        lambda: onnx.load(KERAS / "gru_layer_norm.onnx"),
        r"BatchNormalization \(.*layer_normalization.*\) is frozen to one batch size",
    ),
    "a branch in a loop": (_loop_in_a_loop, r"the model has a If \(.*\), a loop or branch"),
    "a loop that goes over a sequence twice": (
        _turning_twice,
        r"expected outputs of shape \(60, 2\) from the model, got \(120, 2\)",
    ),
    "step that loses a state": (
        lambda: zoo.without_output(zoo.one_step("lstm"), "c_out"),
        "to return them, got no output for 'c_in'",
    ),
    "step with crossed states": (
        lambda: zoo.crossed(zoo.one_step("lstm")),
        "step by step it differs",
    ),
    "over channels, with a clip": (
        lambda: walks.build("gru", "bidirectional", clip=0.5),
        r"GRU \(across\) walks along the channels of one sample with other activations, a clip",
    ),
    "over channels, each direction with its own activation": (
        lambda: walks.build("rnn_tanh", "bidirectional", activations=["Tanh", "Relu"]),
        r"RNN \(across\) walks along the channels of one sample with other activations",
    ),
    "over channels, last c read": (
        lambda: walks.build("lstm", "forward", read="c"),
        r"LSTM \(across\) walks along channels, and its last c is read",
    ),
    "over channels, not all of them": (
        lambda: walks.build("gru", "forward", lengths=2),
        "does not run on 60 steps",
    ),
    "over the rows of a batch": (_over_rows, r"GRU \(across\) walks along the rows of a batch"),
}
