"""Every error that firmware_bridge raises. Bytes from the wire never raise: they count."""


class BridgeError(Exception):
    """Root of the errors of firmware_bridge."""


class PortError(BridgeError, OSError):
    """A port cannot be opened or configured, or is held by another process."""


class PortNotFoundError(PortError, FileNotFoundError):
    """Nothing has the name of the port now; it may come back."""


class SchemaError(BridgeError, ValueError):
    """A schema is malformed, or the board's channels are not the expected ones."""


class ProtocolError(BridgeError, RuntimeError):
    """The board answers, but cannot be worked with: no common version, or a refused request."""


class FormatError(BridgeError, ValueError):
    """A format name is unknown, or its settings make no sense."""
