"""Where the curve is loaded when it is needed, and what to install where it is not there."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from edge_gru.errors import ConfigError


class Curve(Protocol):
    """What ``edge_gru.signing.ed25519`` does."""

    def public_of(self, seed: bytes) -> bytes:
        """Compute the public key of a seed."""

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """Sign a message."""

    def is_signed(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Check a signature."""


def load_curve() -> Curve:
    """Import the curve.

    Raises:
        ConfigError: the package that computes it is not installed here.
    """
    try:
        module = importlib.import_module("edge_gru.signing.ed25519")
    except ImportError as error:
        raise ConfigError(
            f"signatures cannot be made or checked here ({error}), so nothing that needs one is "
            "done; apt install python3-cryptography, or pip install 'edge-gru[signed]'"
        ) from error
    return cast("Curve", module)
