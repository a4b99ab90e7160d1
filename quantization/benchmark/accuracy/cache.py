"""Networks that were trained once: kept in a cache under what they were trained with."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch

from quantization.benchmark.accuracy.network import (
    NetworkSpec,
    RecurrentNetwork,
    TrainingStreams,
    train,
)

CACHE_VARIABLE = "XDG_CACHE_HOME"
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Name the folder of trained networks, which may not be there yet."""
    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root) if root else Path.home() / ".cache") / "edge-gru" / "accuracy"


def trained(name: str, spec: NetworkSpec, streams: TrainingStreams) -> RecurrentNetwork:
    """Return the network of that training: from the cache, or trained now and kept.

    The key holds the settings, the data and the version of torch: another of any of these is
    another file.
    """
    path = cache_folder() / f"{name}-{_key(spec, streams)}.pt"
    if path.exists():
        network = RecurrentNetwork(spec, streams.x.shape[2], streams.n_out)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    _log.info("training %s; it is kept in %s", name, path.parent)
    network = train(spec, streams)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    torch.save(network.state_dict(), partial)
    partial.replace(path)
    return network


def _key(spec: NetworkSpec, streams: TrainingStreams) -> str:
    digest = hashlib.sha256(repr((spec, streams.n_classes, torch.__version__)).encode())
    for array in (streams.x, streams.y):
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
