"""What other tools make of the same step graph or module, as engines that the gate can judge."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from edge_gru.engines.base import Engine, EngineSource, Float32, HostStateEngine
from quantization.benchmark.accuracy import modelopt_worker
from quantization.twins import FLOAT, Opener, Twins, candidate_opener

MODELOPT_VARIABLE = "EDGE_GRU_MODELOPT_PYTHON"
_NO_MODELOPT = (
    f"not here: let {MODELOPT_VARIABLE} name a Python with 'nvidia-modelopt[onnx]' and torch"
)
_N_CALIBRATION_STEPS = 16_384  # as many as GPTQ is fitted to
_N_ROWS = 256
_MODELOPT_TIMEOUT_S = 600.0
_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_PRODUCTS = ("Gemm", "MatMul")

Feeds: TypeAlias = Mapping[str, Float32]
"""What the step graph reads along a float stream, ``(n_steps, size)`` by name."""


@dataclass(frozen=True)
class Peer:
    """A tool in one mode; ``opener`` is None where there is nothing to judge: see ``remark``."""

    name: str
    opener: Opener | None
    size_bytes: int | None = None
    remark: str = ""
    engine: str = "onnxruntime"


def feeds_along(twins: Twins, sequences: Sequence[Float32]) -> Feeds:
    """Run the float twin over calibration sequences and keep what its step graph reads."""
    rows: dict[str, list[Float32]] = {"x": []}
    with twins.fp32(1) as engine:
        for sequence in sequences:
            engine.reset(0)
            for x in sequence[: _N_CALIBRATION_STEPS - len(rows["x"])]:
                rows["x"].append(x)
                for name, value in engine.save_state(0).values.items():
                    rows.setdefault(name, []).append(value)
                engine.step(x)
    return {name: np.stack(values) for name, values in rows.items()}


def peers_of(twins: Twins, network: nn.Module, calibration: Sequence[Float32]) -> Iterator[Peer]:
    """Yield what every tool makes of a network, given the float twin's own states."""
    feeds = feeds_along(twins, calibration)
    yield from _onnxruntime(twins, feeds)
    yield _torch_dynamic(twins, network)
    yield _modelopt(twins, feeds)


def with_peer(twins: Twins, opener: Opener) -> Twins:
    """Judge a peer in the place of our quantized twin."""
    return replace(twins, candidate=opener, others={}, input_limit=None)


def _onnxruntime(twins: Twins, feeds: Feeds) -> Iterator[Peer]:
    """Quantize the written-out step, and the graph with the recurrent operator."""
    for use, what in (("step", "step graph"), ("cpu", "GRU op")):
        for mode, operators in (("default", None), ("Gemm, MatMul", list(_PRODUCTS))):
            with tempfile.TemporaryDirectory() as folder:
                path, out = Path(folder, "float.onnx"), Path(folder, "quantized.onnx")
                path.write_bytes(_float_graph(twins, use))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    quantize_static(
                        path,
                        out,
                        _Reader(feeds),
                        quant_format=QuantFormat.QDQ,
                        op_types_to_quantize=operators,
                        activation_type=QuantType.QInt8,
                        weight_type=QuantType.QInt8,
                        per_channel=True,
                    )
                yield _judgeable(f"ORT static {mode}, {what}", twins, out.read_bytes())


def _modelopt(twins: Twins, feeds: Feeds) -> Peer:
    name = "modelopt.onnx, step graph"
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, part) for part in ("float.onnx", "feeds.npz", "quantized.onnx")]
        files[0].write_bytes(_float_graph(twins, "step"))
        np.savez(files[1], **dict(feeds))  # type: ignore[arg-type]  # no array is named allow_pickle
        command = [os.environ.get(MODELOPT_VARIABLE, sys.executable), "-I"]
        command += [str(modelopt_worker.__file__), *map(str, files)]
        run = subprocess.run(  # noqa: S603 - the user's own interpreter
            command, capture_output=True, text=True, timeout=_MODELOPT_TIMEOUT_S, check=False
        )
        if run.returncode or not files[2].exists():
            said = run.stderr.strip().splitlines()
            missing = any("No module named" in line for line in said[-3:])
            return Peer(name, None, None, _NO_MODELOPT if missing else f"failed: {said[-1]}")
        return _judgeable(name, twins, files[2].read_bytes())


def _torch_dynamic(twins: Twins, network: nn.Module) -> Peer:
    """Quantize the module, the state carried from call to call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move to another package
        quantized = torch.ao.quantization.quantize_dynamic(network)
        stored = io.BytesIO()
        torch.save(quantized.state_dict(), stored)

    def opened(n_streams: int) -> Engine:
        return _TorchEngine(twins.source, quantized, n_streams)

    remark = "h is requantized at every step"
    return Peer("torch quantize_dynamic", opened, stored.tell(), remark, _TorchEngine.name)


def _float_graph(twins: Twins, use: str) -> bytes:
    return twins.source.part(twins.manifest.precisions[FLOAT].graphs[use])


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not followed
    """Hands out the feeds, some hundred rows at a time."""

    def __init__(self, feeds: Feeds) -> None:
        n_steps = len(feeds["x"])
        self._parts = iter(
            {name: rows[start : start + _N_ROWS] for name, rows in feeds.items()}
            for start in range(0, n_steps, _N_ROWS)
        )

    def get_next(self) -> dict[str, Float32] | None:
        return next(self._parts, None)


def _judgeable(name: str, twins: Twins, data: bytes) -> Peer:
    """Say what of the recurrence a tool has quantized."""
    graph = onnx.load_model_from_string(data).graph
    narrow = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    if not narrow:
        return Peer(name, None, len(data), "quantizes nothing")
    remarks = []
    if any(f"{info.name}_out" in narrow for info in twins.manifest.states):
        remarks.append("the carried state is INT8")
    if any(node.op_type in _RECURRENT for node in graph.node):
        remarks.append("the recurrence itself stays fp32")
    else:
        products = [n for n in graph.node if n.op_type in _PRODUCTS and "w_hh" in "".join(n.input)]
        n_narrow = sum(set(n.input) <= narrow for n in products)
        remarks.append(f"{n_narrow} of {len(products)} recurrent products in INT8")
    return Peer(name, candidate_opener(twins.source, data), len(data), "; ".join(remarks))


class _TorchEngine(HostStateEngine):
    """Runs a module's ``advance`` one step at a time."""

    name = "torch"
    precision = "dynamic"

    def __init__(self, source: EngineSource, network: Any, n_streams: int) -> None:
        super().__init__(source, n_streams)
        self._network = network
        names = [info.name for info in source.manifest.states]
        self._n_parts = 2 if any(name.endswith("_c") for name in names) else 1
        self._size = source.manifest.states[0].size

    def _advance(self, x: Float32, states: Float32) -> tuple[Float32, Float32]:
        # Torch has a tensor (n_layers, k, size) for each of h and c; here a row has layer by layer.
        split = states.reshape(len(x), -1, self._n_parts, self._size).transpose(2, 1, 0, 3)
        parts = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in split)
        with torch.no_grad():
            y, new = self._network.advance(
                torch.from_numpy(x[:, None]), parts if len(parts) > 1 else parts[0]
            )
        joined = torch.stack(new if len(parts) > 1 else (new,))
        return y[:, 0].numpy(), joined.permute(2, 1, 0, 3).reshape(len(x), -1).numpy()
