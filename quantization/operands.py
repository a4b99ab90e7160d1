"""What the products of a step read along a stream, in float."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from edge_gru.engines.base import Engine
from quantization.probe import probe

Float32 = npt.NDArray[np.float32]


def operands_seen(
    engine: Engine, graph: onnx.ModelProto, names: Iterable[str], sequences: Sequence[Float32]
) -> dict[str, Float32]:
    """Return values of the step ``(n_steps, n)`` by name, along sequences that begin at the start.

    ``engine`` runs the fp32 model, and ``graph`` is its step with every operation written out.
    """
    states: dict[str, list[Float32]] = {info.name: [] for info in engine.manifest.states}
    for sequence in sequences:
        engine.reset(0)
        for x in sequence:
            for name, value in engine.save_state(0).values.items():
                states[name].append(value)
            engine.step(x)
    return values_at(
        graph,
        names,
        np.concatenate(sequences),
        {name: np.stack(values) for name, values in states.items()},
    )


def values_at(
    graph: onnx.ModelProto, names: Iterable[str], x: Float32, states: dict[str, Float32]
) -> dict[str, Float32]:
    """Evaluate values of a step by name, inputs and states among them."""
    wanted = list(names)
    found = {"x": x, **states, **probe(graph, wanted, x, states)}
    return {name: found[name] for name in wanted}


def limited(sequences: Sequence[Float32], n_steps: int) -> list[Float32]:
    """Keep sequences from the first on, and as much of the last as makes up ``n_steps``."""
    kept: list[Float32] = []
    for sequence in sequences:
        left = n_steps - sum(map(len, kept))
        if left > 0:
            kept.append(sequence[:left])
    return kept
