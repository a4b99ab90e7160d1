"""The portable engine: the step graph in ONNX Runtime, on the CPU by default with one thread."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import onnxruntime

from edge_gru.engines.base import EngineSource, Float32, HostStateEngine
from edge_gru.errors import EdgeGruError, EngineUnavailableError
from edge_gru.manifest import Manifest

_N_ROUNDS = 9
_N_STEPS_A_ROUND = 20
# INT8 is what the model was quantized for: float must be clearly faster to replace it.
_FLOAT_MUST_WIN_BY = 1.1
_N_ROWS_TRIED = 64
_BATCH_TOLERANCE = 0.02  # a value near a tie may round the other way; a wrong row is far off

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a graph runs: a provider of onnxruntime with its options, and the graph it takes.

    A place other than the CPU takes the whole graph, or is refused.
    """

    provider: str
    use: str  # of ``PrecisionInfo.graphs``
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_cpu(self) -> bool:
        """Whether it is the CPU."""
        return self.provider == "CPUExecutionProvider"


CPU = Place("CPUExecutionProvider", "cpu")


def require(provider: str) -> str:
    """Make sure that this onnxruntime was built with a provider; returns its version.

    Raises:
        EngineUnavailableError: it was not.
    """
    if provider not in onnxruntime.get_available_providers():
        raise EngineUnavailableError(
            f"onnxruntime {onnxruntime.__version__} has no {provider} here; install a build of "
            "onnxruntime-gpu for this machine, or use another engine"
        )
    version: str = onnxruntime.__version__
    return version


class OnnxRuntimeEngine(HostStateEngine):
    """Runs the ``cpu`` graph of one precision with bound buffers.

    With ``precision=None`` it measures the bundle's own precision against fp32 here and keeps the
    faster: on small models the integer form often loses to float on a CPU.

    Raises:
        EngineUnavailableError: the bundle lacks the precision, or onnxruntime refuses the graph.
    """

    name = "onnxruntime"

    def __init__(
        self, source: EngineSource, *, n_streams: int, precision: str | None, n_threads: int = 1
    ) -> None:
        super().__init__(source, n_streams)
        self._range = source.manifest.input_range
        self._n_threads = n_threads
        if precision is not None:
            self.precision = source.precision(precision)
            step = self._open(source, self.precision)
        else:
            candidates = dict.fromkeys([source.precision(None), "fp32"])
            steps = {
                name: self._open(source, name)
                for name in candidates
                if name in source.manifest.precisions
            }
            self.precision = _fastest(steps)
            step = steps[self.precision]
        self._bound = step
        self._max_rows = n_streams + 1  # the trial takes two
        with explained(self.precision, step.place):
            self._try_step()
            self._max_rows = self._find_max_rows()

    def close(self) -> None:
        """Free the session."""
        if not self._is_closed:
            del self._bound
        super().close()

    def _open(self, source: EngineSource, precision: str) -> BoundStep:
        return BoundStep(source, precision, CPU, self._n_threads)

    def _step(self, x: Float32, out: Float32) -> None:
        bound, state = self._bound, self._state_0
        bound.x[...] = x
        bound.state[...] = state
        bound.run()
        state[...] = bound.new_state
        out[...] = bound.y

    def _find_max_rows(self) -> int:
        """Find how many rows a batch may have here and still answer as each row alone.

        onnxruntime 1.23 gets every 32nd row of an integer product wrong on CPUs with AMX.
        """
        n_rows = min(self.n_streams, _N_ROWS_TRIED)
        low, high = (np.array(v) for v in (self._range.minimum, self._range.maximum))
        rng = np.random.default_rng(0)
        x = rng.uniform(low, high, (n_rows, self.n_in)).astype(np.float32)
        states = rng.uniform(-1, 1, (n_rows, self._states.shape[1])).astype(np.float32)
        alone = [np.hstack(self._run(x[k : k + 1], states[k : k + 1])) for k in range(n_rows)]
        expected = np.concatenate(alone)
        allowed = _BATCH_TOLERANCE * max(1.0, float(np.abs(expected).max()))
        n_right = n_rows
        while n_right > 1:
            together = np.hstack(self._run(x[:n_right], states[:n_right]))
            if np.abs(together - expected[:n_right]).max() <= allowed:
                break
            n_right //= 2
        if n_right == n_rows:
            return self.n_streams
        _log.info(
            "onnxruntime %s gets batches of %d rows wrong on this CPU in %s: running %d at a time",
            *(onnxruntime.__version__, n_rows, self.precision, n_right),
        )
        return n_right

    def _advance(self, x: Float32, states: Float32) -> tuple[Float32, Float32]:
        if len(x) <= self._max_rows:
            return self._run(x, states)
        parts = [
            self._run(x[k : k + self._max_rows], states[k : k + self._max_rows])
            for k in range(0, len(x), self._max_rows)
        ]
        return np.concatenate([y for y, _ in parts]), np.concatenate([new for _, new in parts])

    def _run(self, x: Float32, states: Float32) -> tuple[Float32, Float32]:
        feed = {"x": x}
        feed |= {name: np.ascontiguousarray(states[:, part]) for name, part in self._slices.items()}
        y, *new = self._bound.session.run(self._bound.output_names, feed)
        return y, np.concatenate(new, axis=1)


class BoundStep:
    """A session with fixed buffers for one row: write ``x`` and ``state``, run, read the others.

    The buffers are one-dimensional views of what is bound: numpy assigns those the fastest.
    """

    def __init__(
        self, source: EngineSource, precision: str, place: Place, n_threads: int = 1
    ) -> None:
        manifest = source.manifest
        self.place = place
        self.output_names = ["y", *(f"{state.name}_out" for state in manifest.states)]
        n_state = sum(manifest.state_sizes.values())
        self.x = np.zeros(manifest.n_in, np.float32)
        self.y = np.zeros(manifest.n_out, np.float32)
        self.state = np.zeros(n_state, np.float32)
        self.new_state = np.zeros(n_state, np.float32)
        graph = graph_for(source, precision, place)
        with explained(precision, place):
            self.session = open_session(graph, place, n_threads)
            self._binding = self.session.io_binding()
            self._bind(manifest)
            self.run()

    def _bind(self, manifest: Manifest) -> None:
        def bind_input(name: str, row: Float32) -> None:
            self._binding.bind_input(name, "cpu", 0, np.float32, (1, row.size), row.ctypes.data)

        def bind_output(name: str, row: Float32) -> None:
            self._binding.bind_output(name, "cpu", 0, np.float32, (1, row.size), row.ctypes.data)

        bind_input("x", self.x)
        bind_output("y", self.y)
        offset = 0
        for name, size in manifest.state_sizes.items():
            part = slice(offset, offset + size)
            bind_input(name, self.state[part])
            bind_output(f"{name}_out", self.new_state[part])
            offset += size

    def run(self) -> None:
        """Run one step on what the buffers hold."""
        self.session.run_with_iobinding(self._binding)


def graph_for(source: EngineSource, precision: str, place: Place) -> bytes:
    """Take the graph of a precision that a place runs.

    Raises:
        EngineUnavailableError: the precision has none.
        BundleError: the part is missing.
    """
    part = source.manifest.precisions[precision].graphs.get(place.use)
    if part is None:
        raise EngineUnavailableError(
            f"the bundle has no {place.use} graph of precision {precision!r}; pack it again"
        )
    return source.part(part)


def open_session(graph: bytes, place: Place, n_threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a session that runs all of a graph in one place.

    Raises whatever onnxruntime does of a graph, and EngineUnavailableError where it would run it
    elsewhere without a word.
    """
    options = session_options(n_threads)
    if not place.is_cpu:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(
        graph, options, providers=[(place.provider, dict(place.options))], enable_fallback=0
    )
    used = session.get_providers()[0]
    if used != place.provider:
        raise EngineUnavailableError(
            f"expected onnxruntime to run in its {place.provider}, got {used}; install the CUDA, "
            "cuDNN and TensorRT that this onnxruntime was built for, or use another engine"
        )
    return session


def session_options(n_threads: int) -> onnxruntime.SessionOptions:
    """Make the options that every session of this engine has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong comes as an exception, not on stderr
    return options


@contextmanager
def explained(precision: str, place: Place) -> Iterator[None]:
    """Turn whatever onnxruntime raises of a graph into one sentence."""
    try:
        yield
    except EdgeGruError:
        raise
    except Exception as error:
        cause = str(error).partition("\n")[0]
        where, advice = ("", "pack the model again")
        if not place.is_cpu:
            where, advice = (f" in its {place.provider}", "use another engine")
        raise EngineUnavailableError(
            f"onnxruntime cannot run the {precision} graph of this bundle{where} ({cause}); "
            f"{advice}"
        ) from error


def _fastest(steps: dict[str, BoundStep]) -> str:
    """Time in interleaved rounds; the first name wins unless another is clearly faster."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_N_ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(_N_STEPS_A_ROUND):
                step.run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    first = next(iter(medians))
    best = min(medians, key=medians.__getitem__)
    return best if medians[best] * _FLOAT_MUST_WIN_BY < medians[first] else first
