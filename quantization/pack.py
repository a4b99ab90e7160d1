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
from edge_gru.engines.products import FLOAT, HALF
from edge_gru.engines.select import open_engine
from edge_gru.engines.tensors import GOLDEN, WEIGHTS
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import (
    Alert,
    GateResult,
    Manifest,
    PrecisionInfo,
    Recipe,
)
from edge_gru.state import State
from edge_gru.version import __version__
from firmware_bridge.sample import Schema
from quantization import step_graph
from quantization.calibrate import Calibration
from quantization.evaluate import run_stream, states_along
from quantization.input_limit import input_limit
from quantization.narrow import as_stored
from quantization.quantized import Quantized, half
from quantization.sites import find_sites
from quantization.step_model import Array, StepModel
from quantization.tensorrt_lint import lint
from quantization.ties import margins

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
_LO_STEP_TOLERANCE = 1e-4  # of a computed operand in two rows: some low one is always near a tie
_COARSE_STREAM_DB = 20.0  # of recipes that are expected to lose more


@dataclass(frozen=True)
class Description:
    """What the user says of a model, beside its numbers."""

    name: str
    schema: Schema
    recipe: Recipe
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
    model: StepModel, description: Description, calibration: Calibration, quantized: Quantized
) -> Draft:
    """Write every graph, of fp32, fp16 and what the recipe made."""
    made = {"fp32": Quantized(), "fp16": half(model), quantized.precision: quantized}
    parts = {WEIGHTS: _saved({**model.weights, **as_stored(quantized)})}
    precisions = {}
    for name, products in made.items():
        graphs = _graphs(model, products)
        parts |= dict(graphs.values())
        precisions[name] = msgspec.structs.replace(
            _limits(model, products), graphs={use: part for use, (part, _) in graphs.items()}
        )
    return Draft(_manifest(model, description, calibration, quantized, precisions), parts)


def trial(
    model: StepModel, description: Description, calibration: Calibration, quantized: Quantized
) -> EngineSource:
    """Write what an engine needs to run one precision, and nothing else of a bundle."""
    graphs = _graphs(model, quantized)
    weights = {**model.weights, **quantized.tensors}
    info = msgspec.structs.replace(
        _limits(model, quantized), graphs={use: part for use, (part, _) in graphs.items()}
    )
    precisions = {quantized.precision: info}
    manifest = _manifest(model, description, calibration, quantized, precisions)
    return EngineSource(manifest, {WEIGHTS: _saved(weights), **dict(graphs.values())})


def _saved(tensors: Mapping[str, Array]) -> bytes:
    # safetensors writes the memory of an array as it lies, transposed ones too.
    in_rows = {name: np.asarray(value, order="C") for name, value in sorted(tensors.items())}
    return safetensors.numpy.save(in_rows)


def _manifest(
    model: StepModel,
    description: Description,
    calibration: Calibration,
    quantized: Quantized,
    precisions: dict[str, PrecisionInfo],
) -> Manifest:
    return Manifest(
        name=description.name,
        producer={"edge-gru": __version__},
        schema=description.schema,
        outputs=description.outputs,
        labels=description.labels,
        normalisation=model.normalisation,
        states=model.states,
        recipe=description.recipe,
        n_warmup=None,
        precisions=precisions,
        default_precision=quantized.precision,
        program=model.program,
        input_range=calibration.input_range,
        alerts=description.alerts,
        calibration_sha256=calibration.sha256,
        parts={},
    )


def _limits(model: StepModel, quantized: Quantized) -> PrecisionInfo:
    """Say what the precision is made of, and what its golden vectors may differ by."""
    limits = _PRECISIONS[quantized.precision]
    sites = find_sites(model)
    forms = quantized.products
    if any(s.is_computed and forms.get(s.weight, FLOAT).operand == "int8-hilo" for s in sites):
        limits = msgspec.structs.replace(limits, step_tolerance=_LO_STEP_TOLERANCE)
    if any(form.weight == "int4" for form in forms.values()):
        limits = msgspec.structs.replace(limits, stream_sqnr_db=_COARSE_STREAM_DB)
    if HALF in forms.values():
        tolerance = max(limits.step_tolerance, _PRECISIONS["fp16"].step_tolerance)
        limits = msgspec.structs.replace(limits, step_tolerance=tolerance)
    return msgspec.structs.replace(
        limits,
        products=dict(forms),
        joint=quantized.joint,
        input_limit=input_limit(model, sites, quantized),
    )


def _graphs(model: StepModel, quantized: Quantized) -> dict[str, tuple[str, bytes]]:
    """Write the forms of one precision: use -> (name of the part, bytes)."""
    graphs: dict[str, tuple[str, bytes]] = {}
    precision = quantized.precision
    for use, options in _FORMS.items():
        if use == "cpu" and precision == "fp16":
            graphs[use] = graphs["step"]
            continue
        name = f"{precision}.onnx" if use == "step" else f"{precision}_{use}.onnx"
        proto = step_graph.build(model, quantized, **options)
        graphs[use] = (name, proto.SerializeToString(deterministic=True))
    return graphs


def golden_vectors(made: Draft, calibration: Calibration, model: StepModel) -> bytes:
    """Write what each precision answers on real inputs: single steps, a free-running stream."""
    stream = calibration.joined(_N_GOLDEN_STREAM)
    with made.open_definition("fp32") as engine:
        along = states_along(engine, stream, np.arange(len(stream)))
    every = {info.name: np.stack([s[info.name] for s in along]) for info in model.states}
    info = made.manifest.precisions[made.manifest.default_precision]
    graph = onnx.load_model_from_string(made.parts[info.graphs["step"]])
    tensors = made.source.weights()
    margin = margins(find_sites(model), info.products, tensors, graph, stream, every)
    # Engines differ in the last bits of a value; near a tie, by a step of its grid.
    positions = np.sort(np.argsort(-margin, kind="stable")[:_N_GOLDEN_STEPS])
    states = [along[k] for k in positions]
    vectors: Tensors = {"stream.x": stream, "step.x": stream[positions]}
    vectors |= {f"step.{name}": values[positions] for name, values in every.items()}
    for precision in made.manifest.precisions:
        with made.open_definition(precision) as engine:
            vectors[f"stream.{precision}.y"] = run_stream(engine, stream)
            vectors |= _single_steps(engine, stream[positions], states)
    return safetensors.numpy.save(dict(sorted(vectors.items())))


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
