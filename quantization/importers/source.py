"""Which file a trained model is in, told by its name; torch is imported only where it is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edge_gru.errors import ModelError
from quantization.importers.onnx import Imported, import_onnx

TORCH_SUFFIXES = (".pt2", ".pt", ".pth", ".ckpt", ".bin", ".pkl")


def import_model(model: Any, n_channels: int) -> Imported:
    """Import a ``torch.nn.Module``, or the file of a model: .onnx, .pt2 or ``file.py:factory``.

    Raises:
        ModelError: of another kind, unreadable, or no causal stream.
        DataError: the model takes another number of channels than ``n_channels``.
    """
    if isinstance(model, (str, os.PathLike)):
        model = open_model(os.fspath(model))
    if isinstance(model, Path):
        return import_onnx(model, n_channels)
    if not hasattr(model, "forward"):
        raise ModelError(f"expected a torch.nn.Module or an .onnx file, got {type(model).__name__}")
    # An ONNX file is imported without torch.
    from quantization.importers.torch import import_torch  # noqa: PLC0415

    return import_torch(model, n_channels)


def open_model(name: str, weights: Path | None = None) -> Any:
    """Load the torch module that a name stands for; an .onnx file stays a path.

    Raises:
        ModelError: of another kind or unreadable, or weights that do not belong to it.
    """
    if name.endswith(".onnx"):
        if weights is not None:
            raise ModelError(f"{name} has its own weights; --weights goes with file.py:factory")
        return Path(name)
    if not (name.endswith(TORCH_SUFFIXES) or ".py:" in name):
        raise ModelError(
            "expected a torch.nn.Module or an .onnx file, a .pt2 file or file.py:factory, "
            f"got {name}"
        )
    from quantization.importers.torch import load_module  # noqa: PLC0415

    return load_module(name, weights)


def name_of(model: Any) -> str:
    """Name a model: by its file, or by its class."""
    if isinstance(model, (str, os.PathLike)):
        return Path(os.fspath(model).partition(".py:")[0]).stem
    return type(model).__name__.lower()
