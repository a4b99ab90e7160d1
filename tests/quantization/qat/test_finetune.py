"""Finetuning as a recipe asks for it: what it gains, what it leaves alone, and when it is kept."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")

from edge_gru.engines.cells import CELLS  # noqa: E402
from edge_gru.manifest import ProductRecipe, Program, Recipe, StateInfo, StepNode  # noqa: E402
from firmware_bridge.sample import Schema  # noqa: E402
from quantization import narrow as narrowing  # noqa: E402
from quantization import pack, quantize  # noqa: E402
from quantization.calibrate import Calibration  # noqa: E402
from quantization.gate import GateSettings  # noqa: E402
from quantization.qat import distil  # noqa: E402
from quantization.qat.choice import Finetuning  # noqa: E402
from quantization.recipe import RECIPES  # noqa: E402
from quantization.report import report_of, report_table  # noqa: E402
from quantization.rounding import QuantizedRows  # noqa: E402
from quantization.split import split  # noqa: E402
from quantization.step_model import StepModel  # noqa: E402
from quantization.work import Work  # noqa: E402

pytestmark = pytest.mark.torch

N_IN, N_HIDDEN, N_OUT = 3, 16, 2
N_STEPS = 60


def finetuned(recipe: str | Recipe, n_steps: int) -> Recipe:
    chosen = RECIPES[recipe] if isinstance(recipe, str) else recipe
    return msgspec.structs.replace(chosen, n_finetune_steps=n_steps)


def work_on(kind: str = "GRU", **changes: object) -> Work:
    """A cell with a head, on slow smooth signals."""
    rng = np.random.default_rng(0)
    n_rows = len(CELLS[kind].gates) * N_HIDDEN
    shapes = {"k.w_ih": (n_rows, N_IN), "k.w_hh": (n_rows, N_HIDDEN), "head": (N_HIDDEN, N_OUT)}
    shapes |= {"k.b_ih": (n_rows,), "k.b_hh": (n_rows,)}
    weights = {name: rng.normal(0, 0.5, s).astype(np.float32) for name, s in shapes.items()}
    states = tuple(
        StateInfo(f"state_00_{name}", N_HIDDEN, bound) for name, bound in CELLS[kind].bounds.items()
    )
    names = tuple(info.name for info in states)
    nodes = (
        StepNode(kind, ("x", *names), tuple(f"{n}_out" for n in names), {"cell": "k"}),
        StepNode("MatMul", ("state_00_h_out", "head"), ("top",)),
    )
    model = StepModel(Program(nodes, "top", 17), weights, states, N_IN, N_OUT)
    slow = np.cumsum(rng.normal(0, 0.3, (12, 150, N_IN)), axis=1)
    data = Calibration(tuple(np.sin(slow).astype(np.float32)))
    description = pack.Description("net", Schema.unnamed(N_IN), RECIPES["fp32"], ("y0", "y1"))
    work = Work(model, description, data, split(data), GateSettings())
    return replace(work, **changes)


@pytest.fixture(scope="module")
def four_bits():
    """Before and after, so fast that integers change in a few steps, not the scales alone."""
    work = work_on()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "_STEPS_RATE", 2e-2)
        return work.narrow(RECIPES["w4-both"]), work.narrow(finetuned("w4-both", N_STEPS))


def test_outputs_of_a_four_bit_net_come_closer_on_data_that_nothing_was_fitted_to(four_bits):
    before, after = four_bits
    assert before.finetuning is None
    assert after.finetuning.n_steps == N_STEPS
    assert after.finetuning.is_kept
    assert after.finetuning.sqnr_after_db > after.finetuning.sqnr_before_db + 2.0
    assert after.rounding == {name: f"{how}+qat" for name, how in before.rounding.items()}


def test_integers_and_scales_alone_are_learnt(four_bits):
    before, after = four_bits
    was, now = before.quantized.tensors, after.quantized.tensors
    assert set(was) == set(now)
    assert after.quantized.products == before.quantized.products
    for name, value in now.items():
        assert value.dtype == was[name].dtype
        assert value.shape == was[name].shape
        if name.endswith("_q"):
            assert np.abs(value).max() <= 7
            assert not np.array_equal(value, was[name])
        elif name.endswith(("_operand_scale", "_operand_gain")):
            np.testing.assert_array_equal(value, was[name])
        else:
            assert (value > 0).all()
            assert not np.array_equal(value, was[name])
    assert {name for name in now if "_operand_" in name}
    assert after.quantized.joint == ()


def test_same_data_gives_the_same_integers_on_any_number_of_threads():
    n_threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            torch.rand(n)  # what the caller draws decides nothing
            found.append(work_on().narrow(finetuned("w4-both", 10)).quantized.tensors)
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(n_threads)
    first, second = found
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)


@pytest.mark.parametrize("kind", ["GRU", "GRU_RESET_FIRST"])
def test_rows_of_a_joint_cell_that_add_up_keep_one_scale(kind):
    int4 = ProductRecipe("int8", "int4", head_room=1.0)
    recipe = Recipe("joint", recurrent=int4, input=int4, is_joint=True, n_finetune_steps=25)
    narrowed = work_on(kind).narrow(recipe)
    assert narrowed.finetuning.is_kept
    assert narrowed.quantized.joint == ("k",)
    x, h = (narrowed.quantized.tensors[f"k.{name}_scale"] for name in ("w_ih", "w_hh"))
    n_shared = CELLS[kind].n_joint_gates * N_HIDDEN
    np.testing.assert_array_equal(x[:n_shared], h[:n_shared])
    assert not np.isin(x[n_shared:], h[n_shared:]).any()


def test_what_is_no_better_is_not_kept(monkeypatch):
    def spoil(quantized, twin, progress):
        zeros = {name: v for name, v in quantized.tensors.items() if name.endswith("_q")}
        return [
            {
                name.removesuffix("_q"): QuantizedRows(
                    np.zeros_like(q), quantized.tensors[f"{name.removesuffix('_q')}_scale"]
                )
                for name, q in zeros.items()
            }
        ]

    monkeypatch.setattr(narrowing, "finetuner_of", lambda *_: spoil)
    work = work_on()
    plain, tried = work.narrow(RECIPES["w4"]), work.narrow(finetuned("w4", 5))
    assert not tried.finetuning.is_kept
    assert tried.finetuning.sqnr_after_db < tried.finetuning.sqnr_before_db
    assert tried.rounding == plain.rounding
    for name, value in plain.quantized.tensors.items():
        np.testing.assert_array_equal(tried.quantized.tensors[name], value)


def test_states_without_a_bound_are_no_obstacle():
    narrowed = work_on("LSTM").narrow(finetuned("w4-both", N_STEPS))
    assert narrowed.finetuning.sqnr_after_db > narrowed.finetuning.sqnr_before_db + 1.0


def test_windows_begin_where_sequences_do():
    """Sequences shorter than a window: what was carried over from the one before would be wrong."""
    work = work_on()
    short = tuple(piece for s in work.data.sequences for piece in np.split(s, 15))
    data = Calibration(short)
    work = replace(work, data=data, parts=split(data))
    narrowed = work.narrow(finetuned("w4-both", N_STEPS))
    assert narrowed.finetuning.sqnr_after_db > narrowed.finetuning.sqnr_before_db + 2.0


def test_gradients_that_are_not_finite_change_nothing():
    work = work_on()
    program = work.model.program
    tail = (  # zero where the output is negative, and the root of zero has no slope
        StepNode("Abs", ("top",), ("size",)),
        StepNode("Add", ("size", "top"), ("cut",)),
        StepNode("Sqrt", ("cut",), ("odd",)),
    )
    model = replace(work.model, program=Program((*program.nodes, *tail), "odd", 17))
    found = replace(work, model=model).narrow(finetuned("w4", 3)).finetuning
    assert found.sqnr_after_db == found.sqnr_before_db
    assert not found.is_kept


def test_best_of_what_was_seen_on_the_way_is_taken(monkeypatch):
    work, recipe = work_on(), finetuned("w4", 5)
    rows = work.narrow(RECIPES["rec"]).quantized.tensors
    worse = work.narrow(RECIPES["w4"]).quantized.tensors

    def learnt(*_):
        return [
            {"k.w_hh": QuantizedRows(t["k.w_hh_q"], t["k.w_hh_scale"])}
            for t in (worse, rows, worse)
        ]

    monkeypatch.setattr(narrowing, "finetuner_of", lambda *_: learnt)
    found = work.narrow(recipe)
    np.testing.assert_array_equal(found.quantized.tensors["k.w_hh_scale"], rows["k.w_hh_scale"])


def test_progress_is_told_step_by_step():
    seen = []
    work = work_on(progress=lambda *told: seen.append(told))
    work.narrow(finetuned("w4", 3))
    assert [told for told in seen if told[0] == "finetune"] == [
        ("finetune", k, 3) for k in (1, 2, 3)
    ]


def test_report_says_what_it_was_worth(gru_file, write):
    slow = np.cumsum(np.random.default_rng(1).normal(0, 0.2, (6, 200, 3)), axis=1)
    sequences = list(np.sin(slow).astype(np.float32))
    bundle = quantize(
        write(gru_file), sequences, recipe=finetuned("w4-both", 30), accept_failure=True
    )
    report = report_of(bundle)
    assert set(report["finetuning"]) == set(Finetuning.__dataclass_fields__)
    assert report["finetuning"]["is_kept"]
    assert all(name.endswith("+qat") for name in report["rounding"].values())
    assert bundle.manifest.recipe.n_finetune_steps == 30
    (found,) = [list(c.cells) for c in report_table(report).columns][2:3]
    assert any("after 30 steps: kept" in str(cell) for cell in found)
