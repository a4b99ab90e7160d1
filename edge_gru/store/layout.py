"""The names in a store's folder."""

from __future__ import annotations

import re

LEDGER = "state.json"
LOCK = "lock"
CURRENT = "current"
PREVIOUS = "previous"
BUNDLE = "model.egb"
SIGNATURE = "model.egb.minisig"
INCOMING = ".incoming"
RESTORED = ".restored"
RESERVE = ".reserve"

FOLDER = re.compile(r"[A-Za-z0-9_.-]+-[0-9]+-[0-9a-f]{8}")
LEFTOVER = re.compile(r"\.incoming|\.restored|\.(state\.json|current|previous)\.new")
_ODD = re.compile(r"[^A-Za-z0-9_.]+")


def folder_of(name: str, version: int, sha256: str) -> str:
    """Name the folder of a bundle."""
    return f"{_ODD.sub('_', name)[:64]}-{version}-{sha256[:8]}"
