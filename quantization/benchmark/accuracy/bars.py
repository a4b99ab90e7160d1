"""What the rows of a table have to reach: sentences about those that do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantization.benchmark.accuracy.measure import Row

OURS = "rec"
AMPLIFIER_ESR = 0.01
_WORSENING = 0.001  # relative, of a task metric
_ENGINE_MARGIN_DB = 0.5


def of_tasks(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: rec 55 dB, on LM 60, its metric kept and nothing stuck; w4 38 dB."""
    for row in rows:
        if row.form == OURS:
            yield from _below(row, 60.0 if row.model.startswith("LM") else 55.0)
            yield from _worse_or_stuck(row)
        elif row.form == "w4":
            yield from _below(row, 38.0)


def of_examples(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: rec 50 dB, its metric and every decision kept, nothing stuck."""
    for row in rows:
        if row.form == OURS:
            yield from _below(row, 50.0)
            yield from _worse_or_stuck(row)
            if row.n_changed:
                yield f"{row.model}, {row.form}: {row.n_changed} decisions change, expected none"


def of_large(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: rec 32 dB, rec-hilo 42."""
    bars = {"rec": 32.0, "rec-hilo": 42.0}
    for row in rows:
        if row.form in bars:
            yield from _below(row, bars[row.form])


def of_amplifiers(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: the gate refuses rec and says why; auto keeps the ESR."""
    for row in rows:
        if row.form == OURS and not (row.gate == "fail" and row.remark):
            yield f"{row.model}, rec: expected the gate to refuse it and to say why, got {row.gate}"
        if row.form.startswith("auto") and not _at_most(row.metric_value, AMPLIFIER_ESR):
            yield f"{row.model}, {row.form}: ESR {row.metric_value:.3g}, bar {AMPLIFIER_ESR:g}"


def of_cells(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: the gate is passed."""
    for row in rows:
        if row.gate == "fail":
            yield f"{row.model}, {row.form} on {row.engine}: does not pass its gate"


def of_engines(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: every engine within 0.5 dB of the reference."""
    expected = {(row.model, row.form): row.sqnr_db for row in rows if row.engine == "reference"}
    for row in rows:
        expected_db = expected[row.model, row.form]
        if expected_db is not None and not _above(row.sqnr_db, expected_db - _ENGINE_MARGIN_DB):
            yield (
                f"{row.model}, {row.form}: {row.sqnr_db:.2f} dB on {row.engine}, "
                f"{expected_db:.2f} on the reference"
            )


def of_peers(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is missed of: rec ahead in SQNR of every tool, and its metric no worse."""
    ours = {row.model: row for row in rows if row.form == OURS}
    for row in rows:
        own = ours[row.model]
        if row is own or row.sqnr_db is None:
            continue
        if not _above(own.sqnr_db, row.sqnr_db):
            yield f"{row.model}: {row.form} has {row.sqnr_db:.1f} dB, ours {own.sqnr_db:.1f}"
        allowed = max(_WORSENING, row.metric_worsening or 0.0)
        if not _at_most(own.metric_worsening, allowed):
            yield f"{row.model}: our {own.metric} is worse than that of {row.form}"


def _below(row: Row, bar_db: float) -> Iterator[str]:
    if not _above(row.sqnr_db, bar_db):
        yield f"{row.model}, {row.form}: {row.sqnr_db:.1f} dB, bar {bar_db:g}"


def _worse_or_stuck(row: Row) -> Iterator[str]:
    if not _at_most(row.metric_worsening, _WORSENING):
        yield (
            f"{row.model}, {row.form}: {row.metric} {row.metric_worsening:+.3%} worse, "
            f"bar {_WORSENING:.1%}"
        )
    if row.n_stuck:
        yield f"{row.model}, {row.form}: {row.n_stuck} units stand still"


def _above(found: float | None, bar: float) -> bool:
    return found is not None and found >= bar


def _at_most(found: float | None, bar: float) -> bool:
    return found is not None and found <= bar
