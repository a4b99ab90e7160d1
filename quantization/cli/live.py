"""What a person watches while the demo runs: a table on a terminal, a line a second elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.live import Live
from rich.table import Table

from edge_gru.service import AlertEvent, Event, LinkEvent, PredictionEvent

_BAR_WIDTH = 32


class LiveSink:
    """Keeps every prediction, and shows the latest on each flush.

    ``truth`` maps seconds since the first sample to the true value of the first output.
    """

    def __init__(self, console: Console, rate_hz: float, truth: Callable[[float], float]) -> None:
        self.n_dropped = 0
        self.predictions: list[PredictionEvent] = []
        self.alerts: list[AlertEvent] = []
        self._console = console
        self._rate_hz = rate_hz
        self._truth = truth
        self._active = False
        self._next_line_s = 0.0
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def write(self, event: Event) -> None:
        """Keep an event."""
        if isinstance(event, PredictionEvent):
            self.predictions.append(event)
        elif isinstance(event, AlertEvent):
            self.alerts.append(event)
            self._active = event.active
        elif isinstance(event, LinkEvent) and self._live is not None:
            self._live.start()

    def flush(self) -> bool:
        """Show where the run is."""
        if not self.predictions:
            return True
        latest = self.predictions[-1]
        t_s = latest.sample_seq / self._rate_hz
        if self._live is not None:
            self._live.update(self._table(latest, t_s), refresh=True)
        elif t_s >= self._next_line_s:
            self._next_line_s += 1.0
            self._console.print(self._line(latest, t_s))
        return True

    def close(self) -> None:
        """Show the end and give the terminal back."""
        self.flush()
        if self._live is not None:
            self._live.stop()

    @property
    def outputs(self) -> npt.NDArray[np.float32]:
        """Every prediction as ``(n, n_out)``."""
        return np.array([list(event.y.values()) for event in self.predictions], np.float32)

    def _table(self, latest: PredictionEvent, t_s: float) -> Table:
        name, value = next(iter(latest.y.items()))
        table = Table(
            title="live from the serial port", title_justify="left", show_header=False, min_width=72
        )
        table.add_column("", width=18)
        table.add_column("", width=48)
        table.add_row("time", f"{t_s:5.1f} s, sample {latest.sample_seq}")
        table.add_row(f"{name}, predicted", f"[cyan]{_bar(value)}[/] {value:.2f}")
        table.add_row(f"{name}, true", f"{_bar(self._truth(t_s))} {self._truth(t_s):.2f}")
        table.add_row("called", "[bold red]WEAR[/]" if self._active else "healthy")
        state = "warming up" if latest.warming_up else "warm"
        table.add_row("memory", f"{latest.n_steps} steps behind it, {state}")
        table.add_row("latency", f"{latest.latency_us:.0f} us on {latest.engine}")
        return table

    def _line(self, latest: PredictionEvent, t_s: float) -> str:
        name, value = next(iter(latest.y.items()))
        return (
            f"{t_s:5.1f} s  {name} {value:.2f} (true {self._truth(t_s):.2f})  "
            f"{'WEAR' if self._active else 'healthy'}  {latest.n_steps} steps  "
            f"{latest.latency_us:.0f} us"
        )


def _bar(value: float) -> str:
    n_full = round(min(max(value, 0.0), 1.0) * _BAR_WIDTH)
    return "█" * n_full + "·" * (_BAR_WIDTH - n_full)
