"""Every operation of a program that is no cell over time."""

from __future__ import annotations

from collections.abc import Callable

from edge_gru.engines.operators import OPERATORS, Float64
from edge_gru.engines.walk import WALK, walk

OPERATIONS: dict[str, Callable[..., Float64]] = {**OPERATORS, WALK: walk}
