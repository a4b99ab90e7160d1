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
            StateMismatchError: another model, other state names or sizes, or a value that the cell
                cannot have reached.
        """
        if self.model_hash != model_hash:
            raise StateMismatchError(
                f"expected a state of model {model_hash[:12]}, "
                f"got one of {self.model_hash[:12]}; {_RESET}"
            )
        bounds = {info.name: (info.size, info.bound) for info in expected}
        found = {name: value.size for name, value in self.values.items()}
        if found != {name: size for name, (size, _) in bounds.items()}:
            raise StateMismatchError(f"expected states {dict(bounds)}, got {found}; {_RESET}")
        for name, value in self.values.items():
            worst = float(np.abs(value).max(initial=0))
            if not worst <= bounds[name][1] * _ROUNDING:  # also refuses NaN
                raise StateMismatchError(
                    f"expected {name} within +-{bounds[name][1]:g}, got {worst:g}; {_RESET}"
                )
