"""What every tensor of the step is: its type, its grid, and what the grid leaves of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from edge_gru.engines.golden import sqnr_db
from edge_gru.engines.products import FLOAT, operand_grid, operand_steps, reach
from edge_gru.engines.tensors import WEIGHTS, read_tensors, unpacked
from edge_gru.manifest import Manifest, ProductForm
from quantization import step_graph
from quantization.comparison import Samples
from quantization.operands import values_at
from quantization.quantized import Quantized
from quantization.rounding import Q_MAX
from quantization.sites import Site, find_sites
from quantization.step_model import StepModel

_QUANTIZED, _SCALE, _STEP, _GAIN = "_q", "_scale", "_operand_scale", "_operand_gain"
_SUFFIXES = (_QUANTIZED, _SCALE, _STEP, _GAIN)
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
    weights = unpacked(read_tensors(packed.parts[WEIGHTS], WEIGHTS))
    precision = manifest.default_precision
    rows = [TensorRow(name="x", dtype="float32", shape=[manifest.n_in], grid="")]
    rows += [
        TensorRow(name=s.name, dtype="float32", shape=[s.size], grid="carried; never through Q/DQ")
        for s in manifest.states
    ]
    forms = manifest.precisions[precision].products
    model = StepModel(manifest.program, weights, manifest.states, manifest.n_in, manifest.n_out)
    sites = [site for site in find_sites(model) if site.weight in forms]
    joint = manifest.precisions[precision].joint
    rows += _operands(model, sites, forms, joint, samples)
    transposed = {site.weight for site in sites if site.is_transposed}
    ours = {f"{name}{suffix}" for name in forms for suffix in _SUFFIXES}
    rows += [
        _weight(name, weights, forms.get(name, FLOAT), is_transposed=name in transposed)
        for name in sorted(set(weights) - ours)
    ]
    inside = "gates, pre-activations and blend"
    rows.append(TensorRow(name=inside, dtype="float32", shape=[], grid="int32 sums are exact"))
    rows.append(TensorRow(name="y", dtype="float32", shape=[manifest.n_out], grid=""))
    return rows


def _operands(
    model: StepModel,
    sites: list[Site],
    forms: Mapping[str, ProductForm],
    joint: tuple[str, ...],
    samples: Samples | None,
) -> list[TensorRow]:
    values: dict[str, npt.NDArray[np.float32]] = {}
    if samples is not None:
        graph = step_graph.build(model, Quantized())
        values = values_at(graph, {s.operand for s in sites}, samples.x, samples.fp32)
    return [
        _operand(
            model, site, forms[site.weight], values.get(site.operand), is_joint=site.cell in joint
        )
        for site in sites
        if forms[site.weight].operand != "fp32"
    ]


def _operand(
    model: StepModel,
    site: Site,
    form: ProductForm,
    values: npt.NDArray[np.float32] | None,
    *,
    is_joint: bool,
) -> TensorRow:
    name = f"{site.operand} into {site.weight}"
    shape = [site.floats(model).shape[1]]
    if not form.has_integer_operand:
        return TensorRow(name=name, dtype=form.operand, shape=shape, grid="rounded")
    step, gain = operand_grid(model.weights, site.weight)
    kind = "calibrated" if site.bound is None else "fixed"
    whose = "of x and h together" if is_joint else "of this product alone"
    equalised = "" if gain is None else ", equalised"
    rows = " in two rows, 16 bits" if form.operand == "int8-hilo" else ""
    row = TensorRow(
        name=name,
        dtype="int8",
        shape=shape,
        grid=f"{kind}{equalised}, zero point 0, {whose}{rows}",
        scale=(float(step), float(step)),
    )
    if values is None:
        return row
    scaled = values if gain is None else values * gain
    read = operand_steps(form, scaled, step) * float(step)
    return msgspec.structs.replace(
        row,
        sqnr_db=sqnr_db(scaled, read.astype(np.float32)),
        saturated=float(np.mean(np.abs(scaled) > reach(step))),
    )


def _weight(
    name: str, weights: Mapping[str, npt.NDArray[Any]], form: ProductForm, *, is_transposed: bool
) -> TensorRow:
    value = weights[name]
    shape = list(value.shape)
    if not form.has_integer_weight:
        dtype = "float16" if form.weight == "fp16" else str(value.dtype)
        return TensorRow(name=name, dtype=dtype, shape=shape, grid="")
    q, scale = weights[f"{name}{_QUANTIZED}"], weights[f"{name}{_SCALE}"]
    gain = weights.get(f"{name}{_GAIN}")
    rows = value.T if is_transposed else value
    rows = rows if gain is None else rows / gain
    return TensorRow(
        name=name,
        dtype=form.weight,
        shape=shape,
        grid="symmetric, one scale a row",
        scale=(float(scale.min()), float(scale.max())),
        sqnr_db=sqnr_db(rows, (q * scale[:, None]).astype(np.float32)),
        saturated=float(np.mean(np.abs(rows) > (Q_MAX[form.weight] + 0.5) * scale[:, None])),
    )


def scale_histograms(packed: Packed) -> list[ScaleHistogram]:
    """Count the row scales of every quantized matrix, on a logarithmic axis."""
    weights = read_tensors(packed.parts[WEIGHTS], WEIGHTS)
    products = packed.manifest.precisions[packed.manifest.default_precision].products
    rows = []
    for weight in sorted(products):
        scale = weights.get(f"{weight}{_SCALE}")
        if scale is None:
            continue
        low, high = float(scale.min()), float(scale.max())
        edges = np.geomspace(low / 1.01, high * 1.01, _N_BINS + 1)
        n, _ = np.histogram(scale, edges)
        rows.append(ScaleHistogram(weight, edges.tolist(), n.tolist()))
    return rows
