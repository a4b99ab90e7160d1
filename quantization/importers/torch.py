"""A torch module with nn.GRU to a step model."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from edge_gru.errors import DataError, ModelError
from quantization.importers.onnx import Imported, import_traced, sample_rows
from quantization.importers.trace import distinctive_batch, first_line

Float32 = npt.NDArray[np.float32]

_WIDTH_ATTRIBUTES = ("input_size", "in_features", "num_features", "normalized_shape")


def import_torch(module: nn.Module, n_channels: int) -> Imported:
    """Import a module with ``forward(x) -> y``, ``-> (y, h)`` or ``forward(x, h) -> (y, h)``.

    ``x`` is (B, T, n) or (T, B, n); ``y`` has one row per step, or one for the last step. The
    module itself is not touched: a copy runs in evaluation mode, float32, on the CPU.

    Raises:
        ModelError: no causal step; names the layer and the reason.
        DataError: the module takes another number of channels than ``n_channels``.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"expected a torch.nn.Module or the path of an .onnx file, got {type(module).__name__}"
        )
    recurrent = [m for m in module.modules() if isinstance(m, nn.GRU)]
    if not recurrent:
        raise ModelError("expected a module with nn.GRU, got none in it")
    original = _TorchOriginal(copy.deepcopy(module).cpu().float().eval(), recurrent[0])
    original.settle(n_channels)
    dims = [d for p in original.module.state_dict().values() for d in p.shape]
    n_batch = distinctive_batch([*dims, n_channels])
    rows = sample_rows(n_batch, n_channels)
    proto = _export(original, np.expand_dims(rows, 1 - original.batch_axis))
    model, suspects = import_traced(proto, rows, original.batch_axis)
    return Imported(model, original, suspects)


class _TorchOriginal(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The module as torch runs it, with one input and one output."""

    def __init__(self, module: nn.Module, gru: nn.GRU) -> None:
        super().__init__()
        self.module = module
        self.batch_axis = 0
        self.window_steps: int | None = None
        self._state_shape = (gru.num_layers * (2 if gru.bidirectional else 1), gru.hidden_size)
        required = [
            p
            for p in inspect.signature(module.forward).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        if len(required) > 2:
            names = ", ".join(p.name for p in required)
            raise ModelError(f"expected forward(x) or forward(x, h), got forward({names})")
        self._takes_state = len(required) == 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = [x]
        if self._takes_state:
            n_layers, n_hidden = self._state_shape
            inputs.append(torch.zeros(n_layers, x.shape[self.batch_axis], n_hidden))
        result = self.module(*inputs)
        y = result[0] if isinstance(result, (tuple, list)) else result
        if not isinstance(y, torch.Tensor):
            raise ModelError(f"expected forward to return y or (y, h), got {type(result).__name__}")
        return y

    def settle(self, n_channels: int) -> None:
        """Find out which axis of x is the batch, and whether the channels fit."""
        self.batch_axis = 0
        reached = self._shape_at_gru((3, 2, n_channels))
        if reached is None:
            self._explain(n_channels)
        shape, batch_first = cast("tuple[tuple[int, ...], bool]", reached)
        if len(shape) == 3 and shape[0 if batch_first else 1] != 3:
            self.batch_axis = 1

    def _shape_at_gru(self, size: tuple[int, int, int]) -> tuple[tuple[int, ...], bool] | None:
        found: list[tuple[tuple[int, ...], bool]] = []

        def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            found.append((tuple(inputs[0].shape), cast("nn.GRU", layer).batch_first))

        grus = [m for m in self.module.modules() if isinstance(m, nn.GRU)]
        hooks = [m.register_forward_pre_hook(note) for m in grus]
        try:
            with torch.no_grad(), contextlib.suppress(RuntimeError, ValueError):
                self(torch.zeros(size))
        finally:
            for hook in hooks:
                hook.remove()
        return found[0] if found else None

    def _explain(self, n_channels: int) -> None:
        for layer in self.module.modules():
            for attribute in _WIDTH_ATTRIBUTES:
                value = getattr(layer, attribute, None)
                width = value[-1] if isinstance(value, tuple) else value
                if isinstance(width, int) and self._shape_at_gru((3, 2, width)):
                    raise DataError(
                        f"expected sequences of {width} channels, as the model takes, "
                        f"got {n_channels}"
                    )
        raise ModelError(
            f"the model does not run on x of shape (batch, time, {n_channels}); "
            "expected it to reach its nn.GRU"
        )

    def run(self, sequence: Float32) -> Float32:
        """Run a whole sequence; see ``quantization.importers.proof.Original``."""
        x = torch.from_numpy(np.expand_dims(sequence, self.batch_axis))
        try:
            with torch.no_grad():
                y = self(x).numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelError(
                f"the model does not run on {len(sequence)} steps: {first_line(error)}"
            ) from error
        rows: Float32 = y[0] if self.batch_axis == 0 or y.ndim == 2 else y[:, 0]
        return rows


def _export(original: _TorchOriginal, x: Float32) -> onnx.ModelProto:
    """Export at one time step, where no exporter can get recurrence or time axis wrong."""
    with _quiet():
        try:
            program = torch.onnx.export(
                original, (torch.from_numpy(x),), dynamo=True, verbose=False
            )
        except Exception as error:
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise ModelError(
                f"torch cannot export the model at one time step: {first_line(cause)}"
            ) from error
    return cast("onnx.ModelProto", program.model_proto)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own chatter off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
