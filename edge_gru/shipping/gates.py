"""What must hold before something is changed: each gate passes, or says how to make it pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge_gru.errors import ShippingError


@dataclass(frozen=True)
class Gate:
    """What was looked at, what was found, and the way out if that is not enough."""

    name: str
    is_passed: bool
    found: str
    fix: str = ""

    @property
    def line(self) -> str:
        """One line for people."""
        if self.is_passed:
            return f"PASS  {self.name}: {self.found}"
        return f"FAIL  {self.name}: {self.found}; {self.fix}"


def refuse(gates: Sequence[Gate]) -> None:
    """Stop at closed gates.

    Raises:
        ShippingError: one of them has not passed; it says which ones, and the first one's way out.
    """
    closed = [gate for gate in gates if not gate.is_passed]
    if closed:
        more = f" (and {len(closed) - 1} more: see --check)" if len(closed) > 1 else ""
        first = closed[0]
        raise ShippingError(f"{first.name}: {first.found}; {first.fix}{more}; nothing was changed")
