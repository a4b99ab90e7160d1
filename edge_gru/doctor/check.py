"""What one look at a machine says: a verdict, a sentence, and what to do."""

from __future__ import annotations

from enum import Enum

import msgspec


class Status(str, Enum):
    """How a check came out; ``SKIP``: it does not apply to this machine, or nothing tells."""

    PASS = "PASS"  # noqa: S105 - a verdict
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


class Check(msgspec.Struct, frozen=True):
    """The result of one check; ``fix`` is one line that a user can follow, empty if none is due."""

    name: str
    status: Status
    says: str
    fix: str = ""


def passed(name: str, says: str) -> Check:
    """Report that all is well."""
    return Check(name, Status.PASS, says)


def warned(name: str, says: str, fix: str) -> Check:
    """Report what costs speed or may go wrong."""
    return Check(name, Status.WARN, says, fix)


def failed(name: str, says: str, fix: str) -> Check:
    """Report what keeps edge-gru from working."""
    return Check(name, Status.FAIL, says, fix)


def skipped(name: str, says: str) -> Check:
    """Report that there is nothing to say."""
    return Check(name, Status.SKIP, says)
