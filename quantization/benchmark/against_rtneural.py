"""Time single steps of the native engine and of RTNeural, both without Python, in turns.

    python -m quantization.benchmark.against_rtneural build/steps.so

``EDGE_GRU_RTNEURAL`` says where its library is. A row has the quietest tenth of the rounds of both
in microseconds a step, and how many times as long RTNeural takes then, and in the median.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from edge_gru.engines.base import Float32
from edge_gru.native import KERNELS
from quantization.benchmark.latency.peers.rtneural import RTNeuralRunner
from quantization.benchmark.latency.weights import random_weights, samples
from quantization.benchmark.native import SIZES, interleaved_us, open_steps, steps_in_c

_N_ROUNDS = 151
_N_SAMPLES = 16_384


def _sequence(peer: RTNeuralRunner, x: Float32) -> Callable[[int], object]:
    return lambda n: peer.run_sequence(x[:n])


def main(path: str) -> None:
    """Print one table."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    steps = open_steps(path)
    print(f"one pinned core, load {os.getloadavg()[0]:.1f}, {_N_ROUNDS} interleaved rounds")
    for size in SIZES:
        peer = RTNeuralRunner(random_weights("GRU", *size), 1, 1)
        runs = {
            "RTNeural": _sequence(peer, samples(_N_SAMPLES, size[0])),
            "native": steps_in_c(steps, KERNELS[0], size, "int8"),
        }
        found = interleaved_us(runs, _N_ROUNDS)
        (theirs_us, their_median_us), (ours_us, our_median_us) = found["RTNeural"], found["native"]
        print(
            f"{size}: RTNeural fp32 {theirs_us:.3f}, native int8 ({KERNELS[0]}) {ours_us:.3f}: "
            f"{theirs_us / ours_us:.2f} times, median {their_median_us / our_median_us:.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
