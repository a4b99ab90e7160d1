"""Which input of an ONNX graph is the sample, and which are states, and what they become."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from edge_gru.errors import DataError, ModelError
from quantization.importers.onnx_rewrite import dims_of, feeds_of

_DIRECTIONS = {"in", "out", "input", "output", "new", "next", "prev", "init", "initial", "0", "n"}
_TOKEN = re.compile(r"[a-z]+|[0-9]+")
_LETTER = re.compile(r"^([hc])([0nt]|in|out|new|next|prev)$")


@dataclass(frozen=True)
class Ports:
    """What a caller feeds to a graph and takes from it.

    ``states`` maps each state input to the output that is its next value, or to None where the
    graph does not return it. ``is_step`` says that the graph takes one sample, not a sequence.
    """

    x: onnx.ValueInfoProto
    y: str
    states: dict[str, str | None]
    is_step: bool

    @property
    def lost(self) -> str | None:
        """Say which state a step loses; None: it returns them all."""
        if not self.is_step or (self.states and None not in self.states.values()):
            return None
        name = next((name for name, output in self.states.items() if output is None), None)
        return (
            "expected a step (batch, channels) to take its states and to return them, "
            f"got {f'no output for {name!r}' if name else 'no state'}; export it with both"
        )


def find_ports(proto: onnx.ModelProto, n_channels: int | None, source: object) -> Ports:
    """Tell the sample from the states, by names first, by shapes where names say nothing.

    ``n_channels`` is None where the file itself is to say how many there are.

    Raises:
        ModelError: no float input of two or three axes.
        DataError: the model takes another number of channels than ``n_channels``.
    """
    inputs, outputs = feeds_of(proto.graph), list(proto.graph.output)
    named = _pairs_by_name(inputs, outputs)
    x = _sample(inputs, set(named), n_channels, source)
    y = next((o.name for o in outputs if o.name not in named.values()), outputs[0].name)
    states: dict[str, str | None] = {}
    taken = {*named.values(), y}
    for value in inputs:
        if value.name == x.name:
            continue
        paired = named.get(value.name) or _same_shape(value, outputs, taken)
        states[value.name] = paired
        taken.add(paired or "")
    is_step = len(dims_of(x)) == 2 or (
        1 in dims_of(x)[:2] and bool(states) and None not in states.values()
    )
    return Ports(x, y, states, is_step)


def stem(name: str) -> str:
    """What a state is called whichever way it goes: ``h0``, ``hn``; ``state_in``, ``state_out``."""
    words = [word for part in name.lower().split("_") for word in _words(part)]
    kept = [word for word in words if word not in _DIRECTIONS or word.isdigit()]
    return " ".join(kept)


def _words(part: str) -> list[str]:
    letter = _LETTER.match(part)
    return [letter.group(1)] if letter else _TOKEN.findall(part)


def _pairs_by_name(
    inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> dict[str, str]:
    by_stem = {stem(output.name): output for output in outputs}
    pairs = {}
    for value in inputs:
        found = by_stem.get(stem(value.name))
        if found is not None and stem(value.name) and _fits(value, found):
            pairs[value.name] = found.name
    return pairs if len(set(pairs.values())) == len(pairs) else {}


def _same_shape(
    value: onnx.ValueInfoProto, outputs: Sequence[onnx.ValueInfoProto], taken: set[str]
) -> str | None:
    for output in outputs:
        if output.name not in taken and _fits(value, output):
            return output.name
    return None


def _fits(one: onnx.ValueInfoProto, other: onnx.ValueInfoProto) -> bool:
    a, b = dims_of(one), dims_of(other)
    if not b:  # an output without a declared shape
        return True
    fixed = [
        (m, n) for m, n in zip(a, b, strict=False) if isinstance(m, int) and isinstance(n, int)
    ]
    return len(a) == len(b) and all(m == n for m, n in fixed)


def _sample(
    inputs: Sequence[onnx.ValueInfoProto], states: set[str], n_channels: int | None, source: object
) -> onnx.ValueInfoProto:
    floats = [
        v
        for v in inputs
        if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        and v.name not in states
        and (len(dims_of(v)) == 3 or (len(dims_of(v)) == 2 and len(inputs) > 1))
    ]
    if not floats:
        found = ", ".join(f"{v.name} {dims_of(v)}" for v in inputs)
        raise ModelError(
            f"{source}: expected a float32 input of shape (batch, time, channels) or "
            "(time, batch, channels), or of one step (batch, channels) with its states, "
            f"got {found}"
        )
    fitting = [
        v
        for v in floats
        if n_channels is None or dims_of(v)[-1] == n_channels or isinstance(dims_of(v)[-1], str)
    ]
    if not fitting:
        raise DataError(
            f"expected sequences of {dims_of(floats[0])[-1]} channels, as the model takes, "
            f"got {n_channels}"
        )
    return fitting[0]
