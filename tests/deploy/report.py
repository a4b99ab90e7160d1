"""What long checks print."""

from __future__ import annotations

import sys
import time


class Report:
    """Says what is done, and counts what is wrong."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        self.n_wrong = 0

    def say(self, text: str) -> None:
        """Print a line with the seconds since the begin."""
        sys.stdout.write(f"[{time.monotonic() - self._begun_s:6.1f} s] {text}\n")
        sys.stdout.flush()

    def check(self, what: str, found: object, *, is_right: bool) -> None:
        """Print what was found, and whether it is as it should be."""
        self.n_wrong += not is_right
        self.say(f"{'ok   ' if is_right else 'WRONG'} {what}: {found}")
