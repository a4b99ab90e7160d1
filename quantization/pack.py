"""A step model to a bundle: graphs of every form, weights, golden vectors, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import safetensors.numpy

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.cells import CELLS
from edge_gru.engines.select import open_engine
from edge_gru.engines.tensors import GOLDEN, WEIGHTS
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import (
    Alert,
    GateResult,
    Manifest,
    PrecisionInfo,
)
from edge_gru.state import State
from edge_gru.version import __version__
from firmware_bridge.sample import Schema
from quantization import step_graph
from quantization.calibrate import Calibration
from quantization.evaluate import run_stream, states_along
from quantization.recipe import find_recipe, precision_of
from quantization.rounding import QuantizedRows
from quantization.step_model import StepModel
from quantization.tensorrt_lint import lint

Float32 = npt.NDArray[np.float32]
Tensors = dict[str, npt.NDArray[Any]]

REPORT = "report.json"
_FORMS: dict[str, dict[str, bool]] = {
    "step": {},
    "active": {"active": True},
    "cpu": {"cpu": True},
}
_N_GOLDEN_STEPS = 32
_N_GOLDEN_STREAM = 128

# One step from a given state is tight: a wrong gate order, reset convention or rounding is far
# outside. A free-running stream may part by rounding flips, which cost about as much as the
# quantization itself, but a lost or mixed state leaves nothing of the signal.
_PRECISIONS = {
    "fp32": PrecisionInfo({}, step_tolerance=1e-5, stream_sqnr_db=70.0),
    "fp16": PrecisionInfo({}, step_tolerance=2e-3, stream_sqnr_db=30.0),
    "int8": PrecisionInfo({}, step_tolerance=1e-5, stream_sqnr_db=30.0),
}
_COMPUTED_OPERAND_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Description:
    """What the user says of a model, beside its numbers."""

    name: str
    schema: Schema
    recipe: str
    outputs: tuple[str, ...]
    labels: tuple[str, ...] = ()
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A manifest and parts that engines can be made from, before anything was measured."""

    manifest: Manifest
    parts: Mapping[str, bytes]

    @property
    def source(self) -> EngineSource:
        """What engines are made from."""
        return EngineSource(self.manifest, self.parts)

    def open(self, engine: str, precision: str, n_streams: int = 1) -> Engine:
        """Open an engine on the draft."""
        return open_engine(engine, self.source, n_streams=n_streams, precision=precision)

    def open_definition(self, precision: str) -> Engine:
        """Open the engine that golden vectors come from: the reference if it has the operators."""
        try:
            return self.open("reference", precision)
        except EngineUnavailableError:
            return self.open("onnxruntime", precision)


def draft(
    model: StepModel,
    description: Description,
    calibration: Calibration,
    rows: Mapping[str, QuantizedRows],
) -> Draft:
    """Write every graph; ``rows`` is the quantized recurrent matrix of each cell."""
    recipe = find_recipe(description.recipe)
    weights = with_rows(model.weights, rows)
    # safetensors writes the memory of an array as it lies, transposed ones too.
    in_rows = {name: np.asarray(value, order="C") for name, value in sorted(weights.items())}
    parts = {WEIGHTS: safetensors.numpy.save(in_rows)}
    precisions = {}
    for precision in dict.fromkeys(["fp32", "fp16", precision_of(recipe)]):
        graphs = _graphs(model, weights, precision)
        parts |= dict(graphs.values())
        names = {use: name for use, (name, _) in graphs.items()}
        precisions[precision] = msgspec.structs.replace(_limits(model, precision), graphs=names)
    manifest = Manifest(
        name=description.name,
        producer={"edge-gru": __version__},
        schema=description.schema,
        outputs=description.outputs,
        labels=description.labels,
        normalisation=model.normalisation,
        states=model.states,
        recipe=recipe,
        n_warmup=None,
        precisions=precisions,
        default_precision=precision_of(recipe),
        program=model.program,
        input_range=calibration.input_range,
        alerts=description.alerts,
        calibration_sha256=calibration.sha256,
        parts={},
    )
    return Draft(manifest, parts)


def _limits(model: StepModel, precision: str) -> PrecisionInfo:
    """What golden vectors may differ by; a whole grid step where a step rounds its own results."""
    limits = _PRECISIONS[precision]
    computed = any(CELLS[n.op].is_operand_computed for n in model.program.nodes if n.op in CELLS)
    if precision == "int8" and computed:
        return msgspec.structs.replace(limits, step_tolerance=_COMPUTED_OPERAND_TOLERANCE)
    return limits


def with_rows(
    weights: Mapping[str, npt.NDArray[Any]], rows: Mapping[str, QuantizedRows]
) -> Tensors:
    """Add the INT8 rows of each recurrent matrix to the weights of a model."""
    tensors: Tensors = dict(weights)
    for cell, quantized in rows.items():
        tensors[f"{cell}.w_hh_q"] = quantized.q
        tensors[f"{cell}.w_hh_scale"] = quantized.scale
    return tensors


def _graphs(
    model: StepModel, weights: Mapping[str, npt.NDArray[Any]], precision: str
) -> dict[str, tuple[str, bytes]]:
    """Write the forms of one precision: use -> (name of the part, bytes)."""
    graphs: dict[str, tuple[str, bytes]] = {}
    for use, options in _FORMS.items():
        if use == "cpu" and precision not in step_graph.CPU_PRECISIONS:
            graphs[use] = graphs["step"]
            continue
        name = f"{precision}.onnx" if use == "step" else f"{precision}_{use}.onnx"
        proto = step_graph.build(model, weights, precision, **options)
        graphs[use] = (name, proto.SerializeToString(deterministic=True))
    return graphs


def golden_vectors(made: Draft, calibration: Calibration) -> bytes:
    """Write what each precision answers on real inputs: single steps, a free-running stream."""
    stream = calibration.joined(_N_GOLDEN_STREAM)
    positions = np.linspace(0, len(stream) - 1, _N_GOLDEN_STEPS, dtype=int)
    with made.open_definition("fp32") as engine:
        states = states_along(engine, stream, positions)
    tensors: Tensors = {"stream.x": stream, "step.x": stream[positions]}
    for info in made.manifest.states:
        tensors[f"step.{info.name}"] = np.stack([state[info.name] for state in states])
    for precision in made.manifest.precisions:
        with made.open_definition(precision) as engine:
            tensors[f"stream.{precision}.y"] = run_stream(engine, stream)
            tensors |= _single_steps(engine, stream[positions], states)
    return safetensors.numpy.save(dict(sorted(tensors.items())))


def _single_steps(engine: Engine, x: Float32, states: Sequence[Mapping[str, Float32]]) -> Tensors:
    outputs, after = [], []
    for row, values in zip(x, states, strict=True):
        engine.load_state(0, State(engine.model_hash, 0, values))
        outputs.append(engine.step(row))
        after.append(engine.save_state(0).values)
    start = f"step.{engine.precision}"
    tensors: Tensors = {f"{start}.y": np.stack(outputs)}
    for info in engine.manifest.states:
        tensors[f"{start}.{info.name}_out"] = np.stack([values[info.name] for values in after])
    return tensors


def finish(
    made: Draft,
    golden: bytes,
    report: Mapping[str, Any],
    n_warmup: int | None,
    gate: GateResult,
) -> Bundle:
    """Add what was measured, and seal."""
    text = msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=1) + b"\n"
    manifest = msgspec.structs.replace(made.manifest, n_warmup=n_warmup, gate=gate)
    return Bundle.pack(manifest, {**made.parts, GOLDEN: golden, REPORT: text})


def lint_graphs(made: Draft) -> list[str]:
    """List what TensorRT would make of the graphs that it is to read; empty: all is well."""
    forms = [info.graphs for info in made.manifest.precisions.values()]
    names = {graphs[use] for graphs in forms for use in _FORMS if use != "cpu"}
    return [
        f"{name}: {finding}"
        for name in sorted(names)
        for finding in lint(onnx.load_model_from_string(made.parts[name]))
    ]
