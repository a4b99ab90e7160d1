"""What this machine has and lacks: one line for each thing that keeps edge-gru from its best."""

from __future__ import annotations

from collections.abc import Callable

from edge_gru.doctor import board, nvidia, resources, serving, wire
from edge_gru.doctor.check import Check, Status
from edge_gru.doctor.machine import Machine, Process

CHECKS: tuple[Callable[[Machine], Check], ...] = (
    board.system,
    board.board,
    board.jetpack,
    nvidia.tensorrt,
    nvidia.binding,
    nvidia.cuda,
    nvidia.gpu,
    board.power_mode,
    board.clocks,
    board.heat,
    wire.serial_ports,
    wire.modem_manager,
    wire.braille,
    resources.disk,
    resources.clock,
    resources.memory,
    serving.native,
    serving.onnxruntime,
    serving.engines,
)


def examine(machine: Machine) -> list[Check]:
    """Run every check, in the order in which they are read."""
    return [check(machine) for check in CHECKS]


__all__ = ["CHECKS", "Check", "Machine", "Process", "Status", "examine"]
