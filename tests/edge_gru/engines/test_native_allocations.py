"""A step into a buffer of the caller's allocates nothing, in C or in Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_gru.bundle import Bundle

pytest.importorskip("edge_gru.native._native", reason="the native engine was not built here")

COUNTER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
static long n_taken;
long allocations(void) { return n_taken; }
#define COUNTED(name, declared, used)                                  \\
    void *name declared {                                              \\
        static void *(*next) declared;                                 \\
        if (!next) *(void **)&next = dlsym(RTLD_NEXT, #name);          \\
        n_taken++;                                                     \\
        return next used;                                              \\
    }
COUNTED(malloc, (size_t n), (n))
COUNTED(realloc, (void *p, size_t n), (p, n))
COUNTED(aligned_alloc, (size_t a, size_t n), (a, n))
"""
SCRIPT = """
import ctypes, itertools, sys
import numpy as np
from edge_gru.bundle import load
count = ctypes.CDLL(None).allocations
count.restype = ctypes.c_long
with load(sys.argv[1]).open("native") as engine:
    x, out = np.zeros(engine.n_in, np.float32), np.zeros(engine.n_out, np.float32)
    step = engine.step
    def run(n):
        before = count()
        for _ in itertools.repeat(None, n):
            step(x, out=out)
        return count() - before
    run(10)
    print(run(100), run(10_000), engine.save_state().n_steps)
"""


@pytest.mark.parametrize("recipe", ["rec", "rec-hilo", "int8-hilo", "int8", "w4"])
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here to build the counter with")
def test_step_into_a_buffer_allocates_nothing(
    make_bundle: Callable[..., Bundle], recipe: str, tmp_path: Path
) -> None:
    source, library = tmp_path / "counter.c", tmp_path / "counter.so"
    source.write_text(COUNTER)
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", library, "-ldl"], check=True)
    path = make_bundle("GRU", recipe=recipe).save(tmp_path / "model.egb")
    env = {
        "LD_PRELOAD": str(library),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    few, many, n_steps = map(int, done.stdout.split())
    assert n_steps == 10_110
    assert many == few  # the calls of the counter itself
