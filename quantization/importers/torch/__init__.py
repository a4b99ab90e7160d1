"""A torch module with recurrent layers to a step model."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from edge_gru.errors import DataError, ModelError
from quantization.importers.lift import lift
from quantization.importers.onnx import Imported, sample_rows
from quantization.importers.onnx_rewrite import with_free_starts
from quantization.importers.recurrence import Recurrence
from quantization.importers.torch.load import Program, load_module
from quantization.importers.torch.recorder import Call, Recorder, arrays_of, time_of
from quantization.importers.torch.states import Zeros, candidate_states
from quantization.importers.trace import distinctive_batch, first_line, trace

__all__ = ["TorchOriginal", "import_torch", "load_module"]

Float32 = npt.NDArray[np.float32]

_WIDTH_ATTRIBUTES = ("input_size", "in_features", "num_features", "normalized_shape")


def import_torch(module: nn.Module, n_channels: int) -> Imported:
    """Import a module with ``forward(x) -> y``, ``-> (y, state)`` or ``forward(x, state)``.

    ``x`` is (B, T, n) or (T, B, n); ``y`` has one row per step, or one for the last step; a state
    is whatever its recurrent layers take. The module itself is not touched: a copy runs in
    evaluation mode, float32, on the CPU.

    Raises:
        ModelError: no causal step; names the layer and the reason.
        DataError: the module takes another number of channels than ``n_channels``.
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"expected a torch.nn.Module or the path of an .onnx file, got {type(module).__name__}"
        )
    original = TorchOriginal(_prepared(module))
    original.settle(n_channels)
    dims = [d for p in original.module.state_dict().values() for d in p.shape]
    n_batch = distinctive_batch([*dims, n_channels])
    rows = sample_rows(n_batch, n_channels)
    x = np.expand_dims(rows, 1 - original.batch_axis)
    calls = original.record(x)
    proto = with_free_starts(_export(original, x))
    known = trace(proto, proto.graph.input[0].name, {proto.graph.input[0].name: x}, n_batch)
    output, *ends = _roots(proto)
    model, suspects = lift(known, output, _recurrences(calls, ends))
    return Imported(model, original, suspects)


def _prepared(module: nn.Module) -> nn.Module:
    copied = copy.deepcopy(module).cpu().float()
    with contextlib.suppress(NotImplementedError):  # a loaded program is in evaluation mode
        copied.eval()
    return copied


def _recurrences(calls: Sequence[Call], ends: Sequence[str]) -> list[Recurrence]:
    """Put the weights that were recorded together with the names of their ends in the graph."""
    names = iter(ends)
    found = []
    for call in calls:
        x = next(names)
        starts = tuple(next(names) for _ in call.starts)
        new = tuple((next(names),) for _ in call.new)
        found.append(Recurrence(call.who, call.kind, arrays_of(call), x, starts, new))
    return found


def _roots(proto: onnx.ModelProto) -> list[str]:
    """Names of the outputs, as the nodes call them that make them and those that use them."""
    source = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "Identity"}
    names = []
    for output in proto.graph.output:
        name = output.name
        while name in source:
            name = source[name]
        names.append(name)
    return names


class _Watcher(TorchFunctionMode):  # type: ignore[misc]  # torch is not followed by mypy
    """Notes the shapes that reach recurrent functions, and their axis of time."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[torch.Size, int | None]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        seen = time_of(func, args)
        if seen is not None:
            self.found.append(seen)
        return func(*args, **(kwargs or {}))


class TorchOriginal(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The module as torch runs it, with one input and one output."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.batch_axis = 0
        if isinstance(module, Program):
            self._signature = f"the program, with {len(module.states)} states,"
            self._states: list[Zeros] = [module.zeros]
            *self._frozen, self._n_channels = module.frozen_shape
        else:
            self._states = candidate_states(module, self._n_states(module))
            self._frozen, self._n_channels = [None, None], None
        self._zeros = self._states[0]
        self._step = module

    @property
    def window_steps(self) -> int | None:
        """The one length of sequence that the model takes; None: any."""
        return self._frozen[1 - self.batch_axis]

    def _n_states(self, module: nn.Module) -> int:
        required = [
            p
            for p in inspect.signature(module.forward).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        names = ", ".join(p.name for p in required)
        if len(required) > 3:
            raise ModelError(
                f"expected forward(x), forward(x, h) or (x, h, c), got forward({names})"
            )
        self._signature = f"forward({names})"
        return len(required) - 1

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one time step, and return the ends of every cell beside the output."""
        with Recorder() as recorder:
            y = self._output(x, self._step)
        ends = [t for call in recorder.calls for t in (call.x, *call.starts, *call.new)]
        return (y, *ends)

    def record(self, x: Float32) -> list[Call]:
        """Run one time step, and return every cell in order."""
        with torch.no_grad(), Recorder() as recorder, self._explained("one step"):
            self._output(torch.from_numpy(x), self._step)
        return recorder.calls

    def _output(self, x: torch.Tensor, module: nn.Module | None = None) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LSTM with projections")  # a slower kernel
            result = (module or self.module)(x, *self._zeros(x.shape[self.batch_axis]))
        y = result[0] if isinstance(result, (tuple, list)) else result
        if not isinstance(y, torch.Tensor):
            raise ModelError(f"expected forward to return y or (y, h), got {type(result).__name__}")
        return y

    def settle(self, n_channels: int) -> None:
        """Find out which axis of x is the batch, what the states are, and whether channels fit."""
        if self._n_channels not in (None, n_channels):
            raise DataError(
                f"expected sequences of {self._n_channels} channels, as the program takes, "
                f"got {n_channels}"
            )
        for zeros, axis in itertools.product(self._states, (0, 1)):
            self._zeros, self.batch_axis = zeros, axis
            if self._settle_axis(n_channels):
                self._thaw(n_channels)
                self._find_turns()
                return
        self.batch_axis, self._zeros = 0, self._states[0]
        self._explain(n_channels)

    def _settle_axis(self, n_channels: int) -> bool:
        n_rows, n_steps = self._frozen[self.batch_axis] or 3, self.window_steps or 2
        size = (n_rows, n_steps) if self.batch_axis == 0 else (n_steps, n_rows)
        reached = self._reached((*size, n_channels))
        if not reached:
            return False
        if n_rows == n_steps:  # frozen to a square: take what the layer says
            time_axis = reached[0][1]
            return time_axis is None or self.batch_axis == 1 - time_axis
        rows_at = (shape[0 if axis is None else 1 - axis] for shape, axis in reached)
        return any(found == n_rows for found in rows_at)

    def _thaw(self, n_channels: int) -> None:
        """Free the axis of time, if the program runs at another length: exporters freeze it always.

        The batch stays frozen: kernels do not check it against the state's, and read past its end.
        """
        n_rows, n_steps = self._frozen[self.batch_axis], self.window_steps
        if n_steps is not None and n_rows != n_steps:
            sizes = [n_rows or 3, n_rows or 3]
            sizes[1 - self.batch_axis] = n_steps + 1
            reached = self._reached((*sizes, n_channels))
            if any(axis is not None and shape[axis] == n_steps + 1 for shape, axis in reached):
                self._frozen[1 - self.batch_axis] = None

    def _find_turns(self) -> None:
        """See whether the program is a loop over time that was unrolled."""
        n_steps = self.window_steps
        if isinstance(self.module, Program) and n_steps is not None and n_steps > 1:
            self._step = self.module.unrolled(n_steps) or self.module

    def _reached(self, size: tuple[int, ...]) -> list[tuple[torch.Size, int | None]]:
        """Run on zeros, and return the shapes at every recurrent function; none if it fails."""
        with torch.no_grad(), _Watcher() as watcher:
            try:
                self._output(torch.zeros(size))
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
                if isinstance(error, ModelError):
                    raise
                return []
        return watcher.found

    def _explain(self, n_channels: int) -> None:
        layers = () if isinstance(self.module, Program) else self.module.modules()
        for layer in layers:
            for attribute in _WIDTH_ATTRIBUTES:
                value = getattr(layer, attribute, None)
                width = value[-1] if isinstance(value, tuple) else value
                if isinstance(width, int) and width != n_channels and self._reached((3, 2, width)):
                    raise DataError(
                        f"expected sequences of {width} channels, as the model takes, "
                        f"got {n_channels}"
                    )
        raise ModelError(
            f"{self._signature} does not run on x of shape (batch, time, {n_channels}) and states "
            "of its recurrent layers; expected x to reach an nn.GRU, nn.LSTM, nn.RNN or a cell of "
            "these in it"
        )

    def run(self, sequence: Float32) -> Float32:
        """Run a whole sequence; see ``quantization.importers.proof.Original``."""
        n_rows = self._frozen[self.batch_axis] or 1
        x = torch.from_numpy(
            np.expand_dims(sequence, self.batch_axis).repeat(n_rows, self.batch_axis)
        )
        with torch.no_grad(), self._explained(f"{len(sequence)} steps"):
            y = self._output(x).numpy()
        first: Float32 = y[0] if self.batch_axis == 0 or y.ndim == 2 else y[:, 0]
        return first

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except ModelError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            unrolled = isinstance(self.module, Program) and what == "one step"
            hint = "; its loop over time was unrolled: give file.py:factory instead"
            raise ModelError(
                f"the model does not run on {what}: {first_line(error)}{hint if unrolled else ''}"
            ) from error


def _export(original: TorchOriginal, x: Float32) -> onnx.ModelProto:
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
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
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
