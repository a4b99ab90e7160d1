"""Port, format and clock joined to one stream of samples and events that survives unplugging."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

import numpy as np
import numpy.typing as npt

from firmware_bridge.clock import DeviceClock
from firmware_bridge.errors import FormatError, PortNotFoundError
from firmware_bridge.formats import new_session
from firmware_bridge.formats.back_channel import BackChannel, HasBackChannel
from firmware_bridge.formats.requests import PendingRequest
from firmware_bridge.formats.session import LinkStatistics, SessionSettings
from firmware_bridge.link.item_queue import ItemQueue
from firmware_bridge.link.reader import Reader, Tap
from firmware_bridge.port import new_port
from firmware_bridge.protocol.messages import (
    PREDICTION_HAS_ALARM,
    PREDICTION_WARMING_UP,
    Command,
    Prediction,
    Status,
    encode_message,
)
from firmware_bridge.sample import EpochChanged, Item, LinkDown, LinkUp, Schema

__all__ = ["Link", "LinkStatistics"]


class Link:
    """One port, read by one thread, as samples and events in order.

    It reconnects by itself. When nobody takes the samples the oldest are dropped, counted, and a
    ``Gap`` stands in their place.

    Args:
        port: device, by-id link, pty, USB serial number, ``socket://`` or ``rfc2217://`` URL.
        format: a name in `firmware_bridge.formats.FORMATS`.
        baud: ignored by ports that are no UART.
        stop_bits: 1, 1.5 or 2; some boards' ports need two above 115,200 baud.
        schema: the channels that must come, in order; None takes what comes.
        rate_hz: the rate to ask the board for; None: the schema's, else the board's own.
        wait_for_port: wait for a missing port instead of raising.
        max_pending_samples: how many read samples are kept for a consumer that is late.
        recorder: is shown all bytes and items; the caller opens and closes it.
        clock: monotonic seconds.

    Raises:
        FormatError: unknown format, or a number that makes no sense.
    """

    def __init__(
        self,
        port: str,
        *,
        format: str = "framed",  # noqa: A002 - the word users know, and the CLI's
        baud: int = 115200,
        stop_bits: float = 1,
        schema: Schema | None = None,
        rate_hz: float | None = None,
        wait_for_port: bool = False,
        max_pending_samples: int = 65536,
        recorder: Tap | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate_hz is not None and not 0 < rate_hz < float("inf"):
            raise FormatError(f"expected a positive rate_hz, got {rate_hz}; omit it if unknown")
        if max_pending_samples < 1:
            raise FormatError(f"expected max_pending_samples >= 1, got {max_pending_samples}")
        self._port = new_port(port, baud, stop_bits)
        self._wait_for_port = wait_for_port
        self._clock = clock
        self._counts = LinkStatistics()
        self._queue = ItemQueue(max_pending_samples)
        session = new_session(format, SessionSettings(schema, rate_hz), self._counts, DeviceClock())
        self._format = format
        self._reader = Reader(self._port, session, self._queue, self._counts, clock, recorder)
        self._back_channel: BackChannel | None = None
        if isinstance(session, HasBackChannel):
            self._back_channel = session.back_channel
            self._back_channel.wake = self._reader.wake
        self._epoch = 0  # of what the consumer has received, not of what was read

    def open(self) -> None:
        """Open the port and start to read.

        Raises:
            PortError: no such port (unless it is waited for), busy, not permitted.
        """
        try:
            self._port.open()
        except PortNotFoundError as error:
            if not self._wait_for_port:
                raise
            self._queue.put([LinkDown(self._clock(), str(error))])
            self._reader.start(is_open=False)
        else:
            self._reader.start(is_open=True)

    def receive(self, timeout_s: float) -> Item | None:
        """Return the next item; None if none came in time, or the link has finished.

        Raises:
            SchemaError: the board's channels or rate are not the expected ones.
            ProtocolError: the board answers but cannot be worked with.
        """
        item = self._queue.get(timeout_s)
        if isinstance(item, LinkUp | EpochChanged) and item.epoch is not None:
            self._epoch = item.epoch
        return item

    def send_prediction(
        self, seq: int, values: npt.ArrayLike, *, is_warming_up: bool = False
    ) -> bool:
        """Tell the board what the model says of its sample ``seq``; ``values`` ``(n,)``.

        Never waits: a prediction that the line has not taken when the next one comes is given up
        and counted. Outputs that the board has no room for are left out. False: there is no stream
        that it could be of.

        Raises:
            FormatError: the board speaks a format that has no way back.
        """
        back_channel = self._way_back()
        flags = PREDICTION_WARMING_UP if is_warming_up else 0
        flags |= PREDICTION_HAS_ALARM if back_channel.alarms else 0
        outputs = np.asarray(values, "<f4").ravel()
        outputs = outputs[: back_channel.n_outputs(len(outputs))]
        message = Prediction(seq & 0xFFFF, flags, len(outputs), outputs.tobytes())
        return back_channel.put_prediction(encode_message(message, epoch=self._epoch))

    def set_alarms(self, alarms: int) -> None:
        """Tell the board which alerts are active, bit i for alert i, now and until this changes.

        Never waits. The board is told again every second and after every reconnect.

        Raises:
            FormatError: the board speaks a format that has no way back.
        """
        self._way_back().set_alarms(alarms & 0xFFFFFFFF)

    def control(self, command: int, arguments: bytes = b"", *, timeout_s: float = 2.0) -> bytes:
        """Ask the board for an action and return the result in its acknowledgement.

        START begins a new stream at the rate in force; STOP ends it until then, or until the board
        or the port has been away.

        Raises:
            ProtocolError: refused, or not acknowledged within ``timeout_s``.
            FormatError: the board speaks a format that has no way back.
        """
        return self._ask(PendingRequest(command, arguments), timeout_s)

    def set_rate(self, rate_hz: float, *, timeout_s: float = 2.0) -> None:
        """Let the board begin a new stream at this rate, now and after every reconnect.

        Raises:
            ProtocolError, FormatError: as for `control`.
            SchemaError: the board does not offer the rate.
        """
        if not 0 < rate_hz < float("inf"):
            raise FormatError(f"expected a positive rate_hz, got {rate_hz}")
        self._ask(PendingRequest(Command.START, rate_hz=rate_hz), timeout_s)

    @property
    def board_status(self) -> Status | None:
        """What the board last said of itself, every second; None: nothing yet, or it never does."""
        return None if self._back_channel is None else self._back_channel.status

    def _ask(self, pending: PendingRequest, timeout_s: float) -> bytes:
        self._way_back().ask(pending)
        return pending.wait(timeout_s)

    def _way_back(self) -> BackChannel:
        if self._back_channel is None:
            raise FormatError(
                f"expected a board that speaks framed, the format {self._format} has no way back"
            )
        return self._back_channel

    def stop(self) -> None:
        """Stop reading; what was read can still be received. Safe in a signal handler."""
        self._reader.stop()

    @property
    def finished(self) -> bool:
        """Whether reading has ended and everything was received."""
        return self._queue.is_drained

    @property
    def statistics(self) -> LinkStatistics:
        """A copy of the counters."""
        return replace(self._counts, overrun_samples=self.overrun_samples)

    @property
    def overrun_samples(self) -> int:
        """How many samples were dropped so far since the consumer was late; makes no copy."""
        return self._queue.overrun_samples

    def close(self) -> None:
        """Stop, and close the port; a second time does nothing."""
        self._reader.stop()
        self._reader.join()
        self._queue.close()

    def __enter__(self) -> Link:  # noqa: PYI034 - Self needs Python 3.11
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
