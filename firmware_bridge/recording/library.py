"""The MCAP library, imported when a recording is opened: boards that record nothing lack it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from firmware_bridge.errors import FormatError


def mcap_file() -> Any:
    """Return the module `firmware_bridge.recording.mcap_file`.

    Raises:
        FormatError: the library is not installed.
    """
    try:
        return import_module("firmware_bridge.recording.mcap_file")
    except ModuleNotFoundError as error:
        raise FormatError(
            f"recordings need {error.name}; pip install 'edge-gru[record]'"
        ) from error
