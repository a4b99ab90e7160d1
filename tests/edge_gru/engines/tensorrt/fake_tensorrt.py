"""The part of ``tensorrt`` that the engine uses, with its real names and signatures.

A plan is the ONNX graph with a header; a context runs it in onnxruntime, without optimisations, at
the addresses it was given, when the stream is synchronized. Answers of failure are the real ones:
None, False, TypeError; the reason goes to the logger alone.
"""

from __future__ import annotations

import types

from fake_builder import building_classes
from fake_runtime import running_classes
from fake_state import State, enums, logging_classes


def make_module(state: State) -> types.ModuleType:
    """Make a module ``tensorrt`` on a fake CUDA."""
    module = types.ModuleType("tensorrt")
    module.__version__ = state.version
    for thing in (
        *enums(state),
        *logging_classes(state),
        *building_classes(state),
        *running_classes(state),
    ):
        setattr(module, thing.__name__, thing)
    return module
