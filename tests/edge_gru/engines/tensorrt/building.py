"""Opens a bundle on a fake GPU, in a process of its own; stops where it is told and waits there.

    building.py BUNDLE (build | fsync:N | none)

Says ``stopped`` when it has reached that place, goes on after a line on stdin, and ends with the
number of plans that it built and what its first step answers.
"""

from __future__ import annotations

import logging
import os
import sys

import numpy as np
from fake_gpu import fake_gpu

import edge_gru


class Waiting(logging.Handler):
    """Tells the parent that another process has the lock."""

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting" in record.getMessage():
            print("waiting", flush=True)


def stop() -> None:
    print("stopped", flush=True)
    sys.stdin.readline()


def main(path: str, place: str) -> None:
    cache = logging.getLogger("edge_gru.engines.tensorrt.cache")
    cache.setLevel(logging.INFO)
    cache.addHandler(Waiting())
    with fake_gpu() as gpu:
        if place == "build":
            gpu.trt.during_build = stop
        elif place.startswith("fsync"):
            stop_at_fsync(int(place.partition(":")[2]))
        with edge_gru.load(path).open("tensorrt", precision="fp32") as engine:
            y = engine.step(np.zeros(engine.n_in, np.float32))
        gpu.assert_clean()
        print(gpu.trt.n_builds, y.tolist(), flush=True)


def stop_at_fsync(n: int) -> None:
    real, calls = os.fsync, []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == n + 1:
            stop()
        real(handle)

    os.fsync = fsync


if __name__ == "__main__":
    main(*sys.argv[1:])
