"""A recording in the place of a link: the same samples and events, at any speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from firmware_bridge.errors import FormatError, SchemaError
from firmware_bridge.formats.session import LinkStatistics, describe, have_same_channels
from firmware_bridge.recording.recording import Recording
from firmware_bridge.sample import Gap, Item, LinkUp, SampleBlock, Schema


class ReplayLink:
    """Delivers the items of a recording as the link did, bit for bit.

    Args:
        path: the recording.
        schema: the channels that must come, in order; None takes what comes.
        speed: 1 is its own pace, 10 ten times that, ``inf`` as fast as they are taken.
        clock: monotonic seconds.

    Raises:
        FormatError: a speed that is not positive.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        schema: Schema | None = None,
        speed: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not speed > 0:
            raise FormatError(f"expected a positive speed, got {speed}")
        self._schema = schema
        self._recording = Recording(path)
        self._speed = speed
        self._clock = clock
        self._items: Iterator[Item] = iter(())
        self._upcoming: Item | None = None
        self._begun_s = self._first_s = 0.0
        self._stopped = threading.Event()
        self.statistics = LinkStatistics()

    def open(self) -> None:
        """Begin with the first item.

        Raises:
            FormatError: the file cannot be read, or is no recording.
        """
        self._items = self._recording.items()
        self._upcoming = next(self._items, None)
        self._begun_s = self._clock()
        self._first_s = 0.0 if self._upcoming is None else _when_s(self._upcoming)

    @property
    def overrun_samples(self) -> int:
        """None: what is not received yet stays in the file."""
        return self.statistics.overrun_samples

    @property
    def finished(self) -> bool:
        """Whether everything was received, or the replay was stopped."""
        return self._upcoming is None or self._stopped.is_set()

    def receive(self, timeout_s: float) -> Item | None:
        """Return the next item; None if its time has not come within ``timeout_s``, or at the end.

        Raises:
            FormatError: the file holds something that no recorder wrote.
            SchemaError: its channels are not the expected ones.
        """
        item = self._upcoming
        if item is None or self._stopped.is_set():
            return None
        due_s = self._begun_s + (_when_s(item) - self._first_s) / self._speed
        left_s = due_s - self._clock()
        if left_s > 0 and (self._stopped.wait(min(left_s, timeout_s)) or left_s > timeout_s):
            return None
        self._upcoming = next(self._items, None)
        self._count(item)
        if isinstance(item, SampleBlock):  # read now: what follows is not as old as the recording
            return replace(item, read_s=self._clock())
        return item

    def _count(self, item: Item) -> None:
        if isinstance(item, SampleBlock):
            self.statistics.samples += len(item)
        elif isinstance(item, LinkUp):
            self._compare(item.schema)
        elif isinstance(item, Gap):
            self.statistics.lost_samples += item.n_missing

    def _compare(self, offered: Schema) -> None:
        if self._schema is not None and not have_same_channels(self._schema, offered):
            raise SchemaError(
                f"expected the channels {describe(self._schema)}; {self._recording.path} has "
                f"{describe(offered)}; is this a recording of the right sensor?"
            )

    def stop(self) -> None:
        """Deliver no more; safe in a signal handler."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the file."""
        self._items = iter(())
        self._upcoming = None

    def __enter__(self) -> ReplayLink:  # noqa: PYI034 - Self needs Python 3.11
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _when_s(item: Item) -> float:
    """Return when the link delivered an item."""
    return item.read_s if isinstance(item, SampleBlock) else item.t_s
