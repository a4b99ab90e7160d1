"""Torch models from files, without running pickled code: programs, factories and weights."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from edge_gru.errors import ModelError
from quantization.importers.torch.unrolled import last_turn
from quantization.importers.trace import first_line

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")


class Program(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """A program of ``torch.export`` that takes other shapes than those it was exported for.

    ``frozen_shape`` is that of x, None where the exporter left the size free; ``states`` are what
    it takes after x.
    """

    def __init__(self, program: Any) -> None:
        super().__init__()
        graph = program.module()
        for node in list(graph.graph.nodes):  # they compare shapes with the example's
            if node.op == "call_module" and node.target == "_guards_fn":
                graph.graph.erase_node(node)
        graph.recompile()
        for key in list(graph._forward_pre_hooks):  # noqa: SLF001 - torch has no other way
            del graph._forward_pre_hooks[key]  # noqa: SLF001
        x = next(n for n in graph.graph.nodes if n.op == "placeholder").meta["val"]
        self.frozen_shape = tuple(d if isinstance(d, int) else None for d in x.shape)
        self.states = tuple(program.example_inputs[0][1:])
        self._graph = graph

    def forward(self, x: torch.Tensor, *states: Any) -> Any:
        """Run the program."""
        return self._graph(x, *states)

    def unrolled(self, n_steps: int) -> nn.Module | None:
        """Return one turn of a loop over ``n_steps`` that the exporter unrolled; None: no loop."""
        return last_turn(self._graph, n_steps)

    def zeros(self, n_rows: int) -> tuple[Any, ...]:
        """States for so many rows: (rows, n) or (layers, rows, n)."""

        def zero(example: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*example.shape[:-2], n_rows, example.shape[-1])

        states: tuple[Any, ...] = pytree.tree_map_only(torch.Tensor, zero, self.states)
        return states


def load_module(source: str | Path, weights: str | Path | None = None) -> nn.Module:
    """Load ``model.pt2``, or ``file.py:factory`` with the state_dict of a file.

    ``factory`` is called without arguments and returns the module; the file is the user's own code
    and is run. Weights are read with ``weights_only=True``: nothing in them is run.

    Raises:
        ModelError: missing, unreadable, a pickled module, or weights that do not fit.
    """
    file, _, factory = str(source).partition(":")
    if file.endswith(".pt2"):
        return _load_program(Path(file))
    if factory and file.endswith(".py"):
        module = _call_factory(Path(file), factory)
        if weights is not None:
            _load_weights(module, Path(weights))
        return module
    if file.endswith((".pt", ".pth", ".ckpt", ".bin", ".pkl")):
        _read_weights(Path(file))
        raise ModelError(
            f"{file} holds weights but no network; expected file.py:factory beside it "
            f"(--weights {file}), or a model.pt2 from torch.export.save"
        )
    raise ModelError(f"expected a model as .onnx, .pt2 or file.py:factory, got {source}")


def _load_program(path: Path) -> nn.Module:
    if not path.is_file():
        raise ModelError(f"no model at {path}; check the path")
    try:
        program = torch.export.load(str(path))
    except Exception as error:
        raise ModelError(
            f"{path} is no program of torch.export.save: {first_line(error)}; export it again"
        ) from error
    return Program(program)


def _call_factory(path: Path, name: str) -> nn.Module:
    if not path.is_file():
        raise ModelError(f"no file {path}; check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"{path} cannot be imported; expected a Python file")
    code = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # what the file imports lies beside it
    try:
        spec.loader.exec_module(code)
    except Exception as error:
        kind = type(error).__name__
        raise ModelError(f"{path} cannot be imported: {kind}: {first_line(error)}") from error
    finally:
        sys.path.pop(0)
    factory = getattr(code, name, None)
    if not callable(factory):
        known = ", ".join(n for n, v in vars(code).items() if callable(v) and n[0] != "_")
        raise ModelError(f"expected a function {name!r} in {path}, got {known or 'none'}")
    try:
        module = factory()
    except Exception as error:
        kind = type(error).__name__
        raise ModelError(
            f"{name}() of {path} failed: {kind}: {first_line(error)}; expected a function without "
            "arguments that returns a torch.nn.Module"
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"expected {name}() of {path} to return a torch.nn.Module, got {type(module).__name__}"
        )
    return module


def _load_weights(module: nn.Module, path: Path) -> None:
    loaded = _read_weights(path)
    for key in _STATE_DICT_KEYS:
        if isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    try:
        module.load_state_dict(loaded)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"the weights of {path} do not fit the network: {reason}") from error


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"no weights at {path}; check the path") from error
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is a pickled module, and reading one runs the code in it; save what it "
            "learned, torch.save(model.state_dict(), 'weights.pt'), and give "
            "file.py:factory with --weights weights.pt"
        ) from error
    except Exception as error:
        raise ModelError(f"{path} holds no weights: {first_line(error)}") from error
    if not isinstance(loaded, Mapping):
        raise ModelError(f"expected a state_dict in {path}, got {type(loaded).__name__}")
    return dict(loaded)
