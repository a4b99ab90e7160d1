"""Recurrent functions of torch, found while a module runs: whatever module called them, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch.overrides import TorchFunctionMode

from edge_gru.errors import ModelError

_KINDS = {"gru": "GRU", "lstm": "LSTM", "rnn_tanh": "RNN_TANH", "rnn_relu": "RNN_RELU"}
_PROJECTED = {"LSTM": "LSTM_PROJECTED"}
_NAMES = ("w_ih", "w_hh", "b_ih", "b_hh")

Arguments = Sequence[Any]


class Call(NamedTuple):
    """One layer of a recurrent function at one time step; ``x`` and states are (batch, n)."""

    who: str
    kind: str
    tensors: dict[str, torch.Tensor]
    x: torch.Tensor
    starts: tuple[torch.Tensor, ...]
    new: tuple[torch.Tensor, ...]


class Recorder(TorchFunctionMode):  # type: ignore[misc]  # torch is not followed by mypy
    """Notes every recurrent function that is called at one time step, in order.

    It puts a placeholder in place of each: values of the right shape that depend on x and on the
    state, so that a graph made meanwhile has no recurrence in it, and names for both its ends. A
    function that walks along more than one step is none over time, and is left as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: Arguments = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Handle one call of a torch function."""
        del types
        name = _name(func)
        if name.endswith("_cell") and name.removesuffix("_cell") in _KINDS:
            return self._cell(name, args)
        if name not in _KINDS or _n_steps(name, args) != 1:
            return func(*args, **(kwargs or {}))
        return self._layers(name, args)

    def _layers(self, name: str, args: Arguments) -> Any:
        x, state, weights, _, n_layers, _, _, is_bidirectional, *rest = args
        if is_bidirectional:
            raise ModelError(
                f"nn.{name.upper()} is bidirectional: it reads the future, which a stream does not "
                "have; train it with bidirectional=False"
            )
        time_axis = 1 if rest and rest[0] else 0
        states = state if isinstance(state, (tuple, list)) else (state,)
        n_weights = len(weights) // n_layers
        rows, new = x.select(time_axis, 0), []
        for k in range(n_layers):
            own = weights[k * n_weights : (k + 1) * n_weights]
            new.append(self._note(name, own, rows, tuple(s[k] for s in states)))
            rows = new[-1][0]
        stacked = [torch.stack(layers) for layers in zip(*new, strict=True)]
        return (rows.unsqueeze(time_axis), *stacked)

    def _cell(self, name: str, args: Arguments) -> Any:
        x, state, *weights = args
        states = tuple(state) if isinstance(state, (tuple, list)) else (state,)
        own = [weight for weight in weights if weight is not None]
        new = self._note(name.removesuffix("_cell"), own, x, states)
        return new if len(new) > 1 else new[0]

    def _note(
        self,
        name: str,
        weights: Sequence[torch.Tensor],
        x: torch.Tensor,
        states: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, ...]:
        kind = _KINDS[name]
        tensors = dict(zip(_NAMES[: len(weights) // 2 * 2], weights, strict=False))
        if len(weights) % 2:
            kind = _PROJECTED[kind]
            tensors["w_hr"] = weights[-1]
        starts = tuple(_for_batch(state, len(x)) for state in states)
        new = tuple(_placeholder(x, start, k) for k, start in enumerate(starts))
        who = f"nn.{name.partition('_')[0].upper()} (call {len(self.calls)})"
        self.calls.append(Call(who, kind, tensors, x, starts, new))
        return new


def time_of(func: Callable[..., Any], args: Arguments) -> tuple[torch.Size, int | None] | None:
    """Shape of what a recurrent function reads, and its axis of time; a cell has none.

    None for any other function.

    Raises:
        ModelError: it reads packed sequences.
    """
    name = _name(func)
    if name in _KINDS:
        _n_steps(name, args)
        return args[0].shape, _time_axis(args)
    return (args[0].shape, None) if name.removesuffix("_cell") in _KINDS else None


def is_recurrent(func: Callable[..., Any]) -> bool:
    """Whether a function is a recurrent one of torch: of whole layers, or a cell."""
    return _name(func).removesuffix("_cell") in _KINDS


def arrays_of(call: Call) -> dict[str, Any]:
    """Tensors of a cell as numpy arrays; a bias that it does not have is zero."""
    arrays = {name: t.detach().float().numpy() for name, t in call.tensors.items()}
    n_rows = len(arrays["w_ih"])
    zeros = torch.zeros(n_rows).numpy()
    return {"b_ih": zeros, "b_hh": zeros, **arrays}


def _name(func: Callable[..., Any]) -> str:
    """``gru``, also of an overload in an exported graph: ``gru.input``."""
    return str(getattr(func, "__name__", "")).partition(".")[0]


def _n_steps(name: str, args: Arguments) -> int:
    if args[0].dim() != 3:
        raise ModelError(f"nn.{name.upper()} reads packed sequences; expected padded or whole ones")
    return cast("int", args[0].shape[_time_axis(args)])


def _time_axis(args: Arguments) -> int:
    return 1 if len(args) > 8 and args[8] else 0


def _for_batch(state: torch.Tensor, n_rows: int) -> torch.Tensor:
    """A start that was frozen to another batch, spread again."""
    return state if len(state) == n_rows else state[:1].expand(n_rows, -1)


def _placeholder(x: torch.Tensor, start: torch.Tensor, k: int) -> torch.Tensor:
    ramp = torch.linspace(0.5, 1.5, start.shape[-1], dtype=x.dtype) * (k + 1)
    return torch.tanh(x.sum(-1, keepdim=True) * ramp + start)
