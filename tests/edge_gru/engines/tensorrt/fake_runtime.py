"""Plans of the fake at work: onnxruntime, at the addresses that a context was given."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fake_cuda import Work
from fake_state import (
    MAGIC,
    DataType,
    State,
    TensorIOMode,
    TensorLocation,
    described,
    take_logger,
)

FRESH = 0xFFFFFFFF  # what fresh memory is full of
_NUMPY = {"FLOAT": np.float32, "BOOL": np.bool_}


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
        for name, shape, dtype in map(described, found)
    }
    return onnxruntime.InferenceSession(graph, options), tensors


def running_classes(state: State) -> tuple[type, ...]:
    class Runtime:
        def __init__(self, logger: Any) -> None:
            take_logger(state, logger)
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
