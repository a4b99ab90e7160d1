"""The lines of minisign's files: comments, and base64 that can be written in one way only."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from edge_gru.errors import ConfigError

MAX_BYTES = 1 << 14
MAX_COMMENT_BYTES = 1024  # of the line that nobody trusts, as minisign reads it
UNTRUSTED = "untrusted comment: "


def read_text(path: Path) -> str:
    """Read a key or signature file, which is small, regular and UTF-8.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it cannot be read, or is something else.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from error
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        os.close(handle)
        raise ConfigError(f"{path}: expected a file of a few lines, got something else")
    with os.fdopen(handle, "rb") as file:
        data = file.read()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected text in UTF-8, got other bytes") from error


def split_lines(text: str, n_lines: int, what: str) -> list[str]:
    """Split a file into exactly ``n_lines`` lines.

    Raises:
        ConfigError: it has more or fewer.
    """
    lines = text.removesuffix("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    if len(lines) != n_lines:
        raise ConfigError(f"expected {what} of {n_lines} lines, got {len(lines)}; copy it again")
    return lines


def comment_of(line: str, mark: str, what: str) -> str:
    """Take the comment that stands behind ``mark`` in a line.

    Raises:
        ConfigError: the line begins with something else.
    """
    if not line.startswith(mark):
        raise ConfigError(f"expected {what} with a line {mark!r}, got {line[:40]!r}; copy it again")
    return line.removeprefix(mark)


def decode(line: str, n_bytes: int, what: str) -> bytes:
    """Read base64 of exactly ``n_bytes`` bytes; no two texts give the same bytes.

    Raises:
        ConfigError: it is something else.
    """
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"expected {what} in base64, got {error}; copy it again") from error
    if len(data) != n_bytes or encode(data) != line:
        raise ConfigError(f"expected {what} of {n_bytes} bytes, got others; copy it again")
    return data


def encode(data: bytes) -> str:
    """Write base64."""
    return base64.b64encode(data).decode()
