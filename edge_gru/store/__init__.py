"""The bundles on a device: the one that serves, the one before, how one becomes the other."""

from edge_gru.store.admission import SignedBundle, read_signed
from edge_gru.store.board import board_names
from edge_gru.store.disk import Disk
from edge_gru.store.ledger import Entry, Ledger, Trial, TrialPlan
from edge_gru.store.store import Candidate, Store
from edge_gru.store.trial import TrialJudge, TrialLimits

__all__ = [
    "Candidate",
    "Disk",
    "Entry",
    "Ledger",
    "SignedBundle",
    "Store",
    "Trial",
    "TrialJudge",
    "TrialLimits",
    "TrialPlan",
    "board_names",
    "read_signed",
]
