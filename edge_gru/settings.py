"""Settings in TOML files as people write them: what is wrong with one is said in a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge_gru.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file of settings; nothing in it is checked.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        settings: dict[str, Any] = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML (key = value lines), got {error}") from error
    return settings


def refuse_unknown(settings: Mapping[str, Any], kind: type[T], *, origin: str) -> None:
    """Refuse a key that ``kind`` has not; ``origin`` says where the settings come from.

    Raises:
        ConfigError: there is one; it names the key that is nearest.
    """
    known = kind.__struct_fields__
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
            raise ConfigError(f"{origin}: unknown key {key!r}; {hint}")


def converted(settings: Mapping[str, Any], kind: type[T], *, origin: str) -> T:
    """Turn known keys into ``kind``, with its defaults.

    Raises:
        ConfigError: a key is missing, or a value is of a wrong type or out of its range.
    """
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        key = where.strip(".`") or "settings"
        got = settings.get(key.split("[")[0])
        sentence = what[:1].lower() + what[1:]
        raise ConfigError(f"{origin}: {key}: {sentence} (the value is {got!r})") from error
