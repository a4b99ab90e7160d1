"""A plan, loaded and compared with its bundle, and its runs as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from edge_gru.engines.tensorrt.binding import LOG, trt
from edge_gru.engines.tensorrt.cudart import Cuda
from edge_gru.engines.tensorrt.device import executable_graph
from edge_gru.errors import EngineUnavailableError
from edge_gru.manifest import Manifest


@dataclass(frozen=True)
class Tensor:
    """An input or output of a plan."""

    is_input: bool
    shape: tuple[int, ...]  # -1 for the batch
    dtype: trt.DataType


def load_plan(plan: bytes) -> trt.ICudaEngine:
    """Load a plan that this board has built; a plan is native code.

    Raises:
        EngineUnavailableError: TensorRT does not take it.
    """
    LOG.clear()
    try:
        engine = trt.Runtime(LOG).deserialize_cuda_engine(plan)
    except TypeError as error:  # how the binding says that the library has none
        raise EngineUnavailableError(
            f"TensorRT makes no runtime here ({LOG.reason()}); are driver and GPU there?"
        ) from error
    if engine is None:
        raise EngineUnavailableError(f"TensorRT does not load the plan ({LOG.reason()})")
    return engine


def expected_tensors(manifest: Manifest, n_rows: int) -> dict[str, Tensor]:
    """List what the plan of so many streams must have: x, y, the states, the mask."""
    tensors = {
        "x": Tensor(is_input=True, shape=(-1, manifest.n_in), dtype=trt.DataType.FLOAT),
        "y": Tensor(is_input=False, shape=(-1, manifest.n_out), dtype=trt.DataType.FLOAT),
    }
    for name, size in manifest.state_sizes.items():
        for tensor, is_input in ((name, True), (f"{name}_out", False)):
            tensors[tensor] = Tensor(is_input, (-1, size), trt.DataType.FLOAT)
    if n_rows > 1:
        tensors["active"] = Tensor(is_input=True, shape=(-1, 1), dtype=trt.DataType.BOOL)
    return tensors


def check_tensors(engine: trt.ICudaEngine, expected: Mapping[str, Tensor]) -> None:
    """Make sure that a plan has exactly these tensors, all of them in device memory.

    Raises:
        EngineUnavailableError: it has others.
    """
    found = {}
    for k in range(engine.num_io_tensors):
        name = engine.get_tensor_name(k)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        shape = tuple(engine.get_tensor_shape(name))
        found[name] = Tensor(is_input, (-1, *shape[1:]), engine.get_tensor_dtype(name))
        if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise EngineUnavailableError(
                f"expected {name} of the TensorRT plan in device memory, got host memory; "
                "pack the model again"
            )
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            raise EngineUnavailableError(
                f"expected {name} of the TensorRT plan to be {expected.get(name)}, "
                f"got {found.get(name)}; pack the model again"
            )


class Phase:
    """One direction of the state: a context with fixed addresses, and the graph of its run.

    Nothing of it can be changed: other addresses or another batch are another phase, with a graph
    of its own.
    """

    def __init__(self, cuda: Cuda, context: trt.IExecutionContext, stream: int) -> None:
        self._cuda = cuda
        self._context = context
        self._stream = stream
        self._executable = 0
        self.why_no_graph = ""

    @classmethod
    @contextmanager
    def open(
        cls, cuda: Cuda, context: trt.IExecutionContext, stream: int, *, uses_graph: bool
    ) -> Iterator[Phase]:
        """Run once, and record the run; both move the state that the context is bound to.

        Raises:
            EngineUnavailableError: the step does not run.
        """
        phase = cls(cuda, context, stream)
        del context
        with ExitStack() as stack:
            stack.callback(phase._forget)
            phase._try()  # the first run may do what cannot be recorded
            if uses_graph:
                phase._record_or_explain(stack)
            yield phase

    def launch(self) -> None:
        """Put the run into the stream.

        Raises:
            EngineUnavailableError: it cannot be; the state is as it was.
        """
        if self._executable:
            self._cuda.launch(self._executable, self._stream)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        LOG.clear()
        if not self._context.execute_async_v3(self._stream):
            self._cuda.synchronize(self._stream)  # tells if the GPU is lost
            raise EngineUnavailableError(
                f"TensorRT does not run the step ({LOG.reason()}); run a CPU engine"
            )

    def _try(self) -> None:
        self._enqueue()
        self._cuda.synchronize(self._stream)

    def _record_or_explain(self, stack: ExitStack) -> None:
        try:
            graph = self._record()
            self._executable = stack.enter_context(executable_graph(self._cuda, graph))
        except EngineUnavailableError as error:
            self.why_no_graph = str(error)
            self._try()  # what failed must not have spoilt the stream, or the GPU

    def _record(self) -> int:
        LOG.clear()
        self._cuda.begin_capture(self._stream)
        try:
            is_enqueued = self._context.execute_async_v3(self._stream)
        finally:
            graph = self._cuda.end_capture(self._stream)
        if not is_enqueued or not graph:
            if graph:
                self._cuda.destroy_graph(graph)
            raise EngineUnavailableError(f"TensorRT does not record the step ({LOG.reason()})")
        return graph

    def _forget(self) -> None:
        """Let the context go before the memory that it has the addresses of."""
        del self._context


def bound_context(
    engine: trt.ICudaEngine, addresses: Mapping[str, int], inputs: Mapping[str, tuple[int, int]]
) -> trt.IExecutionContext:
    """Make a context with every shape and address set, so that it can run and be recorded."""
    LOG.clear()
    context = engine.create_execution_context()
    if context is None:
        raise EngineUnavailableError(
            f"TensorRT makes no context for the plan ({LOG.reason()}); free memory, or run a CPU "
            "engine"
        )
    for name, shape in inputs.items():
        if not context.set_input_shape(name, shape):
            raise EngineUnavailableError(
                f"the TensorRT plan takes no {name} of shape {shape} ({LOG.reason()}); "
                "run a CPU engine"
            )
    for name, address in addresses.items():
        if not context.set_tensor_address(name, address):
            raise EngineUnavailableError(
                f"TensorRT refuses the memory for {name} ({LOG.reason()}); run a CPU engine"
            )
    missing = context.infer_shapes()
    if missing:
        raise EngineUnavailableError(
            f"the TensorRT plan has no shape for {', '.join(missing)}; pack the model again"
        )
    return context
