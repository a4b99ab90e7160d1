"""Sensor boards in software: shipped, for demonstrations and tests without hardware."""

from firmware_bridge.simulator.board import SimulatedBoard
from firmware_bridge.simulator.faults import FAULTS, Fault
from firmware_bridge.simulator.pump import PumpScenario, PumpSource
from firmware_bridge.simulator.qemu import QemuBoard
from firmware_bridge.simulator.replay import ReplaySource
from firmware_bridge.simulator.source import Source

__all__ = [
    "FAULTS",
    "Fault",
    "PumpScenario",
    "PumpSource",
    "QemuBoard",
    "ReplaySource",
    "SimulatedBoard",
    "Source",
]
