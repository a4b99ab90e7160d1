"""Opens a session in a process of its own, for what that leaves in a folder; run as a module.

onnxruntime 1.23 keeps Python's lock while it opens a session: a thread that builds a TensorRT plan
would hold up the process that serves, for minutes, and nothing could stop the build.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import msgspec

from edge_gru.engines.onnxruntime import Place, open_session
from edge_gru.errors import EngineUnavailableError

COMMAND = [sys.executable, "-m", "edge_gru.engines.onnxruntime_build"]
_POLL_S = 0.2


def build_apart(graph: bytes, place: Place, cancel: threading.Event) -> None:
    """Open a session of a graph in another process, and close it.

    Raises:
        EngineUnavailableError: it cannot be opened, or ``cancel`` was set.
    """
    facts = msgspec.json.encode(place).decode()
    paths = [os.path.abspath(path) for path in sys.path if path]  # noqa: PTH100 - no links resolved
    with subprocess.Popen(  # noqa: S603 - this Python, this package
        [*COMMAND, facts],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=os.sep,  # Python looks for modules where it is run
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as process:
        try:
            said = _wait(process, graph, cancel)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1] if lines else f"the build ended with code {process.returncode}"
        raise EngineUnavailableError(
            f"onnxruntime builds no plan in its {place.provider} ({reason}); use another engine"
        )


def _wait(process: subprocess.Popen[bytes], graph: bytes, cancel: threading.Event) -> bytes:
    unsent: bytes | None = graph
    while True:
        if cancel.is_set():
            raise EngineUnavailableError(
                "the build of a plan of onnxruntime was stopped; start it again"
            )
        try:
            return process.communicate(unsent, timeout=_POLL_S)[1]
        except subprocess.TimeoutExpired:
            unsent = None  # it goes on with what it was given


def main() -> int:
    """Open the session of the graph on stdin in the place that the argument tells."""
    place = msgspec.json.decode(sys.argv[1], type=Place)
    try:
        open_session(sys.stdin.buffer.read(), place)
    except Exception as error:  # noqa: BLE001 - whatever onnxruntime raises, told to the parent
        print(f"{error}".partition("\n")[0], file=sys.stderr)  # noqa: T201 - it has no logging
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
