"""Time the native engine at five sizes, beside the roof that ``build/roof`` measured.

    python -m quantization.benchmark.native build/roof build/steps.so [ROUNDS]

Variants take turns in every round, each warmed up, for another's weights have taken the second
cache. A row has the quietest tenth of the rounds, and their median, which is far from it where
others use the core. ``in C`` are steps one by one without Python (``steps.c``, other weights of the
same sizes), ``sequence`` is ``run_sequence``, which makes products with x for many steps at once.
The roof, the best of many tries, of one stream is the weights' bytes over the bandwidth of a cache
that holds them, or the arithmetic if that takes longer; of many streams it is the arithmetic alone,
integers at the rate of VNNI: with the matrix registers of AMX more than all of it is possible.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from edge_gru.engines.base import EngineSource
from edge_gru.engines.native import NativeEngine
from edge_gru.engines.tensors import WEIGHTS
from edge_gru.manifest import (
    InputRange,
    Manifest,
    PrecisionInfo,
    ProductForm,
    Program,
    Recipe,
    StateInfo,
    StepNode,
)
from edge_gru.native import KERNELS
from firmware_bridge.sample import Schema

SIZES = ((6, 32, 1), (16, 64, 1), (64, 128, 1), (64, 256, 2), (128, 512, 1))
N_OUT = 8
N_STREAMS = (256, 4096)
_N_ROUNDS = 101
_MOST_STEPS = 16_384
_WARM_SHARE = 8  # of a round is run before it
_ROUND_S = 0.0005  # shorter than a time slice: where others run too, most rounds are whole
_FORM_NUMBERS = {"fp32": 0, "int8": 2, "int8-hilo": 3}  # enum form in C
_INT8, _HILO = ProductForm("int8", "int8"), ProductForm("int8-hilo", "int8")
# Form of the first product with x, and of every other in a cell.
FORMS = {
    "int8": (_INT8, _INT8),
    "rec": (ProductForm(), _INT8),
    "rec-hilo": (ProductForm(), _HILO),
    "int8-hilo": (_HILO, _INT8),
    "fp32": (ProductForm(), ProductForm()),
}


@dataclass(frozen=True)
class Model:
    """A random GRU with a linear head, in one recipe's forms, and what a step of it moves."""

    source: EngineSource
    n_bytes: int  # of weights
    n_int8_macs: int
    n_float_macs: int


def model_of(n_in: int, n_hidden: int, n_layers: int, recipe: str) -> Model:
    """Make a model of one size."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    products: dict[str, ProductForm] = {}
    n_bytes = n_int8 = n_float = 0
    nodes, below, width = [], "x", n_in
    for layer in range(n_layers):
        state = f"state_{layer:02d}_h"
        for name, n in (("w_ih", width), ("w_hh", n_hidden)):
            weight = f"cell_{layer}.{name}"
            form = FORMS[recipe][0 if name == "w_ih" and layer == 0 else 1]
            values = rng.normal(0, 0.4 / np.sqrt(n), (3 * n_hidden, n)).astype(np.float32)
            weights |= {weight: values} | _integers(weight, values)
            products[weight] = form
            n_bytes += values.size * (1 if form.has_integer_weight else 4)
            n_int8 += values.size * _n_rows(form) if form.has_integer_operand else 0
            n_float += 0 if form.has_integer_operand else values.size
        for name in ("b_ih", "b_hh"):
            weights[f"cell_{layer}.{name}"] = np.zeros(3 * n_hidden, np.float32)
        new = f"{state}_out"
        nodes.append(StepNode("GRU", (below, state), (new,), {"cell": f"cell_{layer}"}))
        below, width = new, n_hidden
    weights["head"] = rng.normal(0, 0.1, (n_hidden, N_OUT)).astype(np.float32)
    nodes.append(StepNode("MatMul", (below, "head"), ("y",)))
    manifest = _manifest(n_in, n_hidden, n_layers, Program(tuple(nodes), "y", 17), products)
    source = EngineSource(manifest, {WEIGHTS: safetensors.numpy.save(weights)})
    head = n_hidden * N_OUT
    return Model(source, n_bytes + 4 * head, n_int8, n_float + head)


def _n_rows(form: ProductForm) -> int:
    return 2 if form.operand == "int8-hilo" else 1


def _integers(weight: str, values: np.ndarray) -> dict[str, np.ndarray]:
    scale = (np.abs(values).max(axis=1) / 127).astype(np.float32)
    q = np.rint(values / scale[:, None]).astype(np.int8)
    return {f"{weight}_q": q, f"{weight}_scale": scale}


def _manifest(
    n_in: int, n_hidden: int, n_layers: int, program: Program, products: dict[str, ProductForm]
) -> Manifest:
    return Manifest(
        name="benchmark",
        producer={},
        schema=Schema.unnamed(n_in),
        outputs=tuple(f"y{i}" for i in range(N_OUT)),
        labels=(),
        normalisation=None,
        states=tuple(StateInfo(f"state_{k:02d}_h", n_hidden, 1.0) for k in range(n_layers)),
        recipe=Recipe("fp32"),
        n_warmup=None,
        precisions={"int8": PrecisionInfo({}, 1e-5, 30.0, products)},
        default_precision="int8",
        program=program,
        input_range=InputRange((-1.0,) * n_in, (1.0,) * n_in),
        alerts=(),
        calibration_sha256="",
        parts={},
    )


def interleaved_us(
    runs: Mapping[str, Callable[[int], object]], n_rounds: int
) -> dict[str, tuple[float, float]]:
    """Time runs that take a number of steps, in turns: a step's quiet and median microseconds."""
    n_steps: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        n_steps[name] = _steps_of_a_round(run)
    for _ in range(n_rounds):
        for name, run in runs.items():
            run(max(1, n_steps[name] // _WARM_SHARE))
            start = time.perf_counter()
            run(n_steps[name])
            times[name].append((time.perf_counter() - start) / n_steps[name] * 1e6)
    return {name: tuple(np.quantile(found, [0.1, 0.5]).tolist()) for name, found in times.items()}


def _steps_of_a_round(run: Callable[[int], object]) -> int:
    n = 1
    while n < _MOST_STEPS:
        start = time.perf_counter()
        run(n)
        if time.perf_counter() - start > _ROUND_S:
            break
        n *= 2
    return n


def _runs_of_one(
    models: Mapping[str, Model], size: tuple[int, int, int], steps: ctypes.CDLL
) -> dict[str, Callable[[int], object]]:
    runs: dict[str, Callable[[int], object]] = {}
    for recipe, model in models.items():
        for kernel in KERNELS[:-1] or KERNELS:  # the portable one is there to be compared with
            engine = NativeEngine(model.source, n_streams=1, precision=None, kernel=kernel)
            samples = np.random.default_rng(1).normal(size=(_MOST_STEPS, engine.n_in))
            runs[f"{recipe} {kernel} in C"] = steps_in_c(steps, kernel, size, recipe)
            runs[f"{recipe} {kernel} sequence"] = _sequence(engine, samples.astype(np.float32))
            runs[f"{recipe} {kernel} from Python"] = _single(engine)
    return runs


def open_steps(path: str) -> ctypes.CDLL:
    """Load what the Makefile builds of ``steps.c``."""
    steps = ctypes.CDLL(path)
    steps.open_stream.restype = ctypes.c_void_p
    return steps


def steps_in_c(
    steps: ctypes.CDLL, kernel: str, size: tuple[int, int, int], recipe: str
) -> Callable[[int], object]:
    """Open a stream without Python; call what this returns with a number of steps."""
    forms = [_FORM_NUMBERS[form.operand] for form in FORMS[recipe]]
    stream = ctypes.c_void_p(
        steps.open_stream(kernel.encode(), *map(ctypes.c_size_t, size), *forms)
    )
    return lambda n: steps.run_steps(stream, ctypes.c_size_t(n))


def _sequence(engine: NativeEngine, samples: np.ndarray) -> Callable[[int], object]:
    return lambda n: engine.run_sequence(samples[:n])


def _single(engine: NativeEngine) -> Callable[[int], None]:
    # Not zeros: without biases the states would become subnormal numbers, which are slow.
    x = np.random.default_rng(1).normal(size=engine.n_in).astype(np.float32)
    out = np.zeros(engine.n_out, np.float32)

    def run(n: int) -> None:
        step = engine.step
        for _ in range(n):
            step(x, out)

    return run


def _batches(models: Mapping[str, Model], n_streams: int) -> dict[str, Callable[[int], object]]:
    def batch(engine: NativeEngine, x: np.ndarray) -> Callable[[int], None]:
        def run(n: int) -> None:
            for _ in range(n):
                engine.step_batch(x)

        return run

    runs: dict[str, Callable[[int], object]] = {}
    for recipe, model in models.items():
        for kernel in KERNELS[:-1] or KERNELS:
            engine = NativeEngine(model.source, n_streams=n_streams, precision=None, kernel=kernel)
            x = np.random.default_rng(2).normal(size=(n_streams, engine.n_in))
            runs[f"{recipe} {kernel}"] = batch(engine, x.astype(np.float32))
    return runs


def roof_us(model: Model, roof: Mapping[str, object]) -> tuple[float, float]:
    """Return the least time of a step: of one stream, and of one among many."""
    bandwidths = {int(n): float(rate) for n, rate in dict(roof["bytes_a_second"]).items()}  # type: ignore[call-overload]
    holding = min((n for n in bandwidths if n >= model.n_bytes), default=max(bandwidths))
    int8, float_ = (
        float(str(roof[name])) for name in ("int8_macs_a_second", "float_macs_a_second")
    )
    macs_us = (model.n_int8_macs / int8 + model.n_float_macs / float_) * 1e6
    return max(macs_us, model.n_bytes / bandwidths[holding] * 1e6), macs_us


def main(arguments: list[str]) -> None:
    """Print one table."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    done = subprocess.run([arguments[0]], capture_output=True, text=True, check=True)  # noqa: S603 - our own tool
    roof = json.loads(done.stdout)
    steps = open_steps(arguments[1])
    n_rounds = int(arguments[2]) if len(arguments) > 2 else _N_ROUNDS
    cpu = next(
        (s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")),
        platform.machine(),
    )
    print(f"{cpu.partition(':')[2].strip()}, one pinned core, load {os.getloadavg()[0]:.1f}; ")
    print(f"{n_rounds} interleaved rounds; roof {done.stdout.strip()}")
    for size in SIZES:
        models = {recipe: model_of(*size, recipe) for recipe in FORMS}
        print(f"\nn_in, hidden, layers = {size}: microseconds a step, and over the roof")
        for name, (us, median_us) in interleaved_us(
            _runs_of_one(models, size, steps), n_rounds
        ).items():
            one_us, _ = roof_us(models[name.partition(" ")[0]], roof)
            print(
                f"  {name:34}{us:9.3f}   {us / one_us:5.2f} x {one_us:.3f}   median {median_us:.3f}"
            )
        for n_streams in N_STREAMS:
            for name, (us, _) in interleaved_us(_batches(models, n_streams), n_rounds).items():
                _, many_us = roof_us(models[name.partition(" ")[0]], roof)
                thousands = n_streams / us * 1e3
                share = 100 * many_us * n_streams / us
                print(
                    f"  {name:20} {n_streams:5} streams {thousands:11.0f} thousand a second, "
                    f"{share:3.0f} % of the rate of VNNI and of float"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
