"""Power cuts while a model is updated: whenever the supply goes, the next boot must serve."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from edge_gru.store.layout import INCOMING, LEDGER
from tests.boot.guest import PAYLOAD, TELL, Guest
from tests.boot.machine import SLOW_S, Machine, until_predicting
from tests.deploy.report import Report

STORE = "/var/lib/edge-gru/bundles"
TRIAL_S = 5
WATCH = f"python3 -I {PAYLOAD}/watch_store.py {STORE} {TELL}"
_EVERY = 3  # the third and every third after it is cut while the model is switched
_REACH, _SWITCH_REACH = 1.3, 1.2  # how far beyond its end an update is cut


@dataclass(frozen=True)
class Cut:
    """When the supply goes: a share of the time of a whole update, or of its switch alone."""

    number: int
    share: float
    is_at_switch: bool

    def __str__(self) -> str:
        """Give it in a few characters."""
        return f"{'switch ' if self.is_at_switch else ''}{self.share:.2f}"


def draw_cuts(n_cuts: int, chance: random.Random) -> list[Cut]:
    """Draw the instants, uniformly."""
    cuts = []
    for number in range(1, n_cuts + 1):
        is_at_switch = number % _EVERY == 0
        share = chance.uniform(0.0, _SWITCH_REACH if is_at_switch else _REACH)
        cuts.append(Cut(number, share, is_at_switch))
    return cuts


def update(version: int) -> str:
    """The command that brings a version of the model from the payload."""
    return f"edge-gru bundle install --trial {TRIAL_S} {PAYLOAD}/model-{version}.egb"


@dataclass
class Lane:
    """A machine that loses its supply again and again.

    ``serving`` is the version on its disk, ``hashes`` are those of all versions; ``counts`` says
    what the boots after the cuts served.
    """

    name: str
    machine: Machine
    serving: int
    hashes: Mapping[int, str]
    report: Report
    counts: Counter[str] = field(default_factory=Counter)
    _wanted: int = 0
    _update_s: float = 0.0
    _switch_s: float = 0.0

    def run(self, cuts: Sequence[Cut]) -> None:
        """Update once whole and measure that, then cut.

        Raises:
            GuestError: a boot does not come up, or serves nothing.
        """
        with self.machine.on() as guest:
            until_predicting(guest)
            self._watch(guest)
            self._measure(guest)
            self._cut(guest, cuts[0])
        for cut, following in zip(cuts, [*cuts[1:], None], strict=True):
            with self.machine.on() as guest:
                self._judge(guest, cut)
                if following is not None:
                    self._watch(guest)
                    self._cut(guest, following)

    def _watch(self, guest: Guest) -> None:
        guest.begin(WATCH)
        guest.until_told("watching", SLOW_S)

    def _measure(self, guest: Guest) -> None:
        begun_s = time.monotonic()
        self.serving += 1
        number = guest.begin(update(self.serving))
        guest.until_told(INCOMING, SLOW_S)
        unpacking_s = time.monotonic()
        guest.until_told(LEDGER, SLOW_S)
        self._switch_s = time.monotonic() - unpacking_s
        guest.finish(number, timeout_s=SLOW_S)
        self._update_s = time.monotonic() - begun_s
        self._say(
            f"an update takes {self._update_s:.1f} s, "
            f"of which the switch is {self._switch_s * 1e3:.0f} ms"
        )

    def _cut(self, guest: Guest, cut: Cut) -> None:
        self._wanted = self.serving + 1
        begun_s = time.monotonic()
        guest.begin(update(self._wanted))
        if cut.is_at_switch:
            guest.until_told(INCOMING, SLOW_S)
            time.sleep(cut.share * self._switch_s)
        else:
            time.sleep(max(0.0, begun_s + cut.share * self._update_s - time.monotonic()))
        guest.stop()
        after_s = time.monotonic() - begun_s
        self._say(f"cut {cut.number} ({cut}): {after_s:.1f} s into the update to {self._wanted}")

    def _judge(self, guest: Guest, cut: Cut) -> None:
        found = until_predicting(guest)
        bundle = found["bundle"]
        version = bundle["version"]
        is_right = version in (self.serving, self._wanted)
        is_right &= found["model_hash"] == self.hashes.get(version)
        which = "new" if version == self._wanted else "old"
        self.counts[which] += 1
        trial = "" if bundle["trial_s"] is None else ", on trial"
        self.report.check(
            f"machine {self.name}, boot after cut {cut.number}",
            f"{found['mono_s']:.0f} s old, serves version {version}, the {which} one{trial}",
            is_right=is_right,
        )
        self.serving = version

    def _say(self, text: str) -> None:
        self.report.say(f"      machine {self.name}: {text}")


def run_lanes(lanes: Sequence[Lane], cuts: Sequence[Cut]) -> Counter[str]:
    """Deal the cuts out to machines that run side by side; return what the boots served.

    Raises:
        GuestError: as `Lane.run`.
    """
    with ThreadPoolExecutor(len(lanes)) as pool:
        runs = [
            pool.submit(lane.run, cuts[index :: len(lanes)]) for index, lane in enumerate(lanes)
        ]
    for run in runs:
        run.result()
    return sum((lane.counts for lane in lanes), Counter())
