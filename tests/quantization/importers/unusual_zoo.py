"""ONNX cells with other activations, a clip, peepholes and coupled gates."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass, field
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


zoo = _load("onnx_zoo")


@dataclass(frozen=True)
class Unusual:
    """A kind of cell and what is unusual about it; ``bounds`` of its states as they must be."""

    kind: str
    bounds: tuple[float | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    has_peepholes: bool = False


def _with(kind: str, bounds: Any, *names: str, peeps: bool = False, **attributes: Any) -> Unusual:
    if names:
        attributes["activations"] = list(names)
    bounds = bounds if isinstance(bounds, tuple) else (bounds,)
    return Unusual(kind, bounds, attributes, has_peepholes=peeps)


def _one_of_each() -> dict[str, Unusual]:
    """Every activation of ONNX where it makes the new values, with parameters of its own."""
    found = {
        "Affine": (None, {"activation_alpha": [0.4], "activation_beta": [0.1]}),
        "Elu": (None, {"activation_alpha": [0.7]}),
        "HardSigmoid": (1.0, {"activation_alpha": [0.3], "activation_beta": [0.4]}),
        "LeakyRelu": (None, {"activation_alpha": [0.2]}),
        "Relu": (None, {}),
        "ScaledTanh": (1.7159, {"activation_alpha": [1.7159], "activation_beta": [0.6667]}),
        "Sigmoid": (1.0, {}),
        "Softplus": (None, {}),
        "Softsign": (1.0, {}),
        "ThresholdedRelu": (None, {"activation_alpha": [0.3]}),
    }
    cases = {}
    for name, (bound, parameters) in found.items():
        for kind in ("gru", "gru_reset_first"):
            cases[f"{kind}, {name}"] = _with(kind, bound, "Sigmoid", name, **parameters)
        lstm = _with("lstm", (1.0, None), "Sigmoid", name, "Tanh", **parameters)
        cases[f"lstm, {name} into c"] = lstm
        h_of_c = _with("lstm", (bound, None), "Sigmoid", "Tanh", name, **parameters)
        cases[f"lstm, {name} of c"] = h_of_c
        if name != "Relu":
            cases[f"rnn, {name}"] = _with("rnn_tanh", bound, name, **parameters)
    return cases


CASES: dict[str, Unusual] = {
    **_one_of_each(),
    "gru of keras 2, hard sigmoid": _with(
        "gru_reset_first", 1.0, "HardSigmoid", "Tanh", activation_alpha=[0.2], activation_beta=[0.5]
    ),
    "gru, hard sigmoid, lower case, defaults": _with("gru", 1.0, "hardsigmoid", "tanh"),
    "gru, gates beyond one": _with(
        "gru", None, "ScaledTanh", "Tanh", activation_alpha=[0.5], activation_beta=[1.0]
    ),
    "gru, clip": _with("gru", float(np.tanh(0.8)), clip=0.8),
    "gru, reset first, clip and relu": _with("gru_reset_first", 0.5, "Sigmoid", "Relu", clip=0.5),
    "rnn, relu and clip": _with("rnn_relu", 0.5, clip=0.5),
    "lstm of keras 2, hard sigmoid": _with("lstm", (1.0, None), "HardSigmoid", "Tanh", "Tanh"),
    "lstm, parameters in order": _with(
        "lstm", (None, None), "HardSigmoid", "Tanh", "LeakyRelu",
        activation_alpha=[0.3, 0.1], activation_beta=[0.4],
    ),
    "lstm, clip": _with("lstm", (1 / (1 + float(np.exp(-0.6))), None), clip=0.6),
    "lstm, peepholes": _with("lstm", (1.0, None), peeps=True),
    "lstm, coupled gates": _with("lstm", (float(np.tanh(1.0)), 1.0), input_forget=1),
    "lstm, peepholes, coupled gates, clip": _with(
        "lstm", (float(np.tanh(np.tanh(0.9)) / (1 + np.exp(-0.9))), float(np.tanh(0.9))),
        peeps=True, input_forget=1, clip=0.9,
    ),
}  # fmt: skip


def build(case: Unusual, spec: Any) -> onnx.ModelProto:
    """The file of ``onnx_zoo`` for this spec, with what is unusual in its recurrent operator."""
    model = zoo.build(spec)
    rnn = next(node for node in model.graph.node if node.op_type in ("GRU", "LSTM", "RNN"))
    kept = [a for a in rnn.attribute if a.name not in case.attributes]
    del rnn.attribute[:]
    given = (helper.make_attribute(k, v) for k, v in case.attributes.items())
    rnn.attribute.extend([*kept, *given])
    if case.has_peepholes:
        peeps = np.random.default_rng(5).normal(0, 0.5, (1, 3 * zoo.N_HIDDEN)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(peeps, "peepholes"))
        rnn.input.extend([""] * (7 - len(rnn.input)))
        rnn.input.append("peepholes")
    return model


def run(case: Unusual, x: np.ndarray, states: list[np.ndarray]) -> np.ndarray:
    return zoo.run(build(case, zoo.Spec(case.kind, start="input")), x, states)
