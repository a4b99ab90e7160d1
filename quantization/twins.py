"""The float model beside a quantized one: how to open both, and a control that must stay close."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.select import open_engine
from edge_gru.manifest import InputRange, Manifest

Opener: TypeAlias = Callable[[int], Engine]
"""Opens an engine with so many streams."""

FLOAT = "fp32"
_ENGINE = "onnxruntime"
_NUDGE = np.float32(1e-7)


@dataclass(frozen=True)
class Twins:
    """Engines of one model that read the same samples.

    Attributes:
        fp32: what is right.
        candidate: what is judged, of the precision named ``precision``.
        control: fp32 with 1e-7 added to its biases; None where it has none.
        source: what the float graph is read from.
        others: further precisions, measured and not judged.
        input_limit: the samples that the candidate's grid of x holds; None where it has none.
    """

    fp32: Opener
    candidate: Opener
    control: Opener | None
    source: EngineSource
    precision: str
    others: Mapping[str, Opener] = field(default_factory=dict)
    input_limit: InputRange | None = None

    @property
    def manifest(self) -> Manifest:
        """The manifest that all of them have."""
        return self.source.manifest


def twins_of(source: EngineSource, precision: str | None = None) -> Twins:
    """Pair a precision of a bundle, by default its own, with its fp32 form."""
    name = source.precision(precision)
    control = nudged(source)
    others = [p for p in source.manifest.precisions if p not in (FLOAT, name)]
    return Twins(
        fp32=_opener(source, FLOAT),
        candidate=_opener(source, name),
        control=None if control is None else _opener(control, FLOAT),
        source=source,
        precision=name,
        others={p: _opener(source, p) for p in others},
        input_limit=source.manifest.precisions[name].input_limit,
    )


def _opener(source: EngineSource, precision: str) -> Opener:
    return lambda n: open_engine(_ENGINE, source, n_streams=n, precision=precision)


def with_float_graph(source: EngineSource, graph: bytes) -> EngineSource:
    """Put another graph in the place of the one that onnxruntime runs as fp32."""
    part = source.manifest.precisions[FLOAT].graphs["cpu"]
    return EngineSource(source.manifest, {**source.parts, part: graph})


def float_graph(source: EngineSource) -> onnx.ModelProto:
    """Read the fp32 step, every operation written out."""
    part = source.manifest.precisions[FLOAT].graphs["step"]
    return onnx.load_from_string(source.part(part))


def nudged(source: EngineSource) -> EngineSource | None:
    """Add 1e-7, or the least that changes it, to every bias of the cells in fp32.

    None where no cell has a bias.
    """
    graph = float_graph(source)
    cells = {str(n.attributes["cell"]) for n in source.manifest.program.nodes if n.attributes
             and "cell" in n.attributes}  # fmt: skip
    n_changed = 0
    for tensor in graph.graph.initializer:
        cell, _, leaf = tensor.name.rpartition(".")
        if cell in cells and leaf.startswith("b"):
            bias = numpy_helper.to_array(tensor)
            moved = np.maximum(bias + _NUDGE, np.nextafter(bias, np.float32(np.inf)))
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
            n_changed += 1
    return with_float_graph(source, graph.SerializeToString()) if n_changed else None


def candidate_opener(source: EngineSource, graph: bytes) -> Opener:
    """Open engines on another float graph of the same model."""
    return _opener(with_float_graph(source, graph), FLOAT)
