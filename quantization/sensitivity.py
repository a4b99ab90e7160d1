"""What every tensor of the step would cost on 8 bits, alone, with all else float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_gru.engines.base import Float32
from quantization.comparison import Samples, compare
from quantization.probe import probe
from quantization.rounding import round_rows
from quantization.stream import JoinedStream
from quantization.twins import Twins, candidate_opener, float_graph

Constants = Mapping[str, np.ndarray]

_N_STREAMS, _N_STEPS = 32, 1024  # 32,768 samples: enough to rank
_INT8_MAX, _UINT8_MAX = 127, 255
_PRODUCTS = ("MatMul", "Gemm")
_GATES = {"Sigmoid": _UINT8_MAX, "Tanh": _INT8_MAX}


class Sensitivity(msgspec.Struct, frozen=True):
    """SQNR of the outputs with one tensor on 8 bits and everything else float."""

    tensor: str
    kind: str
    grid: str
    sqnr_db: float


class _Variant(msgspec.Struct, frozen=True):
    tensor: str
    kind: str
    grid: str
    graph: bytes


def sensitivity(twins: Twins, stream: JoinedStream, samples: Samples) -> list[Sensitivity]:
    """Quantize each weight, operand and gate of the float step alone; the most costly first.

    ``samples`` give the largest value of operands that have no bound. States are carried in float
    throughout: only what a product reads of them is narrowed.
    """
    graph = float_graph(twins.source)
    variants = {f"{v.kind} {v.tensor}": v for v in _variants(twins, graph, samples)}
    if not variants:
        return []
    openers = {name: candidate_opener(twins.source, v.graph) for name, v in variants.items()}
    short = JoinedStream(
        stream.sequences,
        _N_STREAMS,
        _N_STEPS,
        has_holds=stream.has_holds,
        held=stream.held,
        seed=stream.seed,
        resets=stream.resets,
        begins_anywhere=True,
    )
    # Not from zero: that may be where the float network itself is undecided where to go.
    places = np.linspace(0, len(samples.x) - 1, _N_STREAMS).astype(int)
    starts = {name: values[places] for name, values in samples.fp32.items()}
    found = compare(twins.fp32, openers, short, starts=starts).deviations
    rows = [
        Sensitivity(v.tensor, v.kind, v.grid, found[name].sqnr_db) for name, v in variants.items()
    ]
    return sorted(rows, key=lambda row: row.sqnr_db)


def _variants(twins: Twins, graph: onnx.ModelProto, samples: Samples) -> Iterator[_Variant]:
    constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    products = [
        k
        for k, node in enumerate(graph.graph.node)
        if node.op_type in _PRODUCTS and _is_matrix(constants.get(node.input[1]))
    ]
    inputs = [graph.graph.node[k].input[0] for k in products]
    known = _looked_at(twins, graph, inputs, samples)
    bounds: dict[str, float | None] = {s.name: s.bound for s in twins.manifest.states}
    for k in products:
        node = graph.graph.node[k]
        weight = node.input[1].removesuffix("_t")
        yield _Variant(
            weight, "weight", "int8, one scale a row", _narrow_weight(graph, k, constants)
        )
        operand = node.input[0]
        largest = bounds.get(operand) or float(np.abs(known[operand]).max()) or 1.0
        fixed = "fixed" if bounds.get(operand) else "largest seen"
        yield _Variant(
            f"{operand} into {weight}",
            "operand",
            f"int8, {largest:.3g}/127, {fixed}",
            _narrow_operand(graph, k, largest),
        )
    for k, node in enumerate(graph.graph.node):
        if node.op_type in _GATES:
            steps = _GATES[node.op_type]
            grid = f"{'u' if steps == _UINT8_MAX else ''}int8, 1/{steps}"
            yield _Variant(node.output[0], "gate", grid, _narrow_output(graph, k, steps))


def _looked_at(
    twins: Twins, graph: onnx.ModelProto, names: list[str], samples: Samples
) -> dict[str, Float32]:
    """Evaluate operands on the samples, and at the ends of the calibrated range."""
    ends = twins.manifest.input_range
    x = np.concatenate([samples.x, np.array([ends.minimum, ends.maximum], np.float32)])
    states = {name: np.concatenate([v, v[:2]]) for name, v in samples.fp32.items()}
    return {"x": x, **states, **probe(graph, names, x, states)}


def _is_matrix(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.ndim == 2 and constant.dtype == np.float32


def _copy(graph: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(graph)
    return copied


def _narrow_weight(graph: onnx.ModelProto, k: int, constants: Constants) -> bytes:
    changed = _copy(graph)
    node = changed.graph.node[k]
    weight = constants[node.input[1]]
    is_transposed = any(a.name == "transB" and a.i for a in node.attribute)
    rows = round_rows(weight if is_transposed else weight.T).values
    name = f"{node.input[1]}_narrowed"
    tensor = rows if is_transposed else rows.T
    changed.graph.initializer.append(
        numpy_helper.from_array(np.ascontiguousarray(tensor, np.float32), name)
    )
    node.input[1] = name
    return changed.SerializeToString()


def _narrow_operand(graph: onnx.ModelProto, k: int, largest: float) -> bytes:
    changed = _copy(graph)
    operand = changed.graph.node[k].input[0]
    nodes = _rounding(changed, operand, f"{operand}_narrowed", largest / _INT8_MAX, _INT8_MAX)
    changed.graph.node[k].input[0] = f"{operand}_narrowed"
    _insert(changed, k, nodes)
    return changed.SerializeToString()


def _narrow_output(graph: onnx.ModelProto, k: int, steps: int) -> bytes:
    changed = _copy(graph)
    node = changed.graph.node[k]
    name = node.output[0]
    node.output[0] = f"{name}_wide"
    _insert(changed, k + 1, _rounding(changed, f"{name}_wide", name, 1 / steps, steps))
    return changed.SerializeToString()


def _rounding(
    graph: onnx.ModelProto, source: str, result: str, step: float, steps: int
) -> list[onnx.NodeProto]:
    """Write ``step * clip(round(source / step))`` in float operators, which no runtime fuses."""
    constants = {"step": step, "low": float(-steps), "high": float(steps)}
    graph.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), f"{result}.{name}")
        for name, value in constants.items()
    )
    return [
        helper.make_node("Div", [source, f"{result}.step"], [f"{result}.scaled"]),
        helper.make_node("Round", [f"{result}.scaled"], [f"{result}.rounded"]),
        helper.make_node(
            "Clip", [f"{result}.rounded", f"{result}.low", f"{result}.high"], [f"{result}.clipped"]
        ),
        helper.make_node("Mul", [f"{result}.clipped", f"{result}.step"], [result]),
    ]


def _insert(graph: onnx.ModelProto, place: int, nodes: list[onnx.NodeProto]) -> None:
    every = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*every[:place], *nodes, *every[place:]])
