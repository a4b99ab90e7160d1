"""ncnn: its recurrent layers with explicit states, fp32; it has no batches.

Its own format is written here: PyTorch's exporter for it is a tool of another package.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from edge_gru.engines.base import Float32
from quantization.benchmark.latency.runner import Form, Runner
from quantization.benchmark.latency.weights import Weights
from quantization.benchmark.native import N_OUT

_MAGIC = 7767517
_FLOAT_TAG = np.zeros(1, np.float32)  # of an array of float32; arrays without a tag are such


def version() -> str:
    """Return the library's version."""
    return f"ncnn {importlib.metadata.version('ncnn')}"


def _layers(weights: Weights) -> list[str]:
    """Describe the net, a line a layer: type, name, counts, inputs, outputs, parameters."""
    lines = ["Input x 0 1 v0"]
    lines += [f"Input h{k} 0 1 h{k}" for k in range(weights.n_layers)]
    for k in range(weights.n_layers):
        size = weights.layer(k)["w_ih"].size
        lines.append(f"GRU gru{k} 2 2 v{k} h{k} v{k + 1} new{k} 0={weights.n_hidden} 1={size} 2=0")
    size = weights.arrays["head"].size
    return [*lines, f"InnerProduct head 1 1 v{weights.n_layers} y 0={N_OUT} 1=1 2={size}"]


def _arrays(weights: Weights) -> list[Float32]:
    arrays = []
    for k in range(weights.n_layers):
        w = weights.layer(k)
        (r, z, n), (_, _, n_of_h) = (np.split(w[name], 3) for name in ("b_ih", "b_hh"))
        r_of_h, z_of_h, _ = np.split(w["b_hh"], 3)
        bias = np.concatenate([r + r_of_h, z + z_of_h, n, n_of_h])
        for value in (w["w_ih"], bias, w["w_hh"]):
            arrays += [_FLOAT_TAG, value]
    return [*arrays, _FLOAT_TAG, weights.arrays["head"].T, weights.arrays["head_bias"]]


class NcnnRunner(Runner):
    """Makes an extractor a step, and hands it the states of the last."""

    def __init__(self, weights: Weights, _n_streams: int, _n_rows: int) -> None:
        lines = _layers(weights)
        n_blobs = 2 + weights.n_layers * 3
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.opt.use_vulkan_compute = False
        for kind in ("packed", "storage", "arithmetic"):
            setattr(self._net.opt, f"use_fp16_{kind}", False)
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in ("net.param", "net.bin")]
            paths[0].write_text("\n".join([str(_MAGIC), f"{len(lines)} {n_blobs}", *lines, ""]))
            paths[1].write_bytes(
                b"".join(np.ascontiguousarray(a).tobytes() for a in _arrays(weights))
            )
            self._net.load_param(str(paths[0]))
            self._net.load_model(str(paths[1]))
        zeros = np.zeros((1, weights.n_hidden), np.float32)
        self._states = [ncnn.Mat(zeros).clone() for _ in range(weights.n_layers)]
        self._names = [(f"h{k}", f"new{k}") for k in range(weights.n_layers)]

    def laid_out(self, x: Float32) -> list[Any]:
        """Make a row of each sample."""
        return list(np.ascontiguousarray(x)[:, None])

    def step(self, sample: Any) -> Any:
        """Advance the only stream."""
        extractor = self._net.create_extractor()
        extractor.input("v0", ncnn.Mat(sample))
        for (name, _), state in zip(self._names, self._states, strict=True):
            extractor.input(name, state)
        _, y = extractor.extract("y")
        self._states = [extractor.extract(name)[1] for _, name in self._names]
        return y


def forms() -> Iterator[Form]:
    """List the forms."""
    yield Form("ncnn recurrent op fp32", Form.FP32_DB, NcnnRunner, has_batch=False, cells=("GRU",))
