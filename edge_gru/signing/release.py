"""What a signed bundle says of itself in its trusted comment: who it is for, and how new."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_gru.errors import BundleError, ConfigError

ANY_BOARD = "any"
_MAX_VERSION = 10**9
_HASH = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[^\s,:]+")


@dataclass(frozen=True)
class Release:
    """The claims of a trusted comment; tab-separated ``key:value`` as minisign's own.

    ``version`` counts up with every release of ``name``. ``boards`` are names that one of the
    device's own must be among; ``any`` fits all. ``signed_at_s`` is Unix time, for people: nothing
    is decided by it. ``continues`` are hashes of models whose state this one may go on from.
    """

    name: str
    version: int
    boards: tuple[str, ...] = (ANY_BOARD,)
    signed_at_s: int = 0
    continues: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fault = self._fault
        if fault:
            raise ConfigError(f"{fault}; sign it with other values")

    @property
    def _fault(self) -> str | None:
        if not self.name or not self.name.isprintable():
            return f"expected a name that can be printed, got {self.name!r}"
        if not 1 <= self.version <= _MAX_VERSION:
            return f"expected a version from 1 to {_MAX_VERSION}, got {self.version}"
        if not self.boards or not all(_WORD.fullmatch(board) for board in self.boards):
            return f"expected names of boards without spaces and commas, got {self.boards}"
        if not all(_HASH.fullmatch(model) for model in self.continues):
            return f"expected hashes of models to continue, got {self.continues}"
        return None

    def to_comment(self, file_name: str) -> str:
        """Write the trusted comment for a file."""
        fields = {
            "timestamp": self.signed_at_s,
            "file": file_name,
            "name": self.name,
            "version": self.version,
            "board": ",".join(self.boards),
        }
        if self.continues:
            fields["continues"] = ",".join(self.continues)
        return "\t".join([*(f"{key}:{value}" for key, value in fields.items()), "hashed"])

    @classmethod
    def from_comment(cls, comment: str) -> Release:
        """Read a trusted comment whose signature was checked.

        Raises:
            BundleError: it does not say what a device must know, or says it twice.
        """
        words = [word.partition(":") for word in comment.split("\t")]
        fields = {key: value for key, mark, value in words if mark}
        if len(fields) != sum(bool(mark) for _, mark, _ in words):
            raise BundleError("the signed comment says something twice; sign the bundle again")
        missing = [key for key in ("name", "version", "board") if not fields.get(key)]
        if missing:
            raise BundleError(
                f"expected a signed comment with name, version and board, got one without "
                f"{', '.join(missing)}; sign the bundle with `edge-gru keys sign`"
            )
        try:
            return cls(
                name=fields["name"],
                version=_count(fields["version"]),
                boards=tuple(fields["board"].split(",")),
                signed_at_s=_count(fields.get("timestamp", "0")),
                continues=tuple(filter(None, fields.get("continues", "").split(","))),
            )
        except ConfigError as error:
            raise BundleError(f"the signed comment is not valid: {error}") from error


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ConfigError(f"expected a number, got {text[:40]!r}")
    return int(text)
