"""Control requests: asked by any thread, acknowledged by the board, acted upon once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from firmware_bridge.errors import BridgeError, ProtocolError
from firmware_bridge.protocol.messages import Ack, AckStatus, Command, Request

ANSWER_S = 0.25
N_TRIES = 4
LAST_WORDS_ID = 255  # of a request whose answer nobody waits for

Prepare = Callable[["PendingRequest"], None]


class RequestNumbers:
    """Hands out request ids, 1 to 254 in turn, to all who ask one board."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> int:
        """Return an id other than the one before."""
        self._last = self._last % (LAST_WORDS_ID - 1) + 1
        return self._last


class PendingRequest:
    """One request, between the thread that waits for its answer and the one that reads the port.

    ``rate_hz`` stands in for the arguments of START: None is the rate in force.
    """

    def __init__(self, command: int, arguments: bytes = b"", rate_hz: float | None = None) -> None:
        self.command = command
        self.arguments = arguments
        self.rate_hz = rate_hz
        self.is_abandoned = False
        self._done = threading.Event()
        self._result = b""
        self._error: BridgeError | None = None

    def finish(self, result: bytes) -> None:
        """Hand over the board's answer."""
        self._result = result
        self._done.set()

    def fail(self, error: BridgeError) -> None:
        """Hand over what went wrong."""
        self._error = error
        self._done.set()

    def wait(self, timeout_s: float) -> bytes:
        """Return the result in the board's answer.

        Raises:
            ProtocolError: refused, or not answered in time.
            SchemaError: the board does not offer the rate.
        """
        if not self._done.wait(timeout_s):
            self.is_abandoned = True
            raise ProtocolError(
                f"the board did not answer the command {command_text(self.command)} within "
                f"{timeout_s:g} s; is it connected and streaming?"
            )
        if self._error is not None:
            raise self._error
        return self._result


class Requester:
    """Asks one request at a time, again under its old id while no answer comes.

    ``add`` is for any thread, all else for the one that reads. ``prepare`` fills in the arguments
    of a request that is about to be asked for the first time, or raises.
    """

    def __init__(self, numbers: RequestNumbers, prepare: Prepare) -> None:
        self._numbers = numbers
        self._prepare = prepare
        self._waiting: deque[PendingRequest] = deque()
        self._current: PendingRequest | None = None
        self._id = 0
        self._n_tries_left = 0
        self._ask_at_s = 0.0

    def add(self, pending: PendingRequest) -> None:
        """Ask this when everything before it is answered."""
        self._waiting.append(pending)

    @property
    def due_s(self) -> float:
        """When `ask` has something to do."""
        if self._current is not None:
            return self._ask_at_s
        return 0.0 if self._waiting else float("inf")

    def ask(self, now_s: float) -> Request | None:
        """Return what is to be asked now."""
        if now_s < self.due_s:
            return None
        if self._current is not None and self._n_tries_left == 0:
            self.give_up("the board does not answer")
        if self._current is None:
            self._current = self._next()
            self._id = self._numbers.next()
            self._n_tries_left = N_TRIES
        current = self._current
        if current is None:
            return None
        self._n_tries_left -= 1
        self._ask_at_s = now_s + ANSWER_S
        return Request(self._id, current.command, current.arguments)

    def _next(self) -> PendingRequest | None:
        while self._waiting:
            pending = self._waiting.popleft()
            if pending.is_abandoned:
                continue
            try:
                self._prepare(pending)
            except BridgeError as error:
                pending.fail(error)
            else:
                return pending
        return None

    def take(self, ack: Ack) -> PendingRequest | None:
        """Return the request that this grants, for its caller to finish."""
        current = self._current
        if current is None or (ack.request_id, ack.command) != (self._id, current.command):
            return None
        if ack.status == AckStatus.BUSY and self._n_tries_left:
            self._id = self._numbers.next()  # the old id would bring the old answer
            return None
        self._current = None
        if ack.status != AckStatus.OK:
            text = f"the board refused {command_text(ack.command)}: {status_text(ack.status)}"
            current.fail(ProtocolError(text))
            return None
        return current

    def give_up(self, reason: str) -> None:
        """Fail the request that was asked and not answered."""
        current, self._current = self._current, None
        if current is not None:
            current.fail(ProtocolError(f"{command_text(current.command)} failed: {reason}"))


def command_text(command: int) -> str:
    """Return the name of a command for people."""
    try:
        return Command(command).name
    except ValueError:
        return f"0x{command:02X}"


def status_text(status: int) -> str:
    """Return what a board said of a request, for people."""
    try:
        return AckStatus(status).name.lower().replace("_", " ")
    except ValueError:
        return f"status {status}"
