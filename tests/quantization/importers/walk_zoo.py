"""Networks that walk along the channels of each sample, and keep a state over time beside that."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper


def _load(name: str) -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


zoo = _load("onnx_zoo")
N_HIDDEN = 4
DIRECTIONS = ("forward", "reverse", "bidirectional")


def build(
    kind: str,
    direction: str,
    *,
    start: str = "zero",
    read: str = "all",
    layout: int = 0,
    lengths: int | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """x (T, B, n), each sample n values of a walk, then a GRU over time from ``start_0``.

    ``start`` of the walk: zero, constant, or computed from the sample. ``read`` of it: all, last.
    """
    op, n_gates, n_states, given = zoo.KINDS[kind]
    rng = np.random.default_rng(7)
    n_directions, rows = (2 if direction == "bidirectional" else 1), n_gates * N_HIDDEN
    if "activations" in given:
        given = {"activations": given["activations"] * n_directions}
    width = n_directions * N_HIDDEN * (zoo.N_IN if read == "all" else 1)
    shapes = {
        "across.w": (n_directions, rows, 1),
        "across.r": (n_directions, rows, N_HIDDEN),
        "across.b": (n_directions, 2 * rows),
        "across.start": (n_directions, 1, N_HIDDEN),
        "start.w": (zoo.N_IN, n_directions * N_HIDDEN),
        "w": (1, 3 * zoo.N_HIDDEN, width),
    }
    constants = {k: rng.normal(0, 0.5, v).astype(np.float32) for k, v in shapes.items()}
    constants |= {k: v for k, v in zoo.weights_of("gru").items() if k in ("r", "b")}
    constants |= {
        "parts": np.array([-1, zoo.N_IN, 1]),
        "states": np.array([-1, n_directions, N_HIDDEN]),
        "axis": np.array([1]),
        "lengths": np.full(1, lengths or 0, np.int32),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "parts"], ["x.rows"]),
        helper.make_node("Shape", ["x"], ["x.shape"]),
        helper.make_node("Slice", ["x.shape", "zero", "two"], ["x.outer"]),
        helper.make_node("Concat", ["x.outer", "width"], ["outer"], axis=0),
    ]
    constants |= {"zero": np.array([0]), "two": np.array([2]), "width": np.array([width])}
    starts = [""] * n_states
    if start == "constant":
        nodes.append(helper.make_node("Shape", ["x.rows"], ["rows.shape"]))
        nodes.append(helper.make_node("Slice", ["rows.shape", "zero", "axis"], ["n_rows"]))
        constants |= {"d": np.array([n_directions]), "h": np.array([N_HIDDEN])}
        nodes.append(helper.make_node("Concat", ["d", "n_rows", "h"], ["start.shape"], axis=0))
        nodes.append(helper.make_node("Expand", ["across.start", "start.shape"], ["start"]))
        starts = ["start", *([""] * (n_states - 1))]
    elif start == "computed":
        nodes += [
            helper.make_node("MatMul", ["x", "start.w"], ["start.product"]),
            helper.make_node("Tanh", ["start.product"], ["start.tanh"]),
            helper.make_node("Reshape", ["start.tanh", "states"], ["start.rows"]),
            helper.make_node("Transpose", ["start.rows"], ["start"], perm=[1, 0, 2]),
        ]
        starts = ["start", *([""] * (n_states - 1))]
    walked = "x.rows"
    if layout == 0:
        nodes.append(helper.make_node("Transpose", ["x.rows"], ["x.parts"], perm=[1, 0, 2]))
        walked = "x.parts"
    outputs = ["across.all", ""] if read == "all" else ["", "across.last"]
    if read == "c":
        outputs = ["", "", "across.last"]
    nodes.append(
        helper.make_node(
            op,
            [walked, "across.w", "across.r", "across.b", "lengths" if lengths else "", *starts],
            outputs,
            name="across",
            direction=direction,
            hidden_size=N_HIDDEN,
            **{**given, **attributes, **({"layout": 1} if layout else {})},
        )
    )
    perm = ([0, 1, 2, 3] if read == "all" else [0, 1, 2]) if layout else None
    perm = perm or ([2, 0, 1, 3] if read == "all" else [1, 0, 2])
    across = "across.all" if read == "all" else "across.last"
    nodes += [
        helper.make_node("Transpose", [across], ["across.rows"], perm=perm),
        helper.make_node("Reshape", ["across.rows", "outer"], ["features"]),
        helper.make_node(
            "GRU",
            ["features", "w", "r", "b", "", "start_0"],
            ["over_time", "start_0_out"],
            hidden_size=zoo.N_HIDDEN,
            linear_before_reset=1,
        ),
        helper.make_node("Squeeze", ["over_time", "axis"], ["y"]),
    ]
    state = [1, "batch", zoo.N_HIDDEN]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "across",
        [value("x", 1, ["time", "batch", zoo.N_IN]), value("start_0", 1, state)],
        [value("y", 1, ["time", "batch", zoo.N_HIDDEN]), value("start_0_out", 1, state)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def run(model: onnx.ModelProto, x: np.ndarray, states: list[np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": x[:, None], "start_0": states[0].reshape(1, 1, -1)})[0][:, 0]


def all_models() -> dict[str, tuple[onnx.ModelProto, onnx.ModelProto]]:
    """Name -> the file, and the same network as onnxruntime runs it."""
    found = {}
    for kind in zoo.KINDS:
        for direction in DIRECTIONS:
            model = build(kind, direction)
            found[f"{kind} {direction} over channels"] = (model, model)
        for start, read in (("constant", "all"), ("computed", "last")):
            model = build(kind, "bidirectional", start=start, read=read)
            found[f"{kind} over channels, {start} start, {read}"] = (model, model)
    layout = build("lstm", "bidirectional", layout=1), build("lstm", "bidirectional")
    found["lstm over channels, layout 1"] = layout
    lengths = build("gru", "reverse", lengths=zoo.N_IN), build("gru", "reverse")
    found["gru over channels, all lengths given"] = lengths
    return found
