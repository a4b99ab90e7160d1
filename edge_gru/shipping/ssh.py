"""A board over the system's ssh: commands, and files whose copy goes on where it broke."""

from __future__ import annotations

import hashlib
import logging
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edge_gru.errors import ShippingError

_log = logging.getLogger(__name__)

_LOST = 255  # ssh's own exit code
_CONNECT_S = 10
_UPLOADS = ".cache/edge-gru-ship"
_CHUNK_BYTES = 1 << 20
# What ssh and the programs on the board say -> what it means and what helps.
_MEANINGS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "the host key of {host} is not the one that is known: it was flashed anew, or it is "
        "another machine; if you know why: ssh-keygen -R {host}"
    ),
    "Host key verification failed": (
        "the host key of {host} is not known here; look at it once with: ssh {host}"
    ),
    "Permission denied (": (
        "{host} lets nobody in with these keys; copy yours with: ssh-copy-id {host}"
    ),
    "No space left on device": "the disk of {host} is full; make space there",
    "checksum did NOT match": "what arrived on {host} is not what was sent; run this again",
    "Connection refused": "{host} refuses: no ssh server listens there; start it on the board",
    "Could not resolve": "{host} has no address; check the name, or use 192.168.55.1 over USB",
    "timed out": "{host} does not answer; check its power, the cable and the address",
}


class Connection:
    """Runs commands on a board; a context manager that holds one connection for all of them.

    ``options`` are those of ``ssh -o``. Passwords are asked for by ssh itself, once.

    Raises:
        ShippingError: there is no ssh here, the board cannot be reached, or the connection broke.
    """

    def __init__(self, host: str, options: Sequence[str] = ()) -> None:
        self.host = host
        self._options = [word for option in options for word in ("-o", option)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._socket = ""

    def __enter__(self) -> Connection:  # noqa: PYI034 - Self needs Python 3.11
        if self.host.startswith("-"):
            raise ShippingError(f"expected a host such as jetson@192.168.55.1, got {self.host!r}")
        if shutil.which("ssh") is None:
            raise ShippingError("there is no ssh on this machine; install openssh-client")
        self._folder = tempfile.TemporaryDirectory(prefix="edge-gru-ssh-")
        self._socket = f"{self._folder.name}/socket"
        made = subprocess.run(
            self._ssh("-M", "-f", "-N"), check=False, stderr=subprocess.PIPE, text=True
        )
        if made.returncode:
            self._folder.cleanup()
            raise ShippingError(self.explain(made.stderr, "cannot be reached"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        subprocess.run(self._ssh("-O", "exit"), check=False, capture_output=True)
        if self._folder is not None:
            self._folder.cleanup()

    def _ssh(self, *words: str) -> list[str]:
        shared = ["-S", self._socket, "-o", f"ConnectTimeout={_CONNECT_S}"]
        alive = ["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"]
        return ["ssh", *shared, *alive, *self._options, *words, self.host]

    def run(
        self, command: str, *, stdin: bytes | IO[bytes] = b"", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell; ``check`` False leaves its exit code to the caller.

        Raises:
            ShippingError: it failed and ``check``, or the connection broke.
        """
        words = [*self._ssh(), f"sh -c {shlex.quote(command)}"]
        source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        made = subprocess.run(words, check=False, capture_output=True, **source)
        out, err = (text.decode(errors="replace") for text in (made.stdout, made.stderr))
        if made.returncode == _LOST or (check and made.returncode):
            raise ShippingError(self.explain(err, "broke off"))
        return subprocess.CompletedProcess(words, made.returncode, out, err)

    def send(self, file: Path, sha256: str) -> str:
        """Copy a file into a folder of the user's, and return where it is there.

        What an earlier attempt has left is gone on from, if it is the beginning of this file.

        Raises:
            ShippingError: the connection broke, the disk is full, or the copy is not the file.
        """
        place = f"{_UPLOADS}/{sha256[:16]}-{file.name}"
        part = f"{place}.part"
        n_bytes = file.stat().st_size
        if (
            self.run(_LOOK.format(place=place, part=part, folder=_UPLOADS)).stdout.strip()
            == "whole"
        ):
            return place
        n_there = self._n_same(part, file)
        if n_there:
            _log.info("going on after %.1f of %.1f MB", n_there / 1e6, n_bytes / 1e6)
        with file.open("rb") as opened:
            opened.seek(n_there)
            try:
                self.run(f"cat >>{part}", stdin=opened)
            except ShippingError as error:
                raise ShippingError(
                    f"{file.name} is not all there: {error}; run this again, and it goes on"
                ) from error
        told = self.run(f"sha256sum <{part}").stdout.split()
        if told[:1] != [sha256]:
            self.run(f"rm -f {part}")
            raise ShippingError(f"{file.name} did not arrive as it was sent; run this again")
        self.run(f"mv {part} {place}")
        return place

    def _n_same(self, part: str, file: Path) -> int:
        """Tell how much of the file is there; what is something else is thrown away."""
        found = self.run(f"wc -c <{part}; sha256sum <{part}").stdout.split()
        n_there, told = int(found[0]), found[1]
        if 0 < n_there <= file.stat().st_size and told == _hash_of_beginning(file, n_there):
            return n_there
        self.run(f": >{part}")
        return 0

    def explain(self, said: str, otherwise: str) -> str:
        """Make one sentence of what ssh, or a program on the board, has said."""
        for words, meaning in _MEANINGS.items():
            if words in said:
                return meaning.format(host=self.host)
        lines = [line for line in said.splitlines() if line.strip()]
        return f"{self.host} {otherwise}: {lines[-1].strip() if lines else 'ssh says nothing'}"


_LOOK = (
    "mkdir -p {folder} && chmod 700 {folder}; if [ -f {place} ]; then echo whole; "
    "else : >>{part}; fi"
)


def _hash_of_beginning(file: Path, n_bytes: int) -> str:
    whole = hashlib.sha256()
    with file.open("rb") as opened:
        while n_bytes > 0 and (block := opened.read(min(_CHUNK_BYTES, n_bytes))):
            whole.update(block)
            n_bytes -= len(block)
    return whole.hexdigest()
