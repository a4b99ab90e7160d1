"""A trained model as one time step: operations, weights and states, before any quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_gru.engines.cells import CELLS
from edge_gru.errors import ModelError
from edge_gru.manifest import Normalisation, Program, StateInfo, StepNode

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StepModel:
    """What an importer makes of a trained model, in fp32.

    ``weights`` holds float32 (and for shapes and indices int64) arrays by the names that the nodes
    of ``program`` use. Input ``x`` is ``(batch, n_in)``, the output ``(batch, n_out)``.
    """

    program: Program
    weights: Mapping[str, Array]
    states: tuple[StateInfo, ...]
    n_in: int
    n_out: int
    normalisation: Normalisation | None = None

    @property
    def cells(self) -> dict[str, str]:
        """Prefix of each recurrent cell, in order -> the state h that its product reads."""
        nodes = (node for node in self.program.nodes if node.op in CELLS)
        return {str(node.attributes["cell"]): node.inputs[1] for node in nodes}

    def check_finite(self) -> None:
        """Refuse weights that are NaN or infinite.

        Raises:
            ModelError: names one that is.
        """
        for name, value in self.weights.items():
            if not np.isfinite(value).all():
                raise ModelError(
                    f"expected finite weights, got NaN or Inf in {name}; is this the right "
                    "checkpoint, and did the training converge?"
                )

    def normalised(self, normalisation: Normalisation) -> StepModel:
        """Return the model with ``(x - mean) / scale`` in front, so that it takes physical units.

        Two operations of their own, as the trainer computed them: folded into the weights, a large
        mean would cancel against the bias and cost digits.

        Raises:
            ModelError: not one mean and one positive scale for each channel.
        """
        mean, scale = (np.array(v, np.float32) for v in (normalisation.mean, normalisation.scale))
        if mean.shape != (self.n_in,) or scale.shape != (self.n_in,):
            raise ModelError(
                f"expected a mean and a scale for each of {self.n_in} channels, "
                f"got {mean.size} and {scale.size}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError("expected finite means and positive scales; drop constant channels")
        first = (
            StepNode("Sub", ("x", "input.mean"), ("x_centred",)),
            StepNode("Div", ("x_centred", "input.scale"), ("x_normalised",)),
        )
        nodes = tuple(_with_input(node, "x", "x_normalised") for node in self.program.nodes)
        program = Program(first + nodes, self.program.output, self.program.opset)
        weights = {**self.weights, "input.mean": mean, "input.scale": scale}
        return replace(self, program=program, weights=weights, normalisation=normalisation)


def _with_input(node: StepNode, old: str, new: str) -> StepNode:
    inputs = tuple(new if name == old else name for name in node.inputs)
    return StepNode(node.op, inputs, node.outputs, node.attributes)
