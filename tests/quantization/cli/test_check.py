"""The faults of FIELD's bug reports, planted one by one: each must be found and named."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from edge_gru.cli.group import VerbGroup, VerbRow

ROWS = {"check": VerbRow("quantization.cli.check", "")}


def _load_zoo():
    if "onnx_zoo" not in sys.modules:
        path = Path(__file__).parents[1] / "importers" / "onnx_zoo.py"
        spec = importlib.util.spec_from_file_location("onnx_zoo", path)
        sys.modules["onnx_zoo"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["onnx_zoo"])
    return sys.modules["onnx_zoo"]


zoo = _load_zoo()


@pytest.fixture
def check(tmp_path):
    """Check one graph against another; returns exit code and report."""

    def run(candidate: onnx.ModelProto, truth: onnx.ModelProto, *more: str):
        onnx.save(candidate, tmp_path / "export.onnx")
        onnx.save(truth, tmp_path / "truth.onnx")
        arguments = [
            tmp_path / "export.onnx",
            "--against",
            tmp_path / "truth.onnx",
            "--json",
            *more,
        ]
        group = VerbGroup("edge-gru", rows=ROWS)
        result = CliRunner().invoke(group, ["check", *map(str, arguments)])
        assert result.exit_code in (0, 1), result.output
        report = json.loads(result.stdout)
        assert report["equal"] is (result.exit_code == 0)
        return report["equal"], {f["what"]: f for f in report["findings"]}

    return run


KINDS = sorted(zoo.KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [0, 1])
def test_a_faithful_export_is_equal(check, kind, layout):
    is_equal, found = check(zoo.build(zoo.Spec(kind, layout)), zoo.build(zoo.Spec(kind)))
    assert is_equal, found
    assert found["time axis"]["detail"] == "sequences of any length"


@pytest.mark.parametrize("kind", KINDS)
def test_a_faithful_step_is_equal(check, kind):
    is_equal, found = check(zoo.one_step(kind), zoo.build(zoo.Spec(kind)))
    assert is_equal, found
    assert found["state"]["detail"] == "carried from step to step"


@pytest.mark.parametrize("kind", ["gru", "gru_reset_first"])
def test_wrong_reset_convention_is_named(check, kind):
    other = {"gru": 0, "gru_reset_first": 1}[kind]
    is_equal, found = check(
        zoo.with_attribute(kind, linear_before_reset=other), zoo.build(zoo.Spec(kind))
    )
    assert not is_equal
    assert found["cause"]["detail"] == (
        f"reset convention: it has linear_before_reset={other}, the network was trained "
        f"with {1 - other}"
    )


def with_gates_moved(kind: str, order: list[int]) -> onnx.ModelProto:
    """Store the gates in another order: what an exporter does that forgets to reorder them."""
    model = zoo.build(zoo.Spec(kind))
    for tensor in model.graph.initializer:
        if tensor.name in ("w", "r", "b"):
            value = numpy_helper.to_array(tensor)
            halves = np.split(value, 2 if tensor.name == "b" else 1, axis=1)
            moved = [np.split(half, len(order), axis=1)[k] for half in halves for k in order]
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate(moved, axis=1), tensor.name))
    return model


@pytest.mark.parametrize(
    ("kind", "order", "stored"),
    [
        ("gru", [1, 0, 2], "GRU are stored as r, z, n"),
        ("lstm", [0, 2, 3, 1], "LSTM are stored as i, f, g, o"),
    ],
)
def test_gates_in_another_order_are_named(check, kind, order, stored):
    is_equal, found = check(with_gates_moved(kind, order), zoo.build(zoo.Spec(kind)))
    assert not is_equal
    assert stored in found["cause"]["detail"]


def test_gates_and_reset_convention_together_are_named(check):
    broken = with_gates_moved("gru", [1, 0, 2])
    broken.graph.node[0].attribute[-1].CopyFrom(helper.make_attribute("linear_before_reset", 0))
    assert {a.name for a in broken.graph.node[0].attribute} == {
        "hidden_size",
        "linear_before_reset",
    }
    _, found = check(broken, zoo.build(zoo.Spec("gru")))
    assert "stored as r, z, n" in found["cause"]["detail"]
    assert "reset convention" in found["cause"]["detail"]


def test_biases_in_each_others_place_are_named(check):
    """Where the reset gate acts on one of them, as with weights in the layout of cuDNN."""
    proto = zoo.build(zoo.Spec("gru"))
    for tensor in proto.graph.initializer:
        if tensor.name == "b":
            halves = np.split(numpy_helper.to_array(tensor), 2, axis=1)[::-1]
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate(halves, axis=1), "b"))
    is_equal, found = check(proto, zoo.build(zoo.Spec("gru")))
    assert not is_equal
    assert found["cause"]["detail"] == (
        "biases: those of x and of h are stored in each other's place"
    )


def test_state_frozen_to_one_row_is_no_fault(check):
    """Exported with a free batch, but a state of one row."""
    proto = zoo.build(zoo.Spec("gru", start="input"))
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name.startswith("start"):
            value.type.tensor_type.shape.dim[1].dim_value = 1
    is_equal, found = check(proto, zoo.build(zoo.Spec("gru")))
    assert is_equal, found
    assert found["state"]["detail"] == "what it returns continues the sequence"


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("gru", {"activations": ["HardSigmoid", "Tanh"]}),
        ("lstm", {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.2]}),
        ("lstm", {"clip": 0.4}),
    ],
)
def test_other_activations_are_no_known_cause_but_no_equal_either(check, kind, attributes):
    is_equal, found = check(zoo.with_attribute(kind, **attributes), zoo.build(zoo.Spec(kind)))
    assert not is_equal
    assert found["cause"]["detail"] == "none of the known ones"


KERAS = Path(__file__).parents[1] / "importers" / "keras_files"


@pytest.mark.parametrize("name", ["gru", "gru_reset_before", "gru_hard_sigmoid", "lstm_stacked"])
def test_an_export_by_tf2onnx_is_itself_and_not_another(check, name):
    proto = onnx.load(KERAS / f"{name}.onnx")
    is_equal, found = check(proto, proto)
    assert is_equal, found
    is_equal, _ = check(proto, onnx.load(KERAS / "rnn.onnx"))
    assert not is_equal


@pytest.mark.parametrize("kind", KINDS)
def test_state_that_is_not_returned_is_lost(check, kind):
    is_equal, found = check(
        zoo.without_output(zoo.one_step(kind), "h_out"), zoo.build(zoo.Spec(kind))
    )
    assert not is_equal
    assert "lost state" in found["state"]["detail"]
    assert "'h_in'" in found["state"]["detail"]


def test_state_zeroed_in_each_step_is_lost(check):
    model = zoo.one_step("lstm")
    rnn = next(n for n in model.graph.node if n.op_type == "LSTM")
    del rnn.input[5:]  # the states come in and are not read
    is_equal, found = check(model, zoo.build(zoo.Spec("lstm")))
    assert not is_equal
    assert found["cause"]["detail"].startswith("lost state: every step starts from where")


def test_returned_state_that_does_not_continue_is_lost(check):
    model = zoo.build(zoo.Spec("gru", start="input"))
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "nought")
    model.graph.initializer.append(zero)
    rnn = model.graph.node[0]
    rnn.output[1] = "kept"
    model.graph.node.append(helper.make_node("Mul", ["kept", "nought"], ["start_0_out"]))
    is_equal, found = check(model, zoo.build(zoo.Spec("gru")))
    assert not is_equal
    assert found["outputs"]["passed"]
    assert "does not continue the sequence" in found["state"]["detail"]


def test_swapped_states_of_a_step_are_named(check):
    is_equal, found = check(zoo.crossed(zoo.one_step("lstm")), zoo.build(zoo.Spec("lstm")))
    assert not is_equal
    assert found["cause"]["detail"] == (
        "swapped state pairs: 'c_out' is the next 'h_in', 'h_out' is the next 'c_in'"
    )


def test_swapped_states_of_a_sequence_are_named(check):
    names = {"start_0_out": "start_1_out", "start_1_out": "start_0_out"}
    model = zoo.renamed(zoo.build(zoo.Spec("lstm", start="input")), names)
    is_equal, found = check(model, zoo.build(zoo.Spec("lstm")))
    assert not is_equal
    assert "'start_1_out' is the next 'start_0'" in found["state"]["detail"]


@pytest.mark.parametrize("reshapes", [False, True])
def test_frozen_time_axis_is_named_with_its_length(check, reshapes):
    model = zoo.build(zoo.Spec("gru", n_steps=25, n_rows=1, reshapes=reshapes))
    if reshapes:  # a file that claims to take any length
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "time"
    is_equal, found = check(model, zoo.build(zoo.Spec("gru")))
    assert not is_equal
    assert found["time axis"]["detail"] == (
        "frozen time axis: it takes sequences of 25 steps alone"
    )
    assert found["outputs"]["passed"]


def test_other_weights_have_no_known_cause(check):
    model = zoo.build(zoo.Spec("lstm"))
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, "w"))
    is_equal, found = check(model, zoo.build(zoo.Spec("lstm")))
    assert not is_equal
    assert found["cause"]["detail"] == "none of the known ones"


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(3, 6, 2, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.gru(x)[0])

def make():
    return Net()
"""


@pytest.mark.torch
def test_an_export_by_torch_is_checked_against_the_module_and_its_weights(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    (tmp_path / "net.py").write_text(NET)
    scope: dict = {}
    exec(compile(NET, "net.py", "exec"), scope)  # noqa: S102 - the text above
    torch.manual_seed(0)
    net = scope["make"]().eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        program = torch.onnx.export(net, (torch.zeros(1, 9, 3),), dynamo=True, verbose=False)
    onnx.save(program.model_proto, tmp_path / "net.onnx")
    run = [tmp_path / "net.onnx", "--against", f"{tmp_path / 'net.py'}:make"]
    group = VerbGroup("edge-gru", rows=ROWS)
    result = CliRunner().invoke(group, ["check", *map(str, run), "--weights", f"{tmp_path}/net.pt"])
    assert "frozen time axis: it takes sequences of 9 steps alone" in " ".join(
        result.stdout.replace("│", "").split()
    )
    assert result.exit_code == 1  # torch freezes the time axis; the network itself is the same
    assert "WRONG" in result.stdout
    other = CliRunner().invoke(group, ["check", *map(str, run), "--json"])  # untrained
    outputs = {f["what"]: f["passed"] for f in json.loads(other.stdout)["findings"]}
    assert outputs["outputs"] is False
