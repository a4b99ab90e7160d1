"""What every example offers."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from firmware_bridge.sample import Float32, Schema

DATA_VARIABLE = "EDGE_GRU_DATA"
MODELS = Path(__file__).parent / "models"

Targets = npt.NDArray[Any]


@dataclass(frozen=True)
class Architecture:
    """Shape of the network: GRU layers, one linear layer, and a sigmoid where ``squashed``."""

    n_hidden: int
    n_layers: int = 1
    squashed: bool = False


class Example(ABC):
    """A trained network with its data, its metric and its schema.

    Attributes:
        name: Key in ``EXAMPLES``; also the name of the checkpoint.
        outputs: Names of the values that the network gives at every step.
        labels: Names of the classes where the outputs are logits, else empty.
        task_metric: The entry of ``metric`` that decides, and whether more of it is better.
        resets: Whether the state is cleared where a recording begins.
    """

    name: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    labels: ClassVar[tuple[str, ...]] = ()
    task_metric: ClassVar[str]
    more_is_better: ClassVar[bool]
    resets: ClassVar[bool] = False
    architecture: ClassVar[Architecture]

    @abstractmethod
    def schema(self) -> Schema:
        """Return what the network expects of the board."""

    @abstractmethod
    def sequences(self, split: str) -> list[Float32]:
        """Return the recordings ``(n_steps, n_in)`` of a split, in physical units.

        Raises:
            FileNotFoundError: the recordings are not there.
            ValueError: there is no such split.
        """

    @abstractmethod
    def targets(self, split: str) -> list[Targets]:
        """Return the truth per step ``(n_steps,)``, in the order of ``sequences``."""

    @abstractmethod
    def metric(self, outputs: Sequence[Float32], split: str) -> Mapping[str, float]:
        """Score streamed outputs, one ``(n_steps, n_out)`` per recording of the split."""

    @property
    def checkpoint(self) -> Path:
        """File with the trained parameters."""
        return MODELS / f"{self.name}.pt"

    def build(self) -> Any:
        """Return the untrained ``torch.nn.Module``: ``(n_batch, n_steps, n_in)`` physical units in.

        Normalisation is inside. Needs torch.
        """
        return _network_module().build(self)

    def load_trained(self) -> Any:
        """Return the trained module in evaluation mode. Needs torch."""
        return _network_module().load_trained(self)


def data_folder(name: str) -> Path:
    """Find the folder of a recorded data set.

    Raises:
        FileNotFoundError: the variable is not set, or the folder is not there.
    """
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        raise FileNotFoundError(
            f"expected {DATA_VARIABLE} to name the folder with the recordings, but it is not set"
        )
    folder = Path(root) / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"expected the recordings in {folder}, which is not a folder; correct {DATA_VARIABLE}"
        )
    return folder


def check_split(split: str, known: Sequence[str]) -> None:
    """Refuse a split that an example does not have.

    Raises:
        ValueError: there is no such split.
    """
    if split not in known:
        raise ValueError(f"expected one of the splits {', '.join(known)}, got {split!r}")


def concatenated(parts: Sequence[npt.NDArray[Any]], n_expected: int) -> npt.NDArray[Any]:
    """Join streamed outputs of recordings.

    Raises:
        ValueError: there are not as many as there are recordings.
    """
    if len(parts) != n_expected:
        raise ValueError(f"expected outputs of {n_expected} recordings, got {len(parts)}")
    return np.concatenate(list(parts))


def _network_module() -> Any:
    # By name: the data and the metric of an example are used where there is no torch.
    return importlib.import_module("quantization.examples.network")
