"""ONNX files as exporters write them; a plain twin of each runs in onnxruntime from any state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

N_IN, N_HIDDEN, N_OUT = 3, 6, 2
KINDS: dict[str, tuple[str, int, int, dict[str, Any]]] = {  # operator, gates, states, attributes
    "gru": ("GRU", 3, 1, {"linear_before_reset": 1}),
    "gru_reset_first": ("GRU", 3, 1, {"linear_before_reset": 0}),
    "lstm": ("LSTM", 4, 2, {}),
    "rnn_tanh": ("RNN", 1, 1, {}),
    "rnn_relu": ("RNN", 1, 1, {"activations": ["Relu"]}),
}


@dataclass(frozen=True)
class Spec:
    """What a file is like. ``start``: absent, constant, input; ``n_steps``: None is dynamic."""

    kind: str
    layout: int = 0
    n_steps: int | None = None
    n_rows: int | None = None
    start: str = "absent"
    opset: int = 17
    reshapes: bool = False
    has_bias: bool = True

    @property
    def n_states(self) -> int:
        return KINDS[self.kind][2]


def weights_of(kind: str) -> dict[str, np.ndarray]:
    _, n_gates, n_states, _ = KINDS[kind]
    rng = np.random.default_rng(len(kind))
    gain = 0.25 if kind == "rnn_relu" else 0.6
    rows = n_gates * N_HIDDEN
    shapes = {"w": (1, rows, N_IN), "r": (1, rows, N_HIDDEN), "b": (1, 2 * rows)}
    shapes |= {f"start_{k}": (1, 1, N_HIDDEN) for k in range(n_states)}
    shapes |= {"head": (N_HIDDEN, N_OUT), "head_b": (N_OUT,)}
    return {name: rng.normal(0, gain, shape).astype(np.float32) for name, shape in shapes.items()}


def build(spec: Spec) -> onnx.ModelProto:
    """One recurrent operator and a linear head; (B, T, n) for layout 1, else (T, B, n)."""
    op, _, n_states, attributes = KINDS[spec.kind]
    constants = weights_of(spec.kind)
    inputs = [_value("x", _axes(spec, N_IN))]
    outputs = [_value("y", [None, None, N_OUT])]
    starts = [""] * n_states
    if spec.start == "input":
        starts = [f"start_{k}" for k in range(n_states)]
        state = [1, "batch", N_HIDDEN] if spec.layout == 0 else ["batch", 1, N_HIDDEN]
        inputs += [_value(name, state) for name in starts]
        outputs += [_value(f"start_{k}_out", state) for k in range(n_states)]
        constants = {k: v for k, v in constants.items() if not k.startswith("start")}
    elif spec.start == "constant":
        starts = [f"start_{k}" for k in range(n_states)]
    bias = "b" if spec.has_bias else ""
    last = [f"start_{k}_out" for k in range(n_states)]
    rnn = helper.make_node(
        op,
        ["x", "w", "r", bias, "", *starts],
        ["all", *last],
        hidden_size=N_HIDDEN,
        **attributes,
        **({"layout": 1} if spec.layout else {}),
    )
    nodes = [rnn, *_without_direction(spec, constants)]
    nodes.append(helper.make_node("MatMul", ["h", "head"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "head_b"], ["y"]))
    return _model(nodes, inputs, outputs, constants, spec.opset)


def _without_direction(spec: Spec, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """Take the axis of directions out of the operator's output, as exporters do."""
    axis = 2 if spec.layout else 1
    if spec.reshapes:  # the sizes that the file was exported for
        constants["target"] = np.array([*_axes(spec, N_HIDDEN)])
        return [helper.make_node("Reshape", ["all", "target"], ["h"])]
    if spec.opset < 13:
        return [helper.make_node("Squeeze", ["all"], ["h"], axes=[axis])]
    constants["axis"] = np.array([axis])
    return [helper.make_node("Squeeze", ["all", "axis"], ["h"])]


def _axes(spec: Spec, width: int) -> list[int | str]:
    sizes = [spec.n_steps or "time", spec.n_rows or "batch"]
    return [*(sizes[::-1] if spec.layout else sizes), width]


def _model(nodes, inputs, outputs, constants, opset=17) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items() if k in used]
    graph = helper.make_graph(nodes, "net", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def _value(name: str, dims: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def run_twin(spec: Spec, x: np.ndarray, states: list[np.ndarray]) -> np.ndarray:
    """The same network, plain and from given states: (T, n) -> (T, n_out)."""
    twin = replace(spec, layout=0, n_steps=None, n_rows=None, start="input", opset=17)
    return run(build(replace(twin, reshapes=False)), x, states)


def run(model: onnx.ModelProto, x: np.ndarray, states: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {f"start_{k}": value.reshape(1, 1, -1) for k, value in enumerate(states)}
    return session.run(["y"], {"x": x[:, None], **feed})[0][:, 0]


def one_step(kind: str, names: tuple[str, str] = ("{}_in", "{}_out")) -> onnx.ModelProto:
    """A graph that is one step already: x (B, n) and states in, y and states out."""
    op, _, n_states, attributes = KINDS[kind]
    constants = {**weights_of(kind), "axis": np.array([0]), "both": np.array([0, 1])}
    ins, outs = ([n.format("hc"[k]) for k in range(n_states)] for n in names)
    states = [f"3d_{k}" for k in range(n_states)]
    new = [f"new_{k}" for k in range(n_states)]
    nodes = [helper.make_node("Unsqueeze", ["x", "axis"], ["x_3d"])]
    nodes += [
        helper.make_node("Unsqueeze", [name, "axis"], [to])
        for name, to in zip(ins, states, strict=True)
    ]
    inputs = ["x_3d", "w", "r", "b", "", *states]
    attributes = {**attributes, "hidden_size": N_HIDDEN}
    nodes.append(helper.make_node(op, inputs, ["all", *new], **attributes))
    nodes += [
        helper.make_node("Squeeze", [name, "axis"], [to])
        for name, to in zip(new, outs, strict=True)
    ]
    nodes.append(helper.make_node("Squeeze", ["all", "both"], ["h"]))
    nodes.append(helper.make_node("MatMul", ["h", "head"], ["product"]))
    nodes.append(helper.make_node("Add", ["product", "head_b"], ["y"]))
    values = [_value(name, ["batch", N_HIDDEN]) for name in ins]
    ends = [_value(name, ["batch", N_HIDDEN]) for name in outs]
    x, y = _value("x", ["batch", N_IN]), _value("y", ["batch", N_OUT])
    return _model(nodes, [x, *values], [y, *ends], constants)


def keras(kind: str) -> onnx.ModelProto:
    """As tf2onnx writes keras.layers.GRU and LSTM: batch first, transposes, a start by shape."""
    op, _, n_states, attributes = KINDS[kind]
    constants = {
        **weights_of(kind),
        "const_starts": np.array([1]),
        "const_ends": np.array([2]),
        "const_one": np.array([1]),
        "const_units": np.array([N_HIDDEN]),
        "const_axis": np.array([1]),
    }
    starts = ["" if k < 0 else "zeros" for k in range(n_states)]
    zero = numpy_helper.from_array(np.zeros(1, np.float32))
    nodes = [
        helper.make_node("Transpose", ["x"], ["x_t"], perm=[1, 0, 2], name="model/rnn/transpose"),
        helper.make_node("Shape", ["x_t"], ["shape"]),
        helper.make_node("Slice", ["shape", "const_starts", "const_ends"], ["batch"]),
        helper.make_node("Concat", ["const_one", "batch", "const_units"], ["start_shape"], axis=0),
        helper.make_node("ConstantOfShape", ["start_shape"], ["zeros"], value=zero),
        helper.make_node(
            op,
            ["x_t", "w", "r", "b", "", *starts],
            ["all", "last"],
            name="model/rnn/while",
            hidden_size=N_HIDDEN,
            direction="forward",
            **attributes,
        ),
        helper.make_node("Squeeze", ["all", "const_axis"], ["sequence"]),
        helper.make_node("Transpose", ["sequence"], ["h"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["h", "head"], ["model/dense/Tensordot"]),
        helper.make_node("Add", ["model/dense/Tensordot", "head_b"], ["y"]),
    ]
    x = _value("x", ["unk__1", "unk__2", N_IN])
    y = _value("y", ["unk__1", "unk__2", N_OUT])
    return _model(nodes, [x], [y], constants, opset=15)


def with_attribute(kind: str, **attributes: Any) -> onnx.ModelProto:
    model = build(Spec(kind))
    rnn = model.graph.node[0]
    kept = [a for a in rnn.attribute if a.name not in attributes]
    del rnn.attribute[:]
    rnn.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])
    return model


def with_peepholes(value: float = 0.3) -> onnx.ModelProto:
    model = build(Spec("lstm"))
    peepholes = np.full((1, 3 * N_HIDDEN), value, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(peepholes, "p"))
    del model.graph.node[0].input[4:]
    model.graph.node[0].input.extend(["", "", "", "p"])
    return model


def without_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    kept = [output for output in model.graph.output if output.name != name]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def crossed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return each state under the other's name."""
    return renamed(model, {"h_out": "c_out", "c_out": "h_out"})


def stack(
    kinds: list[str], activations: list[str], sizes: list[int], *, batch_first: bool, seed: int
) -> onnx.ModelProto:
    """Recurrent operators of any kinds on each other, with a layer and an activation between."""
    rng = np.random.default_rng(seed)
    constants: dict[str, np.ndarray] = {"axis": np.array([1])}
    nodes, below = [], "x"
    if batch_first:
        nodes, below = [helper.make_node("Transpose", ["x"], ["x_t"], perm=[1, 0, 2])], "x_t"

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.7 / np.sqrt(shape[-1]), shape).astype(np.float32)

    width = sizes[0]
    for k, kind in enumerate(kinds):
        op, n_gates, _, attributes = KINDS[kind]
        n_hidden, n_top = sizes[1 + k], sizes[4 - k]
        rows = n_gates * n_hidden
        shapes = {"w": (1, rows, width), "r": (1, rows, n_hidden), "b": (1, 2 * rows)}
        names = {name: f"{name}_{k}" for name in shapes}
        constants |= {names[name]: normal(*shape) for name, shape in shapes.items()}
        if kind == "rnn_relu":  # else it may grow without end
            reach = np.abs(constants[names["r"]]).sum(axis=2).max()
            constants[names["r"]] *= np.float32(min(1.0, 0.9 / reach))
        constants[f"m_{k}"] = normal(n_hidden, n_top)
        inputs = [below, *names.values()]
        nodes.append(helper.make_node(op, inputs, [f"all_{k}"], hidden_size=n_hidden, **attributes))
        nodes.append(helper.make_node("Squeeze", [f"all_{k}", "axis"], [f"h_{k}"]))
        nodes.append(helper.make_node("MatMul", [f"h_{k}", f"m_{k}"], [f"p_{k}"]))
        below, width = f"p_{k}", n_top
        if k < len(activations):
            nodes.append(helper.make_node(activations[k], [below], [f"act_{k}"]))
            below = f"act_{k}"
    if batch_first:
        nodes.append(helper.make_node("Transpose", [below], ["y"], perm=[1, 0, 2]))
    else:
        nodes.append(helper.make_node("Identity", [below], ["y"]))
    axes = ["batch", "time"] if batch_first else ["time", "batch"]
    return _model(nodes, [_value("x", [*axes, sizes[0]])], [_value("y", [*axes, width])], constants)


def run_stack(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Run a stack from zero; the names of its axes say which is the batch."""
    axis = 0 if model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch" else 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.take(session.run(["y"], {"x": np.expand_dims(x, axis)})[0], 0, axis)
