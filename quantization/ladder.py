"""The cheapest recipe that passes the gate, by the step as it is measured here."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
import numpy as np

from edge_gru.engines.base import Engine
from edge_gru.engines.measure import times_us
from edge_gru.engines.select import AUTO, open_engine
from edge_gru.engines.table import ENGINES
from edge_gru.errors import ConfigError, EngineUnavailableError
from edge_gru.manifest import Recipe
from quantization import pack
from quantization.checks import CONTROL_CHECK
from quantization.judgement import Judgement
from quantization.recipe import RECIPES
from quantization.work import Attempt, Work

_RUNGS = ("int8", "rec", "rec-hilo", "int8-hilo", "fp16", "fp32")
_N_SAMPLES = 128


class Rung(msgspec.Struct, frozen=True):
    """One recipe of the ladder: the median step, and what the gate said where it was asked.

    ``verdict`` is None where a cheaper recipe had passed already.
    """

    recipe: str
    engine: str
    p50_us: float
    sqnr_db: float | None = None
    verdict: str | None = None
    reason: str = ""


def climb(work: Work, engine: str = "auto") -> tuple[list[Rung], Attempt]:
    """Try recipes from the cheapest step up until one passes the gate without a warning of its own.

    Args:
        work: what to quantize and judge.
        engine: whose step counts; ``auto`` is the fastest of those that serve, for each recipe.

    Returns every recipe in the order of cost, and what was taken: fp32, which is always among
    them, if nothing cheaper passes.

    Raises:
        ConfigError: there is no such engine here, or it does not run fp32.
    """
    rungs = measure_rungs(work, engine)
    for k, row in enumerate(rungs):
        attempt = work.attempt(RECIPES[row.recipe])
        judgement = attempt.evidence.judgement
        rungs[k] = msgspec.structs.replace(
            row,
            sqnr_db=attempt.evidence.deviations[judgement.precision].sqnr_db,
            verdict=judgement.verdict,
            reason="; ".join(judgement.result.reasons[:1]),
        )
        if _is_passed(judgement) or row.recipe == "fp32":
            return rungs, attempt
    raise ConfigError(f"expected an engine that runs fp32, got {engine}; use another")


def _is_passed(judgement: Judgement) -> bool:
    """Tell whether nothing speaks against a recipe; the control is of fp32, the same for all."""
    warned = {check.name for check in judgement.checks if check.verdict == "warn"}
    return not judgement.failures and warned <= {CONTROL_CHECK}


def measure_rungs(work: Work, engine: str) -> list[Rung]:
    """Time one step of every recipe, in interleaved rounds; the cheapest first.

    Rounding is to nearest here: it does not change what a step costs.
    """
    names = _engines_of(engine)
    with ExitStack() as stack:
        opened: dict[str, Engine] = {}
        for rung in _RUNGS:
            quantized = work.narrow(_to_nearest(RECIPES[rung])).quantized
            source = pack.trial(work.model, work.description, work.data, quantized)
            for name in names:
                try:
                    found = open_engine(name, source, precision=quantized.precision)
                except EngineUnavailableError:
                    continue
                opened[f"{rung} {name}"] = stack.enter_context(found)
        times = times_us(opened, work.data.joined(_N_SAMPLES))
    medians = {key: float(np.median(found)) for key, found in times.items()}
    rows = [
        min(
            (
                Rung(rung, name, medians[key])
                for name in names
                if (key := f"{rung} {name}") in medians
            ),
            key=lambda row: row.p50_us,
            default=None,
        )
        for rung in _RUNGS
    ]
    found_rows = [row for row in rows if row is not None]
    if not found_rows:
        raise ConfigError(
            f"expected an engine of {', '.join(ENGINES)} that runs here, got {engine!r}"
        )
    return sorted(found_rows, key=lambda row: row.p50_us)


def _engines_of(name: str) -> list[str]:
    if name != AUTO:
        return [name]
    return [name for name, row in ENGINES.items() if row.serves and not row.needs_build]


def _to_nearest(recipe: Recipe) -> Recipe:
    kinds = {
        kind: msgspec.structs.replace(getattr(recipe, kind), rounding="nearest")
        for kind in ("recurrent", "stacked", "input", "dense")
    }
    return msgspec.structs.replace(recipe, **kinds)
