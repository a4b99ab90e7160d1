"""What every tensor of the step is: its type, its grid, and what the grid leaves of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from edge_gru.engines.golden import sqnr_db
from edge_gru.engines.tensors import WEIGHTS
from edge_gru.manifest import Manifest
from quantization.comparison import Samples

_QUANTIZED, _SCALE = "_q", "_scale"
_GRID_STEPS = 127
_N_BINS = 24


class Packed(Protocol):
    """A bundle, or what becomes one."""

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""

    @property
    def parts(self) -> Mapping[str, bytes]:
        """Its files."""


class TensorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the step.

    ``scale`` holds the smallest and the largest step of its grid; ``sqnr_db`` what the grid leaves
    of it, and ``saturated`` the share of values at the end of the grid or beyond: of weights as
    they are, of operands along a stream, where one was run.
    """

    name: str
    dtype: str
    shape: list[int]
    grid: str
    scale: tuple[float, float] | None = None
    sqnr_db: float | None = None
    saturated: float | None = None


class ScaleHistogram(msgspec.Struct, frozen=True):
    """How the row scales of a tensor spread: ``n`` rows between neighbouring ``edges``."""

    tensor: str
    edges: list[float]
    n: list[int]


def explain(packed: Packed, samples: Samples | None = None) -> list[TensorRow]:
    """List type and grid of every tensor of the step, in the bundle's own precision.

    Args:
        packed: a bundle.
        samples: of a stream, for what the grids of operands cost on it.
    """
    manifest = packed.manifest
    weights = safetensors.numpy.load(packed.parts[WEIGHTS])
    precision = manifest.default_precision
    rows = [TensorRow(name="x", dtype="float32", shape=[manifest.n_in], grid="")]
    rows += [
        TensorRow(name=s.name, dtype="float32", shape=[s.size], grid="carried; never through Q/DQ")
        for s in manifest.states
    ]
    if precision == "int8":
        rows += _operands(manifest, weights, samples)
    rows += [
        _weight(name, weights, precision)
        for name in sorted(weights)
        if not name.endswith((_QUANTIZED, _SCALE))
    ]
    inside = "gates, pre-activations and blend"
    rows.append(TensorRow(name=inside, dtype="float32", shape=[], grid="int32 sums are exact"))
    rows.append(TensorRow(name="y", dtype="float32", shape=[manifest.n_out], grid=""))
    return rows


def _operands(
    manifest: Manifest, weights: Mapping[str, npt.NDArray[Any]], samples: Samples | None
) -> list[TensorRow]:
    bounds: dict[str, float | None] = {state.name: state.bound for state in manifest.states}
    sizes = manifest.state_sizes
    rows = []
    for node in manifest.program.nodes:
        cell = node.attributes.get("cell")
        state = next((name for name in node.inputs if name in sizes), None)
        if state is None or f"{cell}.w_hh{_QUANTIZED}" not in weights:
            continue
        calibrated = weights.get(f"{cell}.h_scale")
        fixed = (bounds[state] or 1.0) / _GRID_STEPS
        step = fixed if calibrated is None else float(calibrated)
        kind = "fixed" if calibrated is None else "calibrated with head-room"
        row = TensorRow(
            name=f"{state} into {cell}.w_hh",
            dtype="int8",
            shape=[sizes[state]],
            grid=f"{kind}, zero point 0, of this product alone",
            scale=(step, step),
        )
        if samples is not None:
            values = samples.fp32[state]
            steps = np.rint(values / np.float32(step))
            on_grid = np.clip(steps, -_GRID_STEPS, _GRID_STEPS) * np.float32(step)
            row = msgspec.structs.replace(
                row,
                sqnr_db=sqnr_db(values, on_grid.astype(np.float32)),
                saturated=float(np.mean(np.abs(steps) > _GRID_STEPS)),
            )
        rows.append(row)
    return rows


def _weight(name: str, weights: Mapping[str, npt.NDArray[Any]], precision: str) -> TensorRow:
    value, q = weights[name], weights.get(f"{name}{_QUANTIZED}")
    shape = list(value.shape)
    if q is None or precision != "int8":
        return TensorRow(name=name, dtype=str(value.dtype), shape=shape, grid="")
    scale = weights[f"{name}{_SCALE}"]
    return TensorRow(
        name=name,
        dtype="int8",
        shape=shape,
        grid="symmetric, one scale a gate row",
        scale=(float(scale.min()), float(scale.max())),
        sqnr_db=sqnr_db(value, (q * scale[:, None]).astype(np.float32)),
        saturated=float(np.mean(np.abs(value) > (_GRID_STEPS + 0.5) * scale[:, None])),
    )


def scale_histograms(packed: Packed) -> list[ScaleHistogram]:
    """Count the row scales of every quantized matrix, on a logarithmic axis."""
    weights = safetensors.numpy.load(packed.parts[WEIGHTS])
    rows = []
    for name, scale in sorted(weights.items()):
        if not name.endswith(_SCALE):
            continue
        low, high = float(scale.min()), float(scale.max())
        edges = np.geomspace(low / 1.01, high * 1.01, _N_BINS + 1)
        n, _ = np.histogram(scale, edges)
        rows.append(ScaleHistogram(name.removesuffix(_SCALE), edges.tolist(), n.tolist()))
    return rows
