"""The builder of the fake: checks what it is told, and makes a plan of the graph and a header."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from typing import Any

import onnx
from fake_state import (
    MAGIC,
    BuilderFlag,
    DataType,
    MemoryPoolType,
    ProfilingVerbosity,
    State,
    described,
    take_logger,
)


def building_classes(state: State) -> tuple[type, ...]:
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
            return ITensor(*described(self._proto.graph.input[index]))

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
            take_logger(state, logger)
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
            take_logger(state, logger)
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
