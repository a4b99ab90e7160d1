from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gru.bundle import Bundle
from edge_gru.engines.base import EngineSource
from edge_gru.engines.products import FLOAT, HALF, multiply
from edge_gru.engines.reference import ReferenceEngine, step_cell
from edge_gru.errors import BundleError, EngineUnavailableError
from edge_gru.manifest import ProductForm, Program, StepNode
from edge_gru.state import State

N_IN, N_HIDDEN = 3, 4
INT8 = {"w_hh": ProductForm("int8", "int8")}


def cell_of(rng: np.random.Generator, gain: float = 1.0) -> dict[str, np.ndarray]:
    """A cell as a bundle holds it: float32 values, INT8 rows with their scales."""
    shapes = {"w_ih": (12, N_IN), "w_hh": (12, N_HIDDEN), "b_ih": (12,), "b_hh": (12,)}
    cell = {
        name: rng.normal(0, gain, shape).astype(np.float32).astype(np.float64)
        for name, shape in shapes.items()
    }
    cell["w_hh_scale"] = (np.abs(cell["w_hh"]).max(axis=1) / 127).astype(np.float32)
    cell["w_hh_q"] = np.rint(cell["w_hh"] / cell["w_hh_scale"][:, None]).astype(np.int8)
    return cell


def sigmoid(a: float) -> float:
    return 1 / (1 + math.exp(-a))


def scalar_gru(x: np.ndarray, h: np.ndarray, cell: dict[str, np.ndarray], *, int8: bool):
    """PyTorch's equations once more, one number at a time."""

    def recurrent(row: int) -> float:
        if not int8:
            return sum(float(cell["w_hh"][row, k]) * float(h[k]) for k in range(N_HIDDEN))
        steps = [round(float(np.float32(v) / np.float32(1 / 127))) for v in h]
        total = sum(int(cell["w_hh_q"][row, k]) * steps[k] for k in range(N_HIDDEN))
        return total * float(cell["w_hh_scale"][row]) * float(np.float32(1 / 127))

    def parts(row: int) -> tuple[float, float]:
        gi = sum(float(cell["w_ih"][row, k]) * float(x[k]) for k in range(N_IN))
        return gi + float(cell["b_ih"][row]), recurrent(row) + float(cell["b_hh"][row])

    new = []
    for j in range(N_HIDDEN):
        r = sigmoid(sum(parts(j)))
        z = sigmoid(sum(parts(N_HIDDEN + j)))
        gi_n, gh_n = parts(2 * N_HIDDEN + j)
        n = math.tanh(gi_n + r * gh_n)
        new.append((1 - z) * n + z * float(h[j]))
    return new


@given(seed=st.integers(0, 2**32 - 1), int8=st.booleans())
@settings(max_examples=60, deadline=None)
def test_cell_is_pytorchs_equations(seed: int, int8: bool) -> None:
    rng = np.random.default_rng(seed)
    cell = cell_of(rng)
    x = rng.normal(size=(2, N_IN))
    h = rng.uniform(-1, 1, size=(2, N_HIDDEN)).astype(np.float32).astype(np.float64)
    (got,) = step_cell("GRU", x, (h,), cell, INT8 if int8 else {})
    expected = [scalar_gru(x[k], h[k], cell, int8=int8) for k in range(2)]
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    form=st.sampled_from([FLOAT, HALF, INT8["w_hh"], ProductForm("int8-hilo", "int8")]),
)
@settings(max_examples=60, deadline=None)
def test_state_never_leaves_its_bound(seed: int, form: ProductForm) -> None:
    rng = np.random.default_rng(seed)
    cell = cell_of(rng, gain=8.0)
    h = rng.choice([-1.0, 1.0], size=(1, N_HIDDEN))
    for x in rng.normal(0, 100, size=(20, 1, N_IN)):
        (h,) = step_cell("GRU", x, (h,), cell, {"w_hh": form})
        h = h.astype(np.float32).astype(np.float64)
        assert np.abs(h).max() <= 1.0


def test_operand_rounds_ties_to_even() -> None:
    cell = cell_of(np.random.default_rng(0))
    cell["w_hh_q"] = np.eye(12, N_HIDDEN, dtype=np.int8)
    h = np.array([[0.5, 1.5, -0.5, -2.5]]) / 127
    gh = multiply(INT8["w_hh"], h, cell, "w_hh")
    steps = gh[0, :4] * 127 / cell["w_hh_scale"][:4]
    np.testing.assert_allclose(steps, [0, 2, 0, -2], atol=1e-6)


def test_blend_reads_the_state_itself_not_its_quantized_copy() -> None:
    cell = cell_of(np.random.default_rng(1))
    cell["b_ih"][4:8] = 50.0  # z = 1: the state is kept
    h = np.array([[0.1234567, -0.7654321, 0.001, 0.9999]])
    (got,) = step_cell("GRU", np.zeros((1, N_IN)), (h,), cell, INT8)
    np.testing.assert_allclose(got, h, atol=1e-12)


def source_with(bundle: Bundle, **changes: object) -> EngineSource:
    return EngineSource(msgspec.structs.replace(bundle.manifest, **changes), bundle.parts)


def open_reference(source: EngineSource, precision: str = "int8") -> ReferenceEngine:
    return ReferenceEngine(source, n_streams=1, precision=precision)


def test_unknown_operator_is_named(bundle: Bundle) -> None:
    program = bundle.manifest.program
    odd = StepNode("Einsum", ("x",), ("odd",))
    longer = Program((odd, *program.nodes), program.output, program.opset)
    with pytest.raises(EngineUnavailableError, match="no operator Einsum; use onnxruntime"):
        open_reference(source_with(bundle, program=longer))


BROKEN_PROGRAMS = {
    "a value from nowhere": StepNode("Tanh", ("nothing",), ("odd",)),
    "an operand too few": StepNode("Add", ("x",), ("odd",)),
    "an operand too many": StepNode("Tanh", ("x", "x"), ("odd",)),
    "shapes that do not fit": StepNode("MatMul", ("x", "x"), ("odd",)),
    "a cell without a name": StepNode("GRU", ("x", "state_00_h"), ("odd",)),
    "a cell without tensors": StepNode("GRU", ("x", "state_00_h"), ("odd",), {"cell": "no"}),
    "an attribute missing": StepNode("Concat", ("x", "x"), ("odd",)),
}


@pytest.mark.parametrize("node", BROKEN_PROGRAMS.values(), ids=BROKEN_PROGRAMS)
def test_program_that_cannot_run_is_refused_when_opened(bundle: Bundle, node: StepNode) -> None:
    program = bundle.manifest.program
    broken = Program((node, *program.nodes), program.output, program.opset)
    with pytest.raises(EngineUnavailableError, match="the program does not fit the weights"):
        open_reference(source_with(bundle, program=broken))


@pytest.mark.parametrize("output", ["x", "nothing"])
def test_output_that_is_not_there_is_refused(bundle: Bundle, output: str) -> None:
    program = Program(bundle.manifest.program.nodes, output, 17)
    with pytest.raises(EngineUnavailableError, match="pack"):
        open_reference(source_with(bundle, program=program))


def without(tensors: dict[str, np.ndarray], ending: str) -> None:
    for name in [name for name in tensors if name.endswith(ending)]:
        del tensors[name]


def cut(tensors: dict[str, np.ndarray], ending: str) -> None:
    for name in [name for name in tensors if name.endswith(ending)]:
        tensors[name] = tensors[name][:-1]


@pytest.mark.parametrize("ending", [".w_ih", ".w_hh_q", ".w_hh_scale", ".b_hh"])
@pytest.mark.parametrize("change", [without, cut])
def test_weights_that_do_not_fit_are_refused_when_opened(
    bundle: Bundle, change: Callable[[dict[str, np.ndarray], str], None], ending: str
) -> None:
    tensors = safetensors.numpy.load(bundle.parts["weights.safetensors"])
    change(tensors, ending)
    parts = {**bundle.parts, "weights.safetensors": safetensors.numpy.save(tensors)}
    with pytest.raises(EngineUnavailableError, match="does not fit the weights in int8"):
        open_reference(EngineSource(bundle.manifest, parts))


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"no tensors at all"])
def test_weights_that_are_no_tensors_are_refused(bundle: Bundle, data: bytes) -> None:
    parts = {**bundle.parts, "weights.safetensors": data}
    with pytest.raises(BundleError, match=r"weights\.safetensors holds no tensors"):
        open_reference(EngineSource(bundle.manifest, parts))


def test_weights_of_a_type_that_numpy_lacks_are_refused(bundle: Bundle) -> None:
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    data = len(header).to_bytes(8, "little") + header + b"ab"
    parts = {**bundle.parts, "weights.safetensors": data}
    with pytest.raises(BundleError, match=r"holds no tensors \('BF16'\)"):
        open_reference(EngineSource(bundle.manifest, parts))


def test_states_are_rounded_to_float32_between_steps(bundle: Bundle, samples: np.ndarray) -> None:
    engine = open_reference(bundle.source, "fp32")
    for x in samples:
        engine.step(x)
        saved = engine.save_state()
        y = engine.step(x)
        engine.load_state(0, saved)
        np.testing.assert_array_equal(engine.step(x), y)  # nothing is kept beside the state


def test_state_that_grows_past_float32_is_infinite_and_nothing_raises(
    make_bundle: Callable[..., Bundle],
) -> None:
    source = make_bundle("RNN_RELU").source
    with open_reference(source, "fp32") as engine:
        size = engine.manifest.state_sizes
        huge = {name: np.full(n, 3e38, np.float32) for name, n in size.items()}
        engine.load_state(0, State(engine.model_hash, 0, huge))
        for _ in range(3):
            engine.step(np.full(engine.n_in, 1e30, np.float32))
