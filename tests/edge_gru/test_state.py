from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edge_gru.errors import StateMismatchError
from edge_gru.manifest import StateInfo
from edge_gru.state import State

INFOS = (StateInfo("state_00_h", 3, 1.0), StateInfo("state_01_h", 2, 2.5))


def state(**changes: object) -> State:
    values = {"state_00_h": np.zeros(3, np.float32), "state_01_h": np.zeros(2, np.float32)}
    return State("a" * 64, 5, {**values, **changes})


def test_state_of_this_model_is_fine() -> None:
    state().check("a" * 64, INFOS)
    state(state_01_h=np.array([2.5, -2.5], np.float32)).check("a" * 64, iter(INFOS))


def test_a_last_digit_past_the_bound_is_fine() -> None:
    past = np.nextafter(np.ones(3, np.float32), np.float32(2))
    state(state_00_h=past).check("a" * 64, INFOS)


def test_state_of_another_model_names_both() -> None:
    with pytest.raises(StateMismatchError, match="of model bbbbbbbbbbbb, got one of aaaaaaaaaaaa"):
        state().check("b" * 64, INFOS)


BAD: Mapping[str, tuple[dict[str, np.ndarray], str]] = {
    "one more": ({"state_02_h": np.zeros(1, np.float32)}, "states of shapes"),
    "too long": ({"state_01_h": np.zeros(3, np.float32)}, r"'state_01_h': \(3,\)"),
    "a row": ({"state_01_h": np.zeros((1, 2), np.float32)}, r"'state_01_h': \(1, 2\)"),
    "float64": ({"state_01_h": np.zeros(2)}, "state_01_h in float32, got float64"),
    "text": ({"state_01_h": np.array(["a", "b"])}, "in float32"),
    "past the bound": ({"state_01_h": np.array([0, -2.51], np.float32)}, r"\+-2.5, got 2.51"),
    "past its own bound": ({"state_00_h": np.full(3, 1.5, np.float32)}, r"state_00_h within \+-1"),
    "not a number": ({"state_00_h": np.full(3, np.nan, np.float32)}, "got nan"),
    "infinite": ({"state_00_h": np.array([0, np.inf, 0], np.float32)}, "got inf"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_state_that_cannot_be_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(StateMismatchError, match=message) as caught:
        state(**changes).check("a" * 64, INFOS)
    assert str(caught.value).endswith("; reset the stream instead")


def test_missing_state_is_refused() -> None:
    lone = State("a" * 64, 5, {"state_00_h": np.zeros(3, np.float32)})
    with pytest.raises(StateMismatchError, match="states of shapes"):
        lone.check("a" * 64, INFOS)
