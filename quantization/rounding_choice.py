"""Which rounding each recurrent matrix gets: GPTQ where a held-out stream says that it pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_gru.engines.base import Engine
from edge_gru.engines.cells import H_STEPS
from edge_gru.engines.golden import sqnr_db
from quantization.evaluate import run_stream
from quantization.progress import Progress
from quantization.rounding import QuantizedRows, round_rows, round_rows_gptq
from quantization.split import Parts

Float32 = npt.NDArray[np.float32]
OpenInt8 = Callable[[Mapping[str, QuantizedRows]], Engine]

_N_FIT_STEPS = 16_384
_N_CHECK_STEPS = 8_192


def round_nearest(weights: Mapping[str, Float32]) -> dict[str, QuantizedRows]:
    """Round every matrix to nearest."""
    return {cell: round_rows(weight) for cell, weight in weights.items()}


def choose_rounding(
    weights: Mapping[str, Float32],
    operands: Mapping[str, tuple[str, np.float32]],
    fp32: Engine,
    open_int8: OpenInt8,
    parts: Parts,
    progress: Progress,
) -> tuple[dict[str, QuantizedRows], dict[str, str]]:
    """Round each matrix by GPTQ, and keep that only where it beats nearest on held-out data.

    Args:
        weights: the recurrent matrix of each cell.
        operands: the state that each cell's product reads, and the step of its grid. A cell that
            resets first reads ``r * h`` in some rows; they are fitted to h as well.
        fp32: engine to learn operands and right answers from.
        open_int8: opens an engine with given roundings.
        parts: GPTQ is fitted to ``fit``, and ``choose`` is what it must do better on.
        progress: called after each cell.

    Returns the rows of each cell, and which rounding they have.
    """
    fit = _limited(parts.fit.sequences, _N_FIT_STEPS)
    held_out = _limited(parts.choose.sequences, _N_CHECK_STEPS)
    seen = _states_seen(fp32, fit)
    expected = np.concatenate([run_stream(fp32, sequence) for sequence in held_out])

    def score(rows: Mapping[str, QuantizedRows]) -> float:
        with open_int8(rows) as engine:
            return sqnr_db(expected, np.concatenate([run_stream(engine, s) for s in held_out]))

    chosen = round_nearest(weights)
    names = dict.fromkeys(weights, "nearest")
    best = score(chosen)
    for k, (cell, weight) in enumerate(weights.items()):
        state, scale = operands[cell]
        tried = {**chosen, cell: round_rows_gptq(weight, _on_grid(seen[state], scale))}
        found = score(tried)
        if found > best:
            chosen, best, names[cell] = tried, found, "gptq"
        progress("round", k + 1, len(weights))
    return chosen, names


def _limited(sequences: Sequence[Float32], n_steps: int) -> list[Float32]:
    kept: list[Float32] = []
    for sequence in sequences:
        left = n_steps - sum(map(len, kept))
        if left > 0:
            kept.append(sequence[:left])
    return kept


def _states_seen(engine: Engine, sequences: Sequence[Float32]) -> dict[str, Float32]:
    """Every state along the sequences, ``(n_steps, size)`` by name."""
    rows: dict[str, list[Float32]] = {info.name: [] for info in engine.manifest.states}
    for sequence in sequences:
        engine.reset(0)
        for x in sequence:
            for name, value in engine.save_state(0).values.items():
                rows[name].append(value)
            engine.step(x)
    return {name: np.stack(values) for name, values in rows.items()}


def _on_grid(values: Float32, scale: np.float32) -> Float32:
    """What the recurrent product makes of its operand."""
    steps = np.clip(np.rint(values / scale), -H_STEPS, H_STEPS)
    return (steps * scale).astype(np.float32)
