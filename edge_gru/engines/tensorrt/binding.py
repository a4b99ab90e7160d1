"""The one home of ``tensorrt``: what it must be, and where what it says goes."""

from __future__ import annotations

import logging
import re
from collections import deque

from edge_gru.engines.tensorrt import INSTALL
from edge_gru.errors import EngineUnavailableError

try:
    import tensorrt as trt
except (ImportError, OSError) as error:  # OSError: the binding is here and its libraries are not
    raise EngineUnavailableError(
        f"the Python binding of TensorRT is not installed here ({error}); {INSTALL}"
    ) from error

__all__ = ["LOG", "Log", "check_version", "trt"]

_OLDEST = (10, 3)
_NEWEST_MAJOR = 11
_N_KEPT = 50
_LEVELS = {  # TensorRT calls "info" what others call "debug"
    trt.ILogger.INTERNAL_ERROR: logging.ERROR,
    trt.ILogger.ERROR: logging.ERROR,
    trt.ILogger.WARNING: logging.WARNING,
    trt.ILogger.INFO: logging.DEBUG,
    trt.ILogger.VERBOSE: logging.NOTSET,
}

_log = logging.getLogger(__name__)


def check_version(version: str) -> None:
    """Make sure that this TensorRT has what the engine needs.

    Raises:
        EngineUnavailableError: older than 10.3, or newer than 11.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    if release < _OLDEST:
        raise EngineUnavailableError(
            f"expected TensorRT 10.3 or newer, got {version}; move the board to JetPack 6.2, "
            "or run another engine"
        )
    if release[0] > _NEWEST_MAJOR:
        raise EngineUnavailableError(
            f"expected TensorRT 10.3 to {_NEWEST_MAJOR}, got {version}, which this edge-gru does "
            "not know; install a newer one, or run another engine"
        )


class Log(trt.ILogger):
    """Hands on to ``logging`` what TensorRT says, and keeps warnings and errors.

    A call that fails answers None or False: its reason is told here and nowhere else. The first
    logger of a process is the only one that TensorRT uses, so there is one, ``LOG``.
    """

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._kept: deque[tuple[int, str]] = deque(maxlen=_N_KEPT)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Take one message; called by any thread of TensorRT's."""
        level = _LEVELS.get(severity, logging.NOTSET)
        if level == logging.NOTSET:
            return
        if level >= logging.WARNING:
            self._kept.append((level, msg))
        # An error is told again by whoever sees the call fail.
        _log.log(min(level, logging.WARNING), "TensorRT: %s", msg)

    def clear(self) -> None:
        """Forget what was said so far."""
        self._kept.clear()

    def messages(self) -> tuple[str, ...]:
        """Return the warnings and errors since ``clear``."""
        return tuple(msg for _, msg in self._kept)

    def reason(self) -> str:
        """Return the errors since ``clear``, as a part of a sentence."""
        errors = [msg for level, msg in self._kept if level >= logging.ERROR]
        return "; ".join(errors) or "TensorRT gave no reason"


check_version(trt.__version__)
LOG = Log()
