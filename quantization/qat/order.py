"""Which operations of a step must be done step by step, and which for a whole window at once."""

from __future__ import annotations

from dataclasses import dataclass

from edge_gru.manifest import Program, StepNode


@dataclass(frozen=True)
class Order:
    """The operations of a program, by when they can be done.

    Attributes:
        before: read no state.
        within: between one state and the next.
        after: read what the others leave; no state depends on them.
        timed: ``x`` and what ``before`` makes of it, one value a step.
        kept: what ``within`` reads or makes and is needed of every step.
    """

    before: tuple[StepNode, ...]
    within: tuple[StepNode, ...]
    after: tuple[StepNode, ...]
    timed: frozenset[str]
    kept: tuple[str, ...]


def order_of(program: Program, states: tuple[str, ...]) -> Order:
    """Sort the operations of a program whose states have the given names."""
    new = {f"{name}_out" for name in states}
    moving = _followers(program.nodes, set(states))
    before = tuple(node for node in program.nodes if moving.isdisjoint(node.outputs))
    rest = [node for node in program.nodes if node not in before]
    within: list[StepNode] = []
    needed = set(new)
    for node in reversed(rest):
        if not needed.isdisjoint(node.outputs):
            within.insert(0, node)
            needed |= set(node.inputs)
    after = tuple(node for node in rest if node not in within)
    made = set(states).union(*(node.outputs for node in within))
    read = {program.output, *new}.union(*(node.inputs for node in after))
    timed = _followers(before, {"x"})
    return Order(before, tuple(within), after, frozenset(timed), tuple(sorted(made & read)))


def _followers(nodes: tuple[StepNode, ...], names: set[str]) -> set[str]:
    """Add to names every value that depends on one of them."""
    found = set(names)
    for node in nodes:
        if not found.isdisjoint(node.inputs):
            found |= set(node.outputs)
    return found
