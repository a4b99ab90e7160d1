"""What the package promises, and what it does not load."""

import subprocess
import sys

import firmware_bridge
from firmware_bridge import simulator


def test_public_names_are_these():
    assert firmware_bridge.__all__ == [
        "BridgeError",
        "Channel",
        "EpochChanged",
        "Event",
        "FormatError",
        "Gap",
        "Item",
        "Link",
        "LinkDown",
        "LinkStatistics",
        "LinkUp",
        "PortError",
        "PortInfo",
        "PortNotFoundError",
        "ProtocolError",
        "Sample",
        "SampleBlock",
        "Schema",
        "SchemaError",
        "list_ports",
    ]
    assert simulator.__all__ == [
        "FAULTS",
        "Fault",
        "PumpScenario",
        "PumpSource",
        "QemuBoard",
        "ReplaySource",
        "SimulatedBoard",
        "Source",
    ]
    assert all(hasattr(firmware_bridge, name) for name in firmware_bridge.__all__)
    assert all(hasattr(simulator, name) for name in simulator.__all__)


def test_every_error_is_of_the_tree_and_a_builtin():
    errors = [getattr(firmware_bridge, n) for n in firmware_bridge.__all__ if n.endswith("Error")]
    assert len(errors) == 6
    for error in errors:
        assert issubclass(error, firmware_bridge.BridgeError)
        builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
        assert len(builtins) >= 4 or error is firmware_bridge.BridgeError


def test_importing_loads_no_model_library():
    code = (
        "import sys, firmware_bridge, firmware_bridge.simulator;"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'edge_gru', 'quantization'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
