"""A packed model on new data: the same gate and the same report as when it was quantized."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy.typing as npt

from edge_gru.bundle import Bundle
from edge_gru.errors import EngineUnavailableError
from quantization.calibrate import check_sequences
from quantization.checks import N_JUDGED_STEPS
from quantization.gate import TOLERANCE, GateSettings, judge
from quantization.metrics import Metric, Score, find_metric
from quantization.progress import Progress, silent
from quantization.report.content import Report, build_report
from quantization.twins import FLOAT, twins_of


def evaluate_bundle(
    bundle: Bundle,
    sequences: Sequence[npt.ArrayLike],
    *,
    targets: Sequence[npt.ArrayLike] | None = None,
    metric: str | Score | Metric | None = None,
    tolerance: float = TOLERANCE,
    resets: bool = False,
    precision: str | None = None,
    n_steps: int = N_JUDGED_STEPS,
    progress: Progress = silent,
) -> Report:
    """Judge a precision of a bundle, by default its own, on sequences ``(n_steps, n_in)``.

    All of them judge; for ``targets``, ``metric``, ``tolerance``, ``resets`` see ``quantize``.
    The verdict is ``report["gate"]["verdict"]``.

    Raises:
        DataError: the sequences or targets do not fit the model.
        ConfigError: an unknown metric, or a metric without targets.
        EngineUnavailableError: the bundle has no such precision, or no fp32 to compare with.
    """
    manifest = bundle.manifest
    data = check_sequences(sequences, manifest.schema, targets)
    settings = GateSettings(
        find_metric(metric, has_targets=targets is not None), tolerance, n_steps, resets=resets
    )
    if FLOAT not in manifest.precisions:
        raise EngineUnavailableError(
            f"expected a bundle with fp32 to compare with, got {', '.join(manifest.precisions)}"
        )
    twins = twins_of(bundle.source, precision)
    served = msgspec.structs.replace(manifest, default_precision=twins.precision)
    evidence = judge(twins, data, settings, progress)
    report = build_report(Bundle(served, bundle.parts), twins, evidence, {})
    return {**report, "bundle_hash": bundle.hash}
