"""A stream's recurrent state: what a model remembers, and whose memory it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_gru.errors import StateMismatchError
from edge_gru.manifest import StateInfo

Float32 = npt.NDArray[np.float32]

_RESET = "reset the stream instead"
_LARGEST = float(np.finfo(np.float32).max)
_ROUNDING = 1 + 1e-6  # a blend in float32 may pass its end by a last digit


@dataclass(frozen=True)
class State:
    """The memory of one stream after ``n_steps`` steps of the model ``model_hash``.

    ``values`` maps each state name (``state_00_h``) to its ``(n_hidden,)`` float32 array.
    """

    model_hash: str
    n_steps: int
    values: Mapping[str, Float32]

    def check(self, model_hash: str, expected: Iterable[StateInfo]) -> None:
        """Make sure that this state can continue in the model ``model_hash``.

        Raises:
            StateMismatchError: another model, other state names, shapes or types, or a value that
                the cell cannot have reached.
        """
        if self.model_hash != model_hash:
            raise StateMismatchError(
                f"expected a state of model {model_hash[:12]}, "
                f"got one of {self.model_hash[:12]}; {_RESET}"
            )
        infos = tuple(expected)
        shapes = {info.name: (info.size,) for info in infos}
        found = {name: value.shape for name, value in self.values.items()}
        if found != shapes:
            raise StateMismatchError(f"expected states of shapes {shapes}, got {found}; {_RESET}")
        for info in infos:
            _check_values(info, self.values[info.name])


def _check_values(info: StateInfo, value: Float32) -> None:
    if value.dtype != np.float32:
        raise StateMismatchError(f"expected {info.name} in float32, got {value.dtype}; {_RESET}")
    worst = float(np.abs(value).max(initial=0))
    bound = _LARGEST if info.bound is None else info.bound * _ROUNDING
    if not worst <= bound:  # also refuses NaN
        raise StateMismatchError(
            f"expected {info.name} within +-{bound:g}, got {worst:g}; {_RESET}"
        )
