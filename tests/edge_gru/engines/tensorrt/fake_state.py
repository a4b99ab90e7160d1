"""What the fake of TensorRT knows and what its parts share: state, enums, loggers."""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable
from typing import Any

import onnx
from fake_cuda import FakeCuda

MAGIC = b"ftrt"
TYPES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.BOOL: "BOOL"}
# What a call answers when it fails; what is not here cannot fail.
FAILURES: dict[str, Any] = {
    "Builder.__init__": TypeError("pybind11::init(): factory function returned nullptr"),
    "Builder.create_network": None,
    "Builder.create_builder_config": None,
    "Builder.create_optimization_profile": None,
    "Builder.build_serialized_network": None,
    "OnnxParser.parse": False,
    "IBuilderConfig.create_timing_cache": None,
    "IBuilderConfig.set_timing_cache": False,
    "IBuilderConfig.get_timing_cache": None,
    "IBuilderConfig.add_optimization_profile": -1,
    "ITimingCache.serialize": None,
    "Runtime.__init__": TypeError("pybind11::init(): factory function returned nullptr"),
    "Runtime.deserialize_cuda_engine": None,
    "ICudaEngine.create_execution_context": None,
    "IExecutionContext.set_input_shape": False,
    "IExecutionContext.set_tensor_address": False,
    "IExecutionContext.infer_shapes": ["x"],
    "IExecutionContext.execute_async_v3": False,
}
HARMLESS = {  # a build without timings is slower, and that is all
    "IBuilderConfig.create_timing_cache", "IBuilderConfig.set_timing_cache",
    "IBuilderConfig.get_timing_cache", "ITimingCache.serialize",
}  # fmt: skip


class PybindEnum(enum.Enum):
    """An enum that is no int, but makes one, as those of pybind11."""

    def __int__(self) -> int:
        return self.value


class State:
    """What one fake of TensorRT knows; tests set and read it."""

    def __init__(self, version: str) -> None:
        self.version = version
        flags = {"STRONGLY_TYPED": 0} if version.startswith("11.") else {"STRONGLY_TYPED": 1}
        self.creation_flag = PybindEnum("NetworkDefinitionCreationFlag", flags)
        self.renew()

    def renew(self) -> FakeCuda:
        """Forget everything, on a new GPU."""
        self.cuda = FakeCuda()
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.fail_name: str | None = None
        self.failed = ""
        self.logger: Any = None
        self.live: weakref.WeakSet[Any] = weakref.WeakSet()
        self.n_builds = 0
        self.during_build: Callable[[], None] = lambda: None
        self.phases = [("Build", None, 4), ("Tactics", "Build", 10)]
        self.built_with: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        return self.cuda

    def enter(self, call: str) -> tuple[bool, Any]:
        """Note a call; tells whether it fails, and with what."""
        if self.cuda.flags is None:
            self.cuda.fault(f"{call}: before cudaSetDeviceFlags")
        self.calls.append(call)
        fails = call in FAILURES and (self.fail_at == len(self.calls) - 1 or self.fail_name == call)
        if not fails:
            return False, None
        self.failed = call
        answer = FAILURES[call]
        if self.logger is not None:
            self.say("ERROR", f"{call} failed")
        if isinstance(answer, Exception):
            raise type(answer)(*answer.args)
        return True, answer

    def say(self, severity: str, message: str) -> None:
        self.logger.log(self.logger.Severity[severity], message)


class MemoryPoolType(PybindEnum):
    WORKSPACE = 0
    TACTIC_DRAM = 4


class BuilderFlag(PybindEnum):
    DEBUG = 2
    TF32 = 7


class ProfilingVerbosity(PybindEnum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class TensorIOMode(PybindEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(PybindEnum):
    DEVICE = 0
    HOST = 1


class DataType(PybindEnum):
    FLOAT = 0
    HALF = 1
    BOOL = 4


def enums(state: State) -> tuple[type, ...]:
    return (
        state.creation_flag,
        MemoryPoolType,
        BuilderFlag,
        ProfilingVerbosity,
        TensorIOMode,
        TensorLocation,
        DataType,
    )


class Severity(PybindEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


def _pure_virtual(name: str) -> RuntimeError:
    """What the binding raises for a method that a subclass must have and does not."""
    return RuntimeError(f'Tried to call pure virtual function "{name}"')


def logging_classes(state: State) -> tuple[type, ...]:
    class ILogger:
        def __init__(self) -> None:
            self.is_made = True

        def log(self, severity: Severity, msg: str) -> None:
            raise _pure_virtual("ILogger::log")

    ILogger.Severity = Severity
    for severity in Severity:
        setattr(ILogger, severity.name, severity)

    class IProgressMonitor:
        def __init__(self) -> None:
            self.is_made = True

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            raise _pure_virtual("IProgressMonitor::phase_start")

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise _pure_virtual("IProgressMonitor::step_complete")

        def phase_finish(self, phase_name: str) -> None:
            raise _pure_virtual("IProgressMonitor::phase_finish")

    return ILogger, IProgressMonitor


def take_logger(state: State, logger: Any) -> None:
    if not getattr(logger, "is_made", False):
        raise TypeError("a logger whose ILogger.__init__ was not called")
    state.logger = state.logger or logger  # the first one wins


def described(value: onnx.ValueInfoProto) -> tuple[str, tuple[int, ...], str]:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return value.name, shape, TYPES[tensor.elem_type]
