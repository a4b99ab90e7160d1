from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_gru.errors import DataError, ModelError
from quantization import quantize

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")


def _load_zoo():
    spec = importlib.util.spec_from_file_location("zoo", Path(__file__).parent / "zoo.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module


zoo = _load_zoo()


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def sequences() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=(n, zoo.N_IN)).astype(np.float32) for n in (30, 17)]


def whole(module, sequence: np.ndarray) -> np.ndarray:
    """The module on a whole sequence, as its trainer would call it."""
    module.eval()
    layers = [m for m in module.modules() if isinstance(m, torch.nn.RNNBase)]
    batch_axis = 1 if layers and not layers[0].batch_first else 0
    inputs = [torch.from_numpy(np.expand_dims(sequence, batch_axis))]
    if isinstance(module, zoo.StateRequired):
        inputs.append(torch.zeros(1, 1, 8))
    if isinstance(module, zoo.LstmState):
        zeros = [torch.zeros(2, 1, 8)] * 2
        inputs += zeros if isinstance(module, zoo.LstmStatesApart) else [zeros]
    with torch.no_grad():
        result = module(*inputs)
    y = (result[0] if isinstance(result, tuple) else result).numpy()
    return y[0] if y.ndim == 2 or batch_axis == 0 else y[:, 0]


@pytest.mark.parametrize("name", zoo.STREAMS)
def test_streamed_equals_the_module_on_the_whole_sequence(name, sequences):
    module = zoo.STREAMS[name]()
    bundle = quantize(module, sequences, accept_failure=True)  # an untrained one may fail its gate
    for sequence in sequences:
        with bundle.open("onnxruntime", precision="fp32") as engine:
            got = np.stack([engine.step(x) for x in sequence])
        expected = whole(module, sequence)
        got = got if expected.ndim == 2 else got[-1]
        assert np.abs(got - expected).max() <= 1e-6


@pytest.mark.parametrize("name", zoo.NO_STREAMS)
def test_what_is_no_stream_is_refused_with_the_reason(name, sequences):
    make, reason = zoo.NO_STREAMS[name]
    with pytest.raises(ModelError, match=reason):
        quantize(make(), sequences)


def test_module_is_left_as_it_was(sequences):
    module = zoo.Everything().double().train()
    module.bn.eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    quantize(module, sequences)
    assert module.training
    assert module.gru.training
    assert not module.bn.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert module.head.weight.dtype == torch.float64


def test_wrong_number_of_channels_says_what_the_module_takes(sequences):
    with pytest.raises(DataError, match="of 6 channels, as the model takes, got 5"):
        quantize(zoo.Everything(), [sequence[:, :5] for sequence in sequences])


def test_operator_outside_the_closed_set_still_runs_on_onnxruntime(sequences):
    bundle = quantize(zoo.FeatureConv(), sequences)
    with bundle.open("onnxruntime", precision="int8") as engine:
        assert engine.step(sequences[0][0]).shape == (4,)
    with pytest.raises(Exception, match="no operator Conv"):
        bundle.open("reference")
