"""Two tasks with networks that are built, not trained: fixed cells, a readout by least squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_gru.bundle import Bundle
from quantization import quantize
from quantization.calibrate import Calibration
from quantization.twins import Twins, twins_of

TAU = 300


@dataclass(frozen=True)
class Task:
    bundle: Bundle
    judged: Calibration

    @property
    def twins(self) -> Twins:
        return twins_of(self.bundle.source)


@dataclass
class Gru:
    """Gates in ONNX's order z, r, n; the reset gate is applied after the product."""

    w: np.ndarray
    r: np.ndarray
    b: np.ndarray

    @property
    def n_hidden(self) -> int:
        return self.r.shape[1]

    def states(self, x: np.ndarray) -> np.ndarray:
        h, states = np.zeros(self.n_hidden), []
        for row in x @ self.w.T + self.b:
            gh = self.r @ h
            (iz, ir, i_n), (hz, hr, hn) = np.split(row, 3), np.split(gh, 3)
            z, r = 1 / (1 + np.exp(-iz - hz)), 1 / (1 + np.exp(-ir - hr))
            n = np.tanh(i_n + r * hn)
            h = n + z * (h - n)
            states.append(h)
        return np.stack(states)

    def save(self, path: Path, head: np.ndarray) -> Path:
        n_in, n_out = self.w.shape[1], head.shape[1]
        tensors = {
            "w": self.w[None],
            "r": self.r[None],
            "b": np.concatenate([self.b, np.zeros_like(self.b)])[None],
            "head": head[:-1],
            "offset": head[-1],
        }
        constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in tensors.items()]
        constants.append(numpy_helper.from_array(np.array([1]), "axis"))
        nodes = [
            helper.make_node(
                "GRU", ["x", "w", "r", "b"], ["all"],
                hidden_size=self.n_hidden, linear_before_reset=1,
            ),
            helper.make_node("Squeeze", ["all", "axis"], ["h"]),
            helper.make_node("MatMul", ["h", "head"], ["product"]),
            helper.make_node("Add", ["product", "offset"], ["y"]),
        ]  # fmt: skip
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", n_in])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["time", "batch", n_out])
        graph = helper.make_graph(nodes, "gru", [x], [y], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, path)
        return path


def readout(states: np.ndarray, target: np.ndarray) -> np.ndarray:
    a = np.hstack([states, np.ones((len(states), 1))])
    return np.linalg.solve(a.T @ a + 1e-3 * len(a) * np.eye(a.shape[1]), a.T @ target)


def logit(p: np.ndarray | float) -> np.ndarray:
    return np.log(p / (1 - np.asarray(p)))


def long_memory(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A flip-flop held for hundreds of steps, an average over 300, and a distractor."""
    rng = np.random.default_rng(seed)
    pulse = (rng.random(n) < 1 / 200) * rng.choice([-1.0, 1.0], n)
    level = np.repeat(rng.uniform(-1, 1, n // 800 + 1), 800)[:n]
    x = np.stack([3 * pulse, level + rng.normal(0, 0.5, n), rng.normal(0, 1, n)], axis=1)
    y, flip, average = np.empty((n, 2)), 0.0, 0.0
    for t in range(n):
        flip = pulse[t] or flip
        average += (x[t, 1] - average) / TAU
        y[t] = flip, average
    return x.astype(np.float32), y.astype(np.float32)


def long_memory_gru() -> Gru:
    """Eight averages of 20 to 2,000 steps, four flip-flops, four units that mix."""
    rng = np.random.default_rng(1)
    n_hidden = 16
    w, r, b = rng.normal(0, 0.02, (48, 3)), rng.normal(0, 0.02, (48, n_hidden)), np.zeros(48)
    z, n = slice(0, 16), slice(32, 48)
    tau = np.r_[np.geomspace(20, 2000, 8), np.full(4, 1.5), np.full(4, 3.0)]
    tau[4] = TAU
    b[z], b[16:32] = logit(1 - 1 / tau), 4.0
    w[z], r[z], r[16:32] = 0.1 * w[z], 0.1 * r[z], 0.1 * r[16:32]
    w[n][:8, 1] = 0.35  # views: slices write through
    w[n][8:12, 0] = 2.0
    r[n][np.arange(8, 12), np.arange(8, 12)] = 2.0  # two states of rest
    return Gru(w, r, b)


def spiky_wear(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Run to failure again and again: six sensors, two of them with spikes of some 30 sigma."""
    rng = np.random.default_rng(seed)
    gain = np.array([1.0, -0.7, 0.5, 0.8, 0.0, 0.0])
    x, y, t = np.empty((n, 6)), np.empty(n), 0
    while t < n:
        life = min(int(rng.integers(120, 320)), n - t)
        wear = (np.arange(life) / life) ** 2
        x[t : t + life] = wear[:, None] * gain * 2 + rng.normal(0, 0.35, (life, 6))
        x[t : t + life, 4:] += (rng.random((life, 2)) < 0.002) * rng.normal(0, 12, (life, 2))
        y[t : t + life] = 1 - wear
        t += life
    return x.astype(np.float32), y[:, None].astype(np.float32)


def wear_gru() -> Gru:
    """Twenty-four units at random, that remember 2 to 30 steps."""
    rng = np.random.default_rng(2)
    n_hidden = 24
    w, r, b = rng.normal(0, 0.3, (72, 6)), rng.normal(0, 0.15, (72, n_hidden)), np.zeros(72)
    b[:24] = logit(1 - 1 / np.geomspace(2, 30, 24))
    w[:24] *= 0.2
    return Gru(w, r, b)


def make_task(path: Path, gru: Gru, stream: Callable, n: int, n_parts: int) -> Task:
    x, y = stream(n, 11)
    head = readout(gru.states(x), y)
    sequences, targets = np.split(x, n_parts), np.split(y, n_parts)
    bundle = quantize(gru.save(path, head), sequences, targets=targets, metric="rmse")
    x, y = stream(n, 12)
    judged = Calibration(tuple(np.split(x, n_parts)), tuple(np.split(y, n_parts)))
    return Task(bundle, judged)


@pytest.fixture(scope="session")
def long_memory_task(tmp_path_factory) -> Task:
    path = tmp_path_factory.mktemp("long") / "long_memory.onnx"
    return make_task(path, long_memory_gru(), long_memory, 24_000, 6)


@pytest.fixture(scope="session")
def wear_task(tmp_path_factory) -> Task:
    path = tmp_path_factory.mktemp("wear") / "wear.onnx"
    return make_task(path, wear_gru(), spiky_wear, 12_000, 6)


class Defect:
    """The INT8 step with tensors narrowed where they must not be."""

    def __init__(self, twins: Twins) -> None:
        self._twins = twins
        graphs = twins.manifest.precisions["int8"].graphs
        self._part = graphs["cpu"]
        self.graph = onnx.load_from_string(twins.source.part(graphs["step"]))

    def outputs_of(self, op: str) -> list[str]:
        return [node.output[0] for node in self.graph.graph.node if node.op_type == op]

    def narrow(self, tensor: str, step: float, steps: int = 127, readers: str = "") -> Defect:
        """Round a tensor on its way to every reader, or to the operators named."""
        graph = self.graph.graph
        is_output = tensor in {value.name for value in graph.output}
        wide = f"{tensor}_wide" if is_output else tensor
        narrow = tensor if is_output else f"{tensor}_narrow"
        place = 0
        for k, node in enumerate(graph.node):
            if is_output and tensor in node.output:
                node.output[list(node.output).index(tensor)] = wide
            if tensor in node.output or wide in node.output:
                place = k + 1
            elif not readers or node.op_type in readers:
                for i, name in enumerate(node.input):
                    node.input[i] = narrow if name == tensor else name
        values = {"step": step, "low": -steps, "high": steps}
        graph.initializer.extend(
            numpy_helper.from_array(np.array(v, np.float32), f"{narrow}.{k}")
            for k, v in values.items()
        )
        chain = [("Div", "step"), ("Round", ""), ("Clip", "low high"), ("Mul", "step")]
        source = wide
        for i, (op, names) in enumerate(chain):
            target = narrow if i == 3 else f"{narrow}.{op}"
            inputs = [source, *(f"{narrow}.{name}" for name in names.split())]
            graph.node.insert(place + i, helper.make_node(op, inputs, [target]))
            source = target
        return self

    def twins(self) -> Twins:
        onnx.checker.check_model(self.graph)
        source = self._twins.source
        parts = {**source.parts, self._part: self.graph.SerializeToString()}
        return replace(
            self._twins, candidate=twins_of(replace(source, parts=parts)).candidate, others={}
        )


@pytest.fixture
def defect() -> Callable[[Task], Defect]:
    return lambda task: Defect(task.twins)
