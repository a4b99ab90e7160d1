"""Step a model in some recipes N times into a given array; `make native-valgrind` counts for it.

python tests/edge_gru/native/repeated_steps.py N
"""

from __future__ import annotations

import sys
from itertools import repeat

import numpy as np

from edge_gru.engines.native import NativeEngine
from quantization.benchmark.native import FORMS, model_of


def main(n_steps: int) -> None:
    """Step every recipe so often; the loop itself makes no objects."""
    for recipe in FORMS:
        source = model_of(16, 64, 2, recipe).source
        engine = NativeEngine(source, n_streams=1, precision=None)
        x = np.random.default_rng(0).normal(size=engine.n_in).astype(np.float32)
        out = np.empty(engine.n_out, np.float32)
        step = engine.step
        for _ in repeat(None, n_steps):
            step(x, out=out)


if __name__ == "__main__":
    main(int(sys.argv[1]))
