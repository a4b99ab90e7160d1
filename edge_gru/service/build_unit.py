"""The unit beside the service that builds engines: a search begins once it has ended."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)

FILE_VARIABLE = "EDGE_GRU_COMPILE_FILE"
_BUILDING = "building"
_APPEARS_S = 60.0
_LASTS_S = 35 * 60.0  # its time limit, and some more
_LOOK_S = 1.0
_MAX_BYTES = 1 << 16


class BuildUnit:
    """Reads in ``file`` what the unit says of itself; None: there is no such unit.

    Two builds at once would take the cores and the memory that predicting needs.
    """

    def __init__(self, file: Path | None = None, *, look_s: float = _LOOK_S) -> None:
        self._file = file
        self._look_s = look_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> BuildUnit:
        """Use the file that the unit of the service names."""
        name = environment.get(FILE_VARIABLE)
        return cls(Path(name) if name else None)

    def wait(self, cancel: threading.Event) -> None:
        """Return once the unit has built or failed, does not begin within a minute, or hangs."""
        if self._file is None:
            return
        begun_s = time.monotonic()
        while not cancel.wait(self._look_s):
            state, waited_s = _read(self._file), time.monotonic() - begun_s
            if state is None and waited_s < _APPEARS_S:
                continue
            if state != _BUILDING or waited_s >= _LASTS_S:
                break
        _log.debug("waited %.0f s for the unit that builds engines", time.monotonic() - begun_s)


def _read(file: Path) -> str | None:
    """Tell the state in the file; None: there is none. Its date says nothing: clocks are set."""
    try:
        with file.open("rb") as opened:
            found = msgspec.json.decode(opened.read(_MAX_BYTES), type=dict[str, str])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found.get("state")
