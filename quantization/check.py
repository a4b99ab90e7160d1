"""Whether an exported recurrent network is the trained one, and what is wrong if it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx

from edge_gru.errors import ConfigError, ModelError
from quantization.export_faults import crossings, lengths_in, repaired
from quantization.importers.onnx import OnnxOriginal
from quantization.importers.onnx_rewrite import dims_of, with_time_first
from quantization.importers.onnx_states import Ports, find_ports
from quantization.importers.proof import TOLERANCE, Original

Float32 = npt.NDArray[np.float32]

_N_STATES_TO_CROSS = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``time axis``, ``outputs``, ``state``, ``cause``."""

    what: str
    passed: bool
    detail: str


@dataclass
class Verdict:
    """All findings; equal if every one passed."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether the export is the trained network."""
        return all(finding.passed for finding in self.findings)

    def add(self, what: str, detail: str, *, passed: bool) -> None:
        """Note a finding."""
        self.findings.append(Finding(what, passed, detail))


def channels_of(proto: onnx.ModelProto, source: object) -> int:
    """Number of channels that an exported model says it takes.

    Raises:
        ConfigError: it leaves that open.
        ModelError: no input of a recurrent network.
    """
    width = dims_of(find_ports(proto, None, source).x)[-1]
    if not isinstance(width, int):
        raise ConfigError(f"{source} does not say how many channels it takes; expected --channels")
    return width


def check_export(proto: onnx.ModelProto, truth: Original, x: Float32, source: object) -> Verdict:
    """Compare an exported model with the trained one on a sequence ``x`` (n_steps, n_in).

    Raises:
        ModelError: no float input to feed, or the trained model itself does not run.
    """
    verdict = Verdict()
    proto = with_time_first(proto)
    ports = find_ports(proto, x.shape[1], source)
    if ports.lost is not None:
        verdict.add("state", f"lost state: {ports.lost}", passed=False)
        return verdict
    sequence = _settled(verdict, proto, ports, truth, x)
    if sequence is None:
        return verdict
    export = _with_best_batch_axis(proto, ports, truth, sequence)
    expected = truth.run(sequence)
    apart = _distance(export.run(sequence), expected)
    is_equal = apart <= _allowed(expected)
    text = f"largest difference {apart:.2g} in {len(sequence)} steps"
    verdict.add("outputs", text, passed=is_equal)
    if is_equal:
        _check_handed_on(verdict, export, ports, truth, sequence)
    else:
        cause = _cause(proto, ports, export, truth, sequence)
        verdict.add("cause", cause or "none of the known ones", passed=False)
    return verdict


def _settled(
    verdict: Verdict, proto: onnx.ModelProto, ports: Ports, truth: Original, x: Float32
) -> Float32 | None:
    """Find a length that both models take, and note whether the export takes any."""
    whole = x[: truth.window_steps]
    if ports.is_step:
        verdict.add("time axis", "one step at a time, states in and out", passed=True)
        return whole
    runs = _lengths_that_run(proto, ports, whole)
    if len(runs) > 1:
        verdict.add("time axis", "sequences of any length", passed=True)
        return whole
    if runs:
        detail = f"frozen time axis: it takes sequences of {runs[0]} steps alone"
    else:
        detail = f"frozen time axis: it does not run on {len(whole)} steps, nor on any other length"
    verdict.add("time axis", detail, passed=False)
    return np.resize(whole, (runs[0], x.shape[1])) if runs else None


def _lengths_that_run(proto: onnx.ModelProto, ports: Ports, x: Float32) -> list[int]:
    """Lengths at which the model gives a row for each step, or one for the last."""
    declared = [d for d in dims_of(ports.x)[:2] if isinstance(d, int) and d > 1]
    wanted = dict.fromkeys([len(x), max(len(x) // 2, 1), *declared, *lengths_in(proto)])
    runs = []
    for length in wanted:
        sequence = np.resize(x, (length, x.shape[1])).astype(np.float32)
        for axis in (0, 1):
            try:
                y = OnnxOriginal(proto, ports, axis).run(sequence)
            except ModelError:
                continue
            if y.ndim == 1 or len(y) == length:
                runs.append(length)
                break
        if len(runs) > 1:
            break
    return runs


def _with_best_batch_axis(
    proto: onnx.ModelProto, ports: Ports, truth: Original, sequence: Float32
) -> OnnxOriginal:
    expected = truth.run(sequence)

    def distance(axis: int) -> float:
        return _distance_or_far(partial(_run, proto, ports, axis, sequence), expected)

    return OnnxOriginal(proto, ports, min((0, 1), key=distance))


def _check_handed_on(
    verdict: Verdict, export: OnnxOriginal, ports: Ports, truth: Original, sequence: Float32
) -> None:
    """Run in two parts, the second from the states that the first returned."""
    if ports.is_step:
        verdict.add("state", "carried from step to step", passed=True)
        return
    if not ports.states or None in ports.states.values() or export.window_steps is not None:
        verdict.add("state", "inside: it takes whole sequences and returns no state", passed=True)
        return
    expected = truth.run(sequence)
    parts = np.array_split(sequence, 2)
    if expected.ndim == 1:
        return

    def fits(pairs: dict[str, str | None], *, are_layers_reversed: bool = False) -> bool:
        got = export.run_parts(parts, pairs, are_layers_reversed=are_layers_reversed)
        return _distance(got, expected) <= _allowed(expected)

    if fits(ports.states):
        verdict.add("state", "what it returns continues the sequence", passed=True)
        return
    fault = "lost state: what it returns does not continue the sequence"
    if fits(ports.states, are_layers_reversed=True):
        fault = "swapped state pairs: the layers of what it returns are in reverse order"
    fault = next((s for s, pairs in _crossings(ports) if _attempt(fits, pairs)), fault)
    verdict.add("state", fault, passed=False)


def _cause(
    proto: onnx.ModelProto,
    ports: Ports,
    export: OnnxOriginal,
    truth: Original,
    sequence: Float32,
) -> str | None:
    """Undo each known fault, and name the one after which the models agree."""
    expected = truth.run(sequence)
    got = export.run(sequence)
    allowed = _allowed(expected)
    alone = np.stack([truth.run(row[None]).reshape(-1) for row in sequence])
    if got.shape == alone.shape and _distance(got, alone) <= allowed:
        return "lost state: every step starts from where the first one does"
    tried: list[tuple[str, Callable[[], Float32]]] = []
    if ports.is_step:
        steps = [row[None] for row in sequence]
        tried += [(s, partial(export.run_parts, steps, pairs)) for s, pairs in _crossings(ports)]
    for sentence, repair in repaired(proto):
        tried += [(sentence, partial(_run, repair, ports, axis, sequence)) for axis in (0, 1)]
    return next((s for s, run in tried if _distance_or_far(run, expected) <= allowed), None)


def _run(proto: onnx.ModelProto, ports: Ports, axis: int, sequence: Float32) -> Float32:
    return OnnxOriginal(proto, ports, axis).run(sequence)


def _crossings(ports: Ports) -> list[tuple[str, dict[str, str | None]]]:
    if not 1 < len(ports.states) <= _N_STATES_TO_CROSS:
        return []
    return list(crossings(ports.states))


def _attempt(fits: Callable[[dict[str, str | None]], bool], pairs: dict[str, str | None]) -> bool:
    try:
        return fits(pairs)
    except ModelError:  # shapes that do not go together
        return False


def _distance_or_far(run: Callable[[], Float32], expected: Float32) -> float:
    try:
        return _distance(run(), expected)
    except ModelError:
        return float("inf")


def _distance(got: Float32, expected: Float32) -> float:
    """Largest difference; a model that gives the last step alone is compared there."""
    if got.ndim != expected.ndim:
        got, expected = (a if a.ndim == 1 else a[-1] for a in (got, expected))
    if got.shape != expected.shape:
        return float("inf")
    difference = np.abs(got.astype(np.float64) - expected)
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")


def _allowed(expected: Float32) -> float:
    return TOLERANCE * max(1.0, float(np.abs(expected).max()))
