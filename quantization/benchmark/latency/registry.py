"""Which peers there are, which are installed here, and how to get the others."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from quantization.benchmark.latency.runner import Form


@dataclass(frozen=True)
class PeerRow:
    """The module of a peer, and what to install for it."""

    module: str
    install: str


PEERS = {
    "litert": PeerRow("litert", "pip install ai-edge-litert ai-edge-quantizer litert-torch"),
    "onnxruntime": PeerRow("onnxruntime_graphs", "pip install onnxruntime"),
    "torch": PeerRow("torch_modules", "pip install torch"),
    "numpy": PeerRow("numpy_written_out", "pip install numpy"),
    "mnn": PeerRow("mnn", "pip install MNN"),
    "openvino": PeerRow("openvino_models", "pip install openvino"),
    "ncnn": PeerRow("ncnn_nets", "pip install ncnn"),
    "executorch": PeerRow("executorch_programs", "pip install executorch"),
    "rtneural": PeerRow("rtneural", "see RTNEURAL in the Makefile"),
}


@dataclass(frozen=True)
class Found:
    """Forms of the peers that are installed, their versions, and what is not there and why."""

    forms: tuple[Form, ...]
    versions: tuple[str, ...]
    missing: tuple[str, ...]


def find_peers(names: Sequence[str]) -> Found:
    """Import the adapters of some peers."""
    forms: list[Form] = []
    versions, missing = [], []
    for name in names:
        row = PEERS[name]
        try:
            module = importlib.import_module(f"quantization.benchmark.latency.peers.{row.module}")
        except ImportError as error:
            missing.append(f"{name} is not installed here ({error}); {row.install}")
            continue
        forms += module.forms()
        versions.append(module.version())
    return Found(tuple(forms), tuple(versions), tuple(missing))
