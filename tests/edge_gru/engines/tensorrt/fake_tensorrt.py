"""The part of ``tensorrt`` that the engine uses, with its real names and signatures.

A plan is the ONNX graph with a header; a context runs it in onnxruntime, without optimisations, at
the addresses it was given, when the stream is synchronized. Answers of failure are the real ones:
None, False, TypeError; the reason goes to the logger alone.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import hashlib
import itertools
import json
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_cuda import FakeCuda, Work

MAGIC = b"ftrt"
FRESH = 0xFFFFFFFF  # what fresh memory is full of
_TYPES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.BOOL: "BOOL"}
_NUMPY = {"FLOAT": np.float32, "BOOL": np.bool_}
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


def make_module(state: State) -> types.ModuleType:
    """Make a module ``tensorrt`` on a fake CUDA."""
    module = types.ModuleType("tensorrt")
    module.__version__ = state.version
    for thing in (*_enums(state), *_logging(state), *_building(state), *_running(state)):
        setattr(module, thing.__name__, thing)
    return module


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


def _enums(state: State) -> tuple[type, ...]:
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


def _logging(state: State) -> tuple[type, ...]:
    class ILogger:
        def __init__(self) -> None:
            self.is_made = True

        def log(self, severity: Severity, msg: str) -> None:
            raise NotImplementedError

    ILogger.Severity = Severity
    for severity in Severity:
        setattr(ILogger, severity.name, severity)

    class IProgressMonitor:
        def __init__(self) -> None:
            self.is_made = True

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            raise NotImplementedError

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise NotImplementedError

        def phase_finish(self, phase_name: str) -> None:
            raise NotImplementedError

    return ILogger, IProgressMonitor


def _take_logger(state: State, logger: Any) -> None:
    if not getattr(logger, "is_made", False):
        raise TypeError("a logger whose ILogger.__init__ was not called")
    state.logger = state.logger or logger  # the first one wins


def _building(state: State) -> tuple[type, ...]:
    class IHostMemory:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def __bytes__(self) -> bytes:
            return self._data

        @property
        def nbytes(self) -> int:
            return len(self._data)

    class ITensor:
        def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
            self.name, self.shape, self.dtype = name, shape, DataType[dtype]

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._flags = flags
            self._proto: onnx.ModelProto | None = None
            self._parser: Any = lambda: None

        @property
        def num_inputs(self) -> int:
            return len(self._proto.graph.input)

        def get_input(self, index: int) -> ITensor:
            return ITensor(*_described(self._proto.graph.input[index]))

    class ParserError:
        def __init__(self, operator: str, name: str, text: str) -> None:
            self._facts = (operator, name, text)

        def node_operator(self) -> str:
            return self._facts[0]

        def node_name(self) -> str:
            return self._facts[1]

        def desc(self) -> str:
            return self._facts[2]

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: Any) -> None:
            state.enter("OnnxParser.__init__")
            _take_logger(state, logger)
            self._network = network
            self._errors: list[ParserError] = []

        def parse(self, model: bytes, path: str | None = None) -> bool:
            fails, answer = state.enter("OnnxParser.parse")
            if fails:
                return answer
            try:
                proto = onnx.load_model_from_string(model)
                onnx.checker.check_model(proto)
            except Exception as error:  # noqa: BLE001 - whatever onnx raises of bytes
                self._errors.append(ParserError("", "", f"{error}".partition("\n")[0]))
                return False
            for node in proto.graph.node:
                if node.op_type == "MatMulInteger":
                    self._errors.append(ParserError(node.op_type, node.name, "false"))
            self._network._proto = proto
            self._network._parser = weakref.ref(self)
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

    class ITimingCache:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> IHostMemory | None:
            fails, answer = state.enter("ITimingCache.serialize")
            return answer if fails else IHostMemory(self._data)

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, list[list[int]]] = {}

        def set_shape(
            self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
        ) -> None:
            shapes = [list(min), list(opt), list(max)]
            if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
                raise ValueError("shapes out of order")
            self._shapes[input] = shapes

    class IBuilderConfig:
        def __init__(self) -> None:
            self._facts: dict[str, Any] = {"flags": {"TF32"}, "profiles": []}
            self._timings: ITimingCache | None = None
            self.builder_optimization_level = 3
            self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
            self.progress_monitor: Any = None

        def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
            self._facts[pool.name] = pool_size

        def clear_flag(self, flag: BuilderFlag) -> None:
            self._facts["flags"].discard(flag.name)

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
            fails, answer = state.enter("IBuilderConfig.create_timing_cache")
            return answer if fails else ITimingCache(bytes(serialized_timing_cache))

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            fails, answer = state.enter("IBuilderConfig.set_timing_cache")
            if fails:
                return answer
            if ignore_mismatch:
                state.cuda.fault("timings of another GPU taken over")
            if cache._data and not cache._data.startswith(state.version.encode()):
                return False
            self._timings = cache
            return True

        def get_timing_cache(self) -> ITimingCache | None:
            fails, answer = state.enter("IBuilderConfig.get_timing_cache")
            return answer if fails else self._timings

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            fails, answer = state.enter("IBuilderConfig.add_optimization_profile")
            if fails:
                return answer
            self._facts["profiles"].append(profile._shapes)
            return len(self._facts["profiles"]) - 1

    class Builder:
        def __init__(self, logger: Any) -> None:
            _take_logger(state, logger)
            state.enter("Builder.__init__")

        def create_network(self, flags: int = 0) -> INetworkDefinition | None:
            fails, answer = state.enter("Builder.create_network")
            return answer if fails else INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig | None:
            fails, answer = state.enter("Builder.create_builder_config")
            return answer if fails else IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile | None:
            fails, answer = state.enter("Builder.create_optimization_profile")
            return answer if fails else IOptimizationProfile()

        def build_serialized_network(
            self, network: INetworkDefinition, config: IBuilderConfig
        ) -> IHostMemory | None:
            fails, answer = state.enter("Builder.build_serialized_network")
            state.cuda.gpu_work_began = True
            if not network._flags & 1 << int(state.creation_flag.STRONGLY_TYPED):
                state.cuda.fault("built a network that is not strongly typed")
            if network._parser() is None:
                state.cuda.fault("built after the parser was gone")
            state.during_build()
            if fails or not _go_through(state, config.progress_monitor):
                return answer
            return IHostMemory(_plan(state, network, config))

    return (
        IHostMemory,
        ITensor,
        INetworkDefinition,
        ParserError,
        OnnxParser,
        ITimingCache,
        IOptimizationProfile,
        IBuilderConfig,
        Builder,
    )


def _go_through(state: State, monitor: Any) -> bool:
    """Tell a monitor of every phase; False if it wants the build to end."""
    if monitor is None:
        return True
    if not monitor.is_made:
        raise TypeError("a monitor whose IProgressMonitor.__init__ was not called")
    for name, parent, n_steps in state.phases:
        monitor.phase_start(name, parent, n_steps)
    for name, _, n_steps in reversed(state.phases):
        for step in range(n_steps):
            if not monitor.step_complete(name, step):
                state.say("ERROR", "the build was cancelled by the progress monitor")
                return False
        monitor.phase_finish(name)
    return True


def _plan(state: State, network: Any, config: Any) -> bytes:
    state.n_builds += 1
    facts = {
        "flags": sorted(config._facts["flags"]),
        "workspace_bytes": config._facts.get("WORKSPACE"),
        "level": config.builder_optimization_level,
        "verbosity": config.profiling_verbosity.name,
        "profile": config._facts["profiles"][0],
        "timings": None if config._timings is None else config._timings._data.decode(),
    }
    state.built_with.append(facts)
    if config._timings is not None:
        config._timings._data = f"{state.version} after {state.n_builds} builds".encode()
    for message in state.warnings:
        state.say("WARNING", message)
    head = json.dumps({"version": state.version, **facts}).encode()
    body = head + b"\0" + network._proto.SerializeToString()
    return MAGIC + hashlib.sha256(body).digest() + body


def _described(value: onnx.ValueInfoProto) -> tuple[str, tuple[int, ...], str]:
    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
    return value.name, shape, _TYPES[tensor.elem_type]


@functools.lru_cache(64)
def _session_of(graph: bytes) -> tuple[Any, dict[str, tuple[TensorIOMode, tuple[int, ...], str]]]:
    proto = onnx.load_model_from_string(graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    values = ((TensorIOMode.INPUT, proto.graph.input), (TensorIOMode.OUTPUT, proto.graph.output))
    tensors = {
        name: (mode, shape, dtype)
        for mode, found in values
        for name, shape, dtype in map(_described, found)
    }
    return onnxruntime.InferenceSession(graph, options), tensors


def _running(state: State) -> tuple[type, ...]:
    class Runtime:
        def __init__(self, logger: Any) -> None:
            _take_logger(state, logger)
            state.enter("Runtime.__init__")

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            fails, answer = state.enter("Runtime.deserialize_cuda_engine")
            if fails:
                return answer
            magic, digest, body = (
                serialized_engine[:4],
                serialized_engine[4:36],
                serialized_engine[36:],
            )
            if magic != MAGIC or hashlib.sha256(body).digest() != digest:
                state.say("ERROR", "the plan is corrupt")
                return None
            head, _, graph = body.partition(b"\0")
            facts = json.loads(head)
            if facts["version"] != state.version:
                state.say("ERROR", f"the plan is of version {facts['version']}")
                return None
            return ICudaEngine(facts, graph)

    class ICudaEngine:
        def __init__(self, facts: dict[str, Any], graph: bytes) -> None:
            state.live.add(self)
            self._profile = facts["profile"]
            self._session, self._tensors = _session_of(graph)

        @property
        def num_io_tensors(self) -> int:
            return len(self._tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(self._tensors)[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return self._tensors[name][0]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return self._tensors[name][1]

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType[self._tensors[name][2]]

        def get_tensor_location(self, name: str) -> TensorLocation:
            return TensorLocation.DEVICE

        def create_execution_context(self) -> IExecutionContext | None:
            fails, answer = state.enter("ICudaEngine.create_execution_context")
            return answer if fails else IExecutionContext(self)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            state.live.add(self)
            state.cuda.contexts.add(self)
            self._engine = engine  # keeps it, as the binding does
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}
            self._n_runs_done = 0
            self._n_changes = 0
            self._recorded_at: int | None = None

        def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
            fails, answer = state.enter("IExecutionContext.set_input_shape")
            if fails:
                return answer
            low, _, high = self._engine._profile[name]
            if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
                state.cuda.fault(f"{name} of shape {tuple(shape)} is outside the profile")
                return False
            self._shapes[name] = tuple(shape)
            self._n_changes += 1
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            fails, answer = state.enter("IExecutionContext.set_tensor_address")
            if fails:
                return answer
            if name not in self._engine._tensors:
                return False
            self._addresses[name] = memory
            self._n_changes += 1
            return True

        def infer_shapes(self) -> list[str]:
            fails, answer = state.enter("IExecutionContext.infer_shapes")
            return answer if fails else self._missing_shapes()

        def _missing_shapes(self) -> list[str]:
            return [
                name
                for name, (mode, _, _) in self._engine._tensors.items()
                if mode is TensorIOMode.INPUT and name not in self._shapes
            ]

        def execute_async_v3(self, stream_handle: int) -> bool:
            fails, answer = state.enter("IExecutionContext.execute_async_v3")
            if fails:
                return answer
            unset = set(self._engine._tensors) - set(self._addresses)
            if unset or self._missing_shapes():
                state.cuda.fault(f"run without addresses of {sorted(unset)}, or shapes")
                return False
            spans = self._spans()
            _check_spans(state, spans)
            if state.cuda.streams.get(stream_handle) is None:
                state.cuda.fault("run in no stream")
                return False
            if state.cuda.is_recording(stream_handle):
                if not self._n_runs_done:
                    state.cuda.fault("the first run is being recorded")
                self._recorded_at = self._n_changes
            state.cuda.gpu_work_began = True
            touches = tuple((address, n) for _, address, n, _ in spans)
            work = Work("a step", touches, lambda: self._run(spans), owner=self)
            return state.cuda.enqueue(stream_handle, work)

        # What the fake of CUDA asks.

        def may_replay(self) -> bool:
            return self._recorded_at == self._n_changes

        @property
        def has_run(self) -> bool:
            return self._n_runs_done > 0

        @property
        def uses(self) -> list[int]:
            return list(self._addresses.values())

        def _spans(self) -> list[tuple[str, int, int, Any]]:
            n = self._shapes["x"][0]
            spans = []
            for name, (mode, shape, dtype) in self._engine._tensors.items():
                whole = self._shapes[name] if mode is TensorIOMode.INPUT else (n, *shape[1:])
                array_type = np.dtype(_NUMPY[dtype])
                n_bytes = int(np.prod(whole)) * array_type.itemsize
                spans.append((name, self._addresses[name], n_bytes, (whole, array_type)))
            return spans

        def _run(self, spans: list[tuple[str, int, int, Any]]) -> None:
            _check_spans(state, spans)
            arrays = {}
            for name, address, n_bytes, (shape, dtype) in spans:
                buffer = (ctypes.c_ubyte * n_bytes).from_address(address)
                arrays[name] = np.frombuffer(buffer, dtype).reshape(shape)
            session = self._engine._session
            feed = {v.name: arrays[v.name].copy() for v in session.get_inputs()}
            for name, value in feed.items():
                if value.dtype == np.float32 and (value.view(np.uint32) == FRESH).any():
                    state.cuda.fault(f"{name} is read and nobody has written it")
            names = [v.name for v in session.get_outputs()]
            for name, value in zip(names, session.run(names, feed), strict=True):
                arrays[name][...] = value
            self._n_runs_done += 1

    def _check_spans(state: State, spans: list[tuple[str, int, int, Any]]) -> None:
        for name, address, n_bytes, _ in spans:
            state.cuda.check_span(address, n_bytes, ("device", "mapped"), f"tensor {name}")
        ordered = sorted((address, n_bytes, name) for name, address, n_bytes, _ in spans)
        for (address, n_bytes, name), (after, _, other) in itertools.pairwise(ordered):
            if address + n_bytes > after:
                state.cuda.fault(f"{name} and {other} share memory")

    return Runtime, ICudaEngine, IExecutionContext
