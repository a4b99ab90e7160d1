"""The step in torch against the reference engine: every operation, cell, form and place."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")

from edge_gru.engines import cells, operators  # noqa: E402
from edge_gru.engines.products import operand_grid  # noqa: E402
from edge_gru.engines.reference import of_cell, step_cell, widened  # noqa: E402
from edge_gru.errors import ConfigError  # noqa: E402
from edge_gru.manifest import ProductForm, Program, StateInfo, StepNode  # noqa: E402
from quantization.qat import finetuner_of  # noqa: E402
from quantization.qat.cells import CELLS  # noqa: E402
from quantization.qat.master import MasterWeights  # noqa: E402
from quantization.qat.operators import OPERATORS  # noqa: E402
from quantization.qat.products import operand_steps  # noqa: E402
from quantization.qat.step import TorchStep  # noqa: E402
from quantization.quantized import Quantized  # noqa: E402
from quantization.recipe import RECIPES  # noqa: E402
from quantization.step_model import StepModel  # noqa: E402

pytestmark = pytest.mark.torch

N_IN, N_HIDDEN, N_OUT, N_ROWS = 3, 6, 2, 16
FORMS = [name for name, recipe in RECIPES.items() if not recipe.n_finetune_steps]

A = np.random.default_rng(0).normal(size=(4, 6))
B, POSITIVE, ROW = A[::-1].copy(), np.abs(A) + 0.1, A[0]
CASES = [
    ("Add", {}, (A, ROW)),
    ("Sub", {}, (A, B)),
    ("Mul", {}, (A, B)),
    ("Div", {}, (A, POSITIVE)),
    ("Pow", {}, (POSITIVE, B)),
    ("Max", {}, (A, ROW)),
    ("Min", {}, (A, B)),
    ("MatMul", {}, (A, B.T)),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, (A, B, A[:, 0])),
    ("Gemm", {"transA": 1}, (A, B)),
    ("Sigmoid", {}, (30 * A,)),
    ("HardSigmoid", {"alpha": 0.3}, (2 * A,)),
    ("Tanh", {}, (A,)),
    ("Relu", {}, (A,)),
    ("LeakyRelu", {"alpha": 0.2}, (A,)),
    ("LeakyRelu", {}, (A,)),
    ("Elu", {"alpha": 0.7}, (A,)),
    ("Softplus", {}, (40 * A,)),
    ("Softsign", {}, (A,)),
    ("ThresholdedRelu", {"alpha": 0.4}, (A,)),
    ("ThresholdedRelu", {}, (A,)),
    ("Erf", {}, (A,)),
    ("Exp", {}, (A,)),
    ("Log", {}, (POSITIVE,)),
    ("Sqrt", {}, (POSITIVE,)),
    ("Reciprocal", {}, (POSITIVE,)),
    ("Abs", {}, (A,)),
    ("Neg", {}, (A,)),
    ("Clip", {}, (A, np.float64(-0.4), np.float64(0.3))),
    ("Clip", {}, (A, None, np.float64(0.3))),
    ("Softmax", {}, (A,)),
    ("Softmax", {"axis": 0}, (A,)),
    ("LogSoftmax", {"axis": 1}, (A,)),
    ("LayerNormalization", {"epsilon": 0.1}, (A, ROW, B[1])),
    ("LayerNormalization", {}, (A, ROW)),
    ("Concat", {"axis": 1}, (A, B, A)),
    ("Gather", {"axis": 1}, (A, np.array([3, -1, 0]))),
    ("Gather", {"axis": 1}, (A, np.array(2))),
    ("Gather", {}, (A, np.array([[1, 0]]))),
    ("Slice", {}, (A, np.array([1, 0]), np.array([-1, 2**31]), np.array([1, 0]))),
]


def test_every_operation_of_the_reference_is_here():
    assert set(OPERATORS) == set(operators.OPERATORS) == {op for op, _, _ in CASES}
    assert list(CELLS) == list(cells.CELLS)


@pytest.mark.parametrize(("op", "attributes", "operands"), CASES)
def test_operation_is_the_references(op, attributes, operands):
    tensors = [None if v is None else torch.from_numpy(np.array(v)) for v in operands]
    expected = operators.OPERATORS[op](attributes, *operands)
    got = OPERATORS[op](attributes, *tensors).numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def cell_model(kind: str) -> StepModel:
    """One cell, and a head in rows as a Gemm has it."""
    rng = np.random.default_rng(0)
    n_rows = len(CELLS_OF[kind].gates) * N_HIDDEN
    n_h = 4 if kind == "LSTM_PROJECTED" else N_HIDDEN
    shapes = {"k.w_ih": (n_rows, N_IN), "k.w_hh": (n_rows, n_h), "k.w_hr": (n_h, N_HIDDEN)}
    shapes |= {"k.b_ih": (n_rows,), "k.b_hh": (n_rows,), "head": (n_h, N_OUT)}
    weights = {name: rng.normal(0, 0.6, s).astype(np.float32) for name, s in shapes.items()}
    states = tuple(
        StateInfo(f"state_00_{name}", n_h if name == "h" else N_HIDDEN, bound)
        for name, bound in CELLS_OF[kind].bounds.items()
    )
    names = tuple(info.name for info in states)
    nodes = (
        StepNode(kind, ("x", *names), tuple(f"{n}_out" for n in names), {"cell": "k"}),
        StepNode("MatMul", ("state_00_h_out", "head"), ("top",)),
    )
    return StepModel(Program(nodes, "top", 17), weights, states, N_IN, N_OUT)


CELLS_OF = cells.CELLS


@pytest.mark.parametrize("recipe", FORMS)
@pytest.mark.parametrize("kind", CELLS)
def test_step_is_the_references(kind, recipe, quantized_by):
    model = cell_model(kind)
    quantized = quantized_by(model, recipe)
    rng = np.random.default_rng(1)
    x = rng.normal(0, 2, (N_ROWS, N_IN)).astype(np.float32).astype(np.float64)  # some saturate
    states = {
        info.name: rng.uniform(-1, 1, (N_ROWS, info.size)).astype(np.float32).astype(np.float64)
        for info in model.states
    }
    weights = {**model.weights, **quantized.tensors}
    cell = {name: widened(value) for name, value in of_cell(weights, "k").items()}
    forms = of_cell(quantized.products, "k")
    expected = step_cell(kind, x, tuple(states.values()), cell, forms)

    factors = MasterWeights(model, quantized, torch.float64).factors()
    assert set(factors) == set(quantized.products)
    start = {name: torch.from_numpy(v) for name, v in states.items()}
    y, after = TorchStep(model, torch.float64).run(torch.from_numpy(x)[None], start, {}, factors)
    for name, value in zip(states, expected, strict=True):
        np.testing.assert_allclose(after[name][0].detach().numpy(), value, atol=1e-12)
    head = expected[0] @ model.weights["head"].astype(np.float64)
    np.testing.assert_allclose(y[0].detach().numpy(), head, atol=1e-12)


def test_dense_products_are_narrowed_too():
    model = cell_model("GRU")
    q = np.array([[1, -2, 3, 0, 0, 7], [0, 0, 0, -7, 4, 1]], np.int8)  # as rows: the head is not
    tensors = {"head_q": q, "head_scale": np.array([0.1, 0.2], np.float32)}
    quantized = Quantized({"head": ProductForm("int8", "int4")}, tensors)
    start = {"state_00_h": torch.zeros(1, N_HIDDEN)}
    x = torch.ones(1, 1, N_IN)
    y, after = TorchStep(model).run(x, start, {}, MasterWeights(model, quantized).factors())
    steps = np.rint(after["state_00_h"][0].numpy() * np.float32(127))
    expected = steps @ (q * tensors["head_scale"][:, None]).T / 127
    np.testing.assert_allclose(y[0].detach().numpy(), expected, atol=1e-6)


def test_window_is_its_steps_one_after_the_other():
    """An encoder, two cells, a skip connection past both, and a state that is read as it was."""
    rng = np.random.default_rng(2)
    shapes = {"encoder": (N_IN, 4), "a.w_ih": (18, 4), "a.w_hh": (18, 6), "b.w_ih": (12, 6)}
    shapes |= {"b.w_hh": (12, 3), "head": (9, 4)}
    shapes |= {f"{c}.{b}": (n,) for c, n in (("a", 18), ("b", 12)) for b in ("b_ih", "b_hh")}
    weights = {name: rng.normal(0, 0.6, s).astype(np.float32) for name, s in shapes.items()}
    nodes = (
        StepNode("MatMul", ("x", "encoder"), ("coded",)),
        StepNode("Tanh", ("coded",), ("bent",)),
        StepNode("GRU", ("bent", "s0"), ("s0_out",), {"cell": "a"}),
        StepNode("LSTM", ("s0_out", "s1", "s2"), ("s1_out", "s2_out"), {"cell": "b"}),
        StepNode("Concat", ("s1_out", "s0"), ("both",), {"axis": 1}),
        StepNode("MatMul", ("both", "head"), ("read",)),
        StepNode("Add", ("read", "bent"), ("y",)),
    )
    sizes = {"s0": 6, "s1": 3, "s2": 3}
    states = tuple(StateInfo(name, n, None) for name, n in sizes.items())
    model = StepModel(Program(nodes, "y", 17), weights, states, N_IN, 4)
    step = TorchStep(model, torch.float64)
    x = torch.from_numpy(rng.normal(size=(5, 3, N_IN)))
    start, anew = (
        {name: torch.from_numpy(rng.uniform(-1, 1, (3, n))) for name, n in sizes.items()}
        for _ in range(2)
    )
    begins = torch.tensor([[False], [True], [False]])
    y, after = step.run(x, start, {2: (begins, anew)}, {})

    now = start
    for t in range(5):
        if t == 2:
            now = {n: torch.stack([v[0], anew[n][1], v[2]]) for n, v in now.items()}
        expected, stepped = step.run(x[t : t + 1], now, {}, {})
        now = {name: v[0] for name, v in stepped.items()}
        torch.testing.assert_close(y[t], expected[0], rtol=0, atol=1e-12)
        for name, value in now.items():
            torch.testing.assert_close(after[name][t], value, rtol=0, atol=1e-12)
    first = np.tanh(x[0].numpy() @ weights["encoder"].astype(np.float64))
    cell = {name: widened(v) for name, v in of_cell(weights, "a").items()}
    (h,) = step_cell("GRU", first, (start["s0"].numpy(),), cell)
    np.testing.assert_allclose(after["s0"][0].numpy(), h, atol=1e-12)


@pytest.mark.parametrize("operand", ["int8", "int8-hilo"])
def test_gradient_passes_the_grid_and_stops_beyond_it(operand):
    step, gain = torch.tensor(np.float32(0.01)), torch.tensor([1.0, 2.0, 1.0])
    v = torch.tensor([[0.404, 0.404, 1.3]], requires_grad=True)
    operand_steps(ProductForm(operand, "int8"), v, step, gain).sum().backward()
    np.testing.assert_allclose(v.grad.numpy(), [[100.0, 200.0, 0.0]], rtol=1e-6)


def test_operation_that_cannot_be_followed_is_named():
    model = cell_model("GRU")
    odd = StepNode("Walk", ("x",), ("odd",))
    program = Program((odd, *model.program.nodes), "top", 17)
    wider = StepModel(program, model.weights, model.states, N_IN, N_OUT)
    with pytest.raises(ConfigError, match=r"cannot follow operation Walk; use a recipe without"):
        finetuner_of(wider, RECIPES["w4-qat"])


def test_weights_begin_as_they_were_rounded(quantized_by):
    model = cell_model("GRU")
    quantized = quantized_by(model, "w4-both")
    for weight, rows in MasterWeights(model, quantized).rows().items():
        np.testing.assert_array_equal(rows.q, quantized.tensors[f"{weight}_q"])
        np.testing.assert_array_equal(rows.scale, quantized.tensors[f"{weight}_scale"])
        assert operand_grid(quantized.tensors, weight)
