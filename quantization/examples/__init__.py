"""Small recurrent networks trained on recordings, with what it takes to train them again.

Each example is a package: its data, schema and metric need numpy alone; ``python -m`` on it trains
the network, seeded, and rewrites its checkpoint in ``models``. Recordings are found in the folder
that the environment variable ``EDGE_GRU_DATA`` names; the pump is simulated and needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from quantization.examples.basicmotions import BasicMotions
from quantization.examples.cmapss_fd001 import CmapssFd001
from quantization.examples.example import Example
from quantization.examples.phone_motion import PhoneMotion
from quantization.examples.pump import Pump

EXAMPLES: Mapping[str, Example] = MappingProxyType(
    {example.name: example for example in (BasicMotions(), CmapssFd001(), PhoneMotion(), Pump())}
)

__all__ = ["EXAMPLES", "Example"]
