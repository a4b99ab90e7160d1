"""The committed networks reach what is published of them, streamed one sample at a time."""

import re

import numpy as np
import pytest

from firmware_bridge.simulator.pump import PumpSource
from quantization.examples import EXAMPLES
from quantization.examples.example import MODELS
from quantization.examples.pump.alert import judged

torch = pytest.importorskip("torch", reason="needs torch")
network_module = pytest.importorskip("quantization.examples.network", reason="needs torch")

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def streamed_score(name):
    example = EXAMPLES[name]
    network = example.load_trained()
    outputs = [network_module.run_streamed(network, x) for x in example.sequences("test")]
    return example.metric(outputs, "test")


@pytest.mark.usefixtures("recordings")
def test_cmapss_engines_streamed_cycle_by_cycle():
    assert streamed_score("cmapss_fd001")["rmse_cycles"] <= 13.5


@pytest.mark.usefixtures("recordings")
def test_basicmotions_decided_at_the_last_step():
    assert streamed_score("basicmotions")["accuracy"] >= 0.95


@pytest.mark.usefixtures("recordings")
def test_phone_motion_of_a_subject_never_seen():
    score = streamed_score("phone_motion")
    assert score["accuracy"] >= 0.88
    assert score["macro_f1"] >= 0.87


def test_pump_calls_wear_early_and_nothing_else():
    example = EXAMPLES["pump"]
    network = example.load_trained()
    sequences = example.sequences("test")[:40]
    outputs = network_module.run_whole(network, sequences)
    scenarios = example.scenarios("test")[:40]
    outcomes = judged(scenarios, outputs, example.alert)
    assert sum(o.detected for o in outcomes) > 15
    assert not any(o.false_alarm or o.missed for o in outcomes)
    wear_when_called = [
        PumpSource(scenario).wear_at(outcome.called_s)
        for scenario, outcome in zip(scenarios, outcomes, strict=True)
        if outcome.detected
    ]
    assert np.median(wear_when_called) < 0.15
    assert max(wear_when_called) < 0.25


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda e: e.name)
def test_loaded_network_takes_physical_units_and_gives_every_step(example):
    network = example.load_trained()
    assert not network.training
    x = network.mean + torch.zeros(2, 5, example.schema().n_channels)
    assert network(x).shape == (2, 5, len(example.outputs))
    assert torch.all(network.scale > 0)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda e: e.name)
def test_built_network_has_the_parameters_of_the_trained_one(example):
    built, trained = example.build(), example.load_trained()
    shapes = {name: tensor.shape for name, tensor in trained.state_dict().items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == shapes


def test_pump_onnx_equals_its_checkpoint_on_a_long_recording():
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    example = EXAMPLES["pump"]
    x = np.stack([x for x in example.sequences("validation") if len(x) == 12_000][:2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODELS / "pump.onnx", options)
    with torch.no_grad():
        expected = example.load_trained()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=0, atol=1e-5)


def test_pump_onnx_is_one_plain_gru_of_free_batch_and_time():
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    model = onnx.load(MODELS / "pump.onnx")
    (gru,) = [node for node in model.graph.node if node.op_type == "GRU"]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in gru.attribute}
    assert attributes["linear_before_reset"] == 1
    assert attributes["direction"] == b"forward"
    for value, last in ((model.graph.input[0], 6), (model.graph.output[0], 1)):
        dims = value.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dims] == ["batch", "time", last]


def test_pump_onnx_tells_nothing_of_the_machine_that_exported_it():
    content = (MODELS / "pump.onnx").read_bytes()
    assert not re.search(rb"/(home|root|work|usr|tmp)/|\.py\b", content)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter about itself
def test_exporting_the_checkpoint_again_gives_the_committed_file(tmp_path):
    export_module = pytest.importorskip("quantization.examples.pump.export", reason="needs torch")
    onnx = pytest.importorskip("onnx", reason="needs onnx")
    path = tmp_path / "pump.onnx"
    export_module.export(EXAMPLES["pump"], EXAMPLES["pump"].load_trained(), path)
    again, committed = onnx.load(path), onnx.load(MODELS / "pump.onnx")
    assert [n.op_type for n in again.graph.node] == [n.op_type for n in committed.graph.node]
    for a, b in zip(again.graph.initializer, committed.graph.initializer, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b))
