"""The report as data: JSON types alone, so that what a bundle carries can be shown again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
import onnx
import onnxruntime

from edge_gru.bundle import Bundle
from edge_gru.engines.tensors import WEIGHTS, read_tensors
from edge_gru.manifest import Recipe
from edge_gru.version import __version__
from quantization.comparison import Samples
from quantization.explain import Packed, explain, scale_histograms
from quantization.gate import Evidence
from quantization.sensitivity import sensitivity
from quantization.twins import FLOAT, Twins

Report: TypeAlias = dict[str, Any]
"""Keys: model, recipe, recipe_toml, precision, outputs, gate, deviation_from_fp32, tensors,
sensitivity, row_scales, sizes, channels, data, versions; of a quantization also proof, rounding,
tried (of recipe auto), finetuning, warmup, tensorrt_lint.

None stands for a dB value of equal signals, and for what is not finite elsewhere.
"""

REPORT = "report.json"


def build_report(
    packed: Packed, twins: Twins, evidence: Evidence, data: Mapping[str, Any]
) -> Report:
    """Put together what was measured; ``data`` describes the sequences beside the judged ones."""
    manifest, judgement = packed.manifest, evidence.judgement
    verdict = {"verdict": judgement.verdict}
    report = {
        "model": manifest.name,
        "recipe": manifest.recipe.name,
        "recipe_toml": recipe_toml(manifest.recipe),
        "precision": judgement.precision,
        "outputs": list(manifest.outputs),
        "gate": verdict | msgspec.to_builtins(judgement),
        "deviation_from_fp32": {
            name: msgspec.to_builtins(deviation)
            for name, deviation in evidence.deviations.items()
            if name != FLOAT
        },
        "tensors": msgspec.to_builtins(explain(packed, evidence.samples)),
        "sensitivity": msgspec.to_builtins(sensitivity(twins, evidence.stream, evidence.samples)),
        "row_scales": msgspec.to_builtins(scale_histograms(packed)),
        "sizes": _sizes(packed),
        "channels": _channels(packed, evidence.samples),
        "data": {**data, "judged": msgspec.to_builtins(judgement.stream)},
        "versions": {
            "edge-gru": __version__,
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }
    return rounded(report)


def report_of(bundle: Bundle) -> Report:
    """Read the report that was packed with a bundle."""
    report: Report = msgspec.json.decode(bundle.parts[REPORT])
    return report


def recipe_toml(recipe: Recipe) -> str:
    """Write a recipe as TOML, ready to paste."""
    return "\n".join(_toml_lines(msgspec.to_builtins(recipe), "")) + "\n"


def _toml_lines(table: Mapping[str, Any], name: str) -> list[str]:
    values = {k: v for k, v in table.items() if not isinstance(v, dict) and v is not None}
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]
    if name and lines:
        lines.insert(0, f"[{name}]")
    for key, value in table.items():
        if isinstance(value, dict) and value:
            lines += ["", *_toml_lines(value, f"{name}.{_toml_key(key)}".lstrip("."))]
    return lines


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else f'"{key}"'


def rounded(value: Any) -> Any:
    """Keep six digits of every number, and None for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return value


def _sizes(packed: Packed) -> dict[str, Any]:
    """Count bytes: of the step graphs by precision, and of the narrowed weights."""
    manifest = packed.manifest
    weights = read_tensors(packed.parts[WEIGHTS], WEIGHTS)
    products = manifest.precisions[manifest.default_precision].products
    quantized = [name for name, form in products.items() if form.has_integer_weight]
    stored = [f"{name}{end}" for name in quantized for end in ("_q", "_q4", "_scale")]
    return {
        "graphs_bytes": {
            name: len(packed.parts[info.graphs["step"]])
            for name, info in manifest.precisions.items()
        },
        "weights_float_bytes": sum(weights[name].nbytes for name in quantized),
        "weights_integer_bytes": sum(weights[name].nbytes for name in stored if name in weights),
    }


def _channels(packed: Packed, samples: Samples) -> list[dict[str, Any]]:
    """Tell for each channel how much of the judged stream lay outside the calibrated range."""
    manifest = packed.manifest
    low, high = (
        np.array(v, np.float32)
        for v in (manifest.input_range.minimum, manifest.input_range.maximum)
    )
    outside = np.mean((samples.x < low) | (samples.x > high), axis=0)
    return [
        {
            "name": channel.name,
            "unit": channel.unit,
            "minimum": float(low[k]),
            "maximum": float(high[k]),
            "share_outside": float(outside[k]),
        }
        for k, channel in enumerate(manifest.schema.channels)
    ]
