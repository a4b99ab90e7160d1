"""Serve at once on an engine that is ready, and find the faster one that needs a build."""

from __future__ import annotations

from dataclasses import dataclass

from edge_gru.engines.base import Engine, EngineSource
from edge_gru.engines.choices import recall
from edge_gru.engines.golden import GoldenResult
from edge_gru.engines.measure import Measurement, fastest, measure
from edge_gru.engines.select import AUTO, choose, open_known, open_measured, open_proven
from edge_gru.engines.table import ENGINES, Build, find_row, unavailable
from edge_gru.errors import EngineUnavailableError


@dataclass(frozen=True)
class Better:
    """An engine that passed the golden vectors and may take over, or the reason why none does."""

    engine: Engine | None
    golden: GoldenResult | None
    reason: str


@dataclass(frozen=True)
class Upgrade:
    """The search for an engine that is better than the one that serves: ``name``, or the fastest.

    ``serving`` names engine and precision of the one that serves.
    """

    source: EngineSource
    name: str
    precision: str | None
    serving: tuple[str, str]

    @property
    def title(self) -> str:
        """Name what is built, for people."""
        return self.name if self.name != AUTO else " and ".join(_builders())

    def find(self, build: Build) -> Better:
        """Build, measure and prove; may take minutes.

        Raises:
            EngineUnavailableError: nothing can be built, or the search was stopped.
            GoldenMismatchError: what was found does not reproduce the golden vectors.
            BundleError: a part of the bundle is missing or broken.
        """
        source, precision = self.source, self.precision
        if self.name != AUTO:  # its fastest precision, however fast the others are
            wanted = () if precision is None else (precision,)
            rows = tuple(measure(source, precisions=wanted, engines=[self.name], build=build))
            best = fastest(rows, source.precision(precision))
            return self._opened((best.engine, best.precision), rows, build)
        choice = recall(source.manifest.model_hash, precision)
        if choice is not None and choice.is_whole:
            known = open_known(choice.engine, choice.precision, source, build=build)
            if known is not None:
                chosen = (choice.engine, choice.precision)
                return Better(*known, _why(choice.rows, chosen, self.serving))
        choice = choose(source, precision, build=build)
        return self._opened((choice.engine, choice.precision), choice.rows, build)

    def _opened(
        self, chosen: tuple[str, str], rows: tuple[Measurement, ...], build: Build
    ) -> Better:
        if chosen == self.serving:
            return Better(None, None, _why_not(rows, self.serving))
        engine, precision = chosen
        opened, golden = open_proven(engine, self.source, precision=precision, build=build)
        return Better(opened, golden, _why(rows, chosen, self.serving))


@dataclass(frozen=True)
class Start:
    """An engine that serves from now on, and the search for a better one, if there may be one."""

    engine: Engine
    golden: GoldenResult
    upgrade: Upgrade | None = None


def start(name: str, source: EngineSource, *, precision: str | None = None) -> Start:
    """Open an engine that serves at once: the one that is asked for, unless it needs a build.

    Raises:
        EngineUnavailableError: what is asked for is unknown, not installed, or cannot run this.
        GoldenMismatchError: it does not reproduce the golden vectors.
        BundleError: a part of the bundle is missing or broken.
    """
    if name != AUTO and not find_row(name).needs_build:
        return Start(*open_proven(name, source, precision=precision))
    if name != AUTO and (reason := unavailable(name)) is not None:
        raise EngineUnavailableError(reason)
    source.precision(precision)
    engine, golden = open_ready(source, precision)
    if name == AUTO and (_is_settled(source, precision) or not _builders()):
        return Start(engine, golden)
    serving = (engine.name, engine.precision)
    return Start(engine, golden, Upgrade(source, name, precision, serving))


def open_ready(source: EngineSource, precision: str | None) -> tuple[Engine, GoldenResult]:
    """Open the fastest engine that needs no build, as measured before or now.

    Raises:
        EngineUnavailableError: there is none.
        BundleError: a part of the bundle is missing or broken.
    """
    choice = recall(source.manifest.model_hash, precision)
    rows = () if choice is None else choice.rows
    ready = [r for r in rows if r.usable and r.engine in ENGINES and not _is_built(r)]
    if ready:
        best = fastest(ready, source.precision(precision))
        known = open_known(best.engine, best.precision, source)
        if known is not None:
            return known
    return open_measured(source, precision=precision)


def _is_settled(source: EngineSource, precision: str | None) -> bool:
    """Whether every engine was measured, and one that needs no build is the fastest."""
    choice = recall(source.manifest.model_hash, precision)
    row = None if choice is None else ENGINES.get(choice.engine)
    return choice is not None and choice.is_whole and row is not None and not row.needs_build


def _builders() -> list[str]:
    """Name the engines that need a build and can be imported here."""
    return [
        name
        for name, row in ENGINES.items()
        if row.needs_build and row.serves and unavailable(name) is None
    ]


def _is_built(row: Measurement) -> bool:
    return ENGINES[row.engine].needs_build


def _median_us(rows: tuple[Measurement, ...], wanted: tuple[str, str]) -> float | None:
    return next((r.p50_us for r in rows if (r.engine, r.precision) == wanted), None)


def _why(rows: tuple[Measurement, ...], chosen: tuple[str, str], serving: tuple[str, str]) -> str:
    now, before = _median_us(rows, chosen), _median_us(rows, serving)
    if now is None or before is None:
        return "it was asked for"
    return f"a step takes {now:.3g} us, instead of {before:.3g} us"


def _why_not(rows: tuple[Measurement, ...], serving: tuple[str, str]) -> str:
    built = [row for row in rows if _is_built(row)]
    usable = [row for row in built if row.usable]
    if not usable:
        return "; ".join(dict.fromkeys(row.reason for row in built)) or "nothing was built"
    best = fastest(usable)
    stays = f"{' '.join(serving)} {_median_us(rows, serving) or 0.0:.3g} us"
    return f"{best.title} takes {best.p50_us:.3g} us a step, {stays}"
