from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import edge_gru
from edge_gru.cli import main
from edge_gru.errors import DataError, ModelError
from quantization import quantize

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")

from quantization.importers.torch import load_module  # noqa: E402 - after the check for torch

NET = """
from layers import Head
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 6, batch_first=True), Head()

    def forward(self, x):
        return self.head(self.lstm(x)[0])

def make():
    return Net()

def number():
    return 5
"""
LAYERS = "from torch import nn\n\ndef Head():\n    return nn.Linear(6, 2)\n"


@pytest.fixture
def net(tmp_path):
    """A file with a factory, one beside it that it imports, and weights."""
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "layers.py").write_text(LAYERS)
    torch.manual_seed(3)
    module = load_module(f"{tmp_path / 'net.py'}:make")
    torch.save(module.state_dict(), tmp_path / "net.pt")
    return module, tmp_path


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model_state_dict"])
def test_factory_and_weights_are_the_module(net, wrapped):
    module, folder = net
    if wrapped:
        torch.save({wrapped: module.state_dict(), "epoch": 3}, folder / "net.pt")
    loaded = load_module(f"{folder / 'net.py'}:make", folder / "net.pt")
    x = torch.randn(1, 20, 3)
    assert torch.equal(module(x), loaded(x))
    assert not torch.equal(module(x), load_module(f"{folder / 'net.py'}:make")(x))


def test_command_line_takes_a_factory_and_weights(net):
    _, folder = net
    np.save(folder / "c.npy", np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32))
    paths = ["--calibration", folder / "c.npy", "-o", folder / "net.egb"]
    run = ["quantize", f"{folder / 'net.py'}:make", "--weights", folder / "net.pt", *paths]
    result = CliRunner().invoke(main, [*map(str, run), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["proof"]["n_steps"] == 60
    bundle = edge_gru.load(folder / "net.egb")
    assert bundle.manifest.name == "net"
    assert bundle.manifest.state_sizes == {"state_00_h": 6, "state_00_c": 6}


@pytest.mark.filterwarnings("ignore")  # of torch.export, while the file is made
def test_program_of_torch_export_is_a_model(net):
    module, folder = net
    torch.export.save(torch.export.export(module, (torch.zeros(2, 7, 3),)), folder / "net.pt2")
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    bundle = quantize(str(folder / "net.pt2"), [x], recipe="fp32")
    with bundle.open("onnxruntime") as engine, torch.no_grad():
        got = np.stack([engine.step(row) for row in x])
        assert np.abs(got - module(torch.from_numpy(x[None]))[0].numpy()).max() <= 1e-6
    with pytest.raises(DataError, match="of 3 channels, as the program takes, got 4"):
        quantize(str(folder / "net.pt2"), [np.zeros((30, 4))])


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_pickled_module_is_refused_unread_with_how_to_save_it(net, capsys):
    _, folder = net
    torch.save(torch.nn.GRU(3, 4), folder / "whole.pt")
    torch.save({"w": Evil()}, folder / "evil.pt")
    for name in ("whole.pt", "evil.pt"):
        with pytest.raises(ModelError, match=r"pickled module.*torch\.save\(model\.state_dict\(\)"):
            load_module(folder / name)
        with pytest.raises(ModelError, match="pickled module"):
            load_module(f"{folder / 'net.py'}:make", folder / name)
    assert "never be printed" not in capsys.readouterr().out


def test_what_cannot_be_loaded_is_one_sentence(net):
    _, folder = net
    (folder / "junk.pt2").write_bytes(b"junk")
    (folder / "junk.pt").write_bytes(b"junk")
    (folder / "broken.py").write_text("def make(:\n")
    torch.save({"lstm.weight_ih_l0": torch.zeros(2)}, folder / "other.pt")
    torch.save(torch.zeros(3), folder / "tensor.pt")
    sentences = {
        (f"{folder}/net.pt", None): "holds weights but no network",
        (f"{folder}/none.pt2", None): "no model at",
        (f"{folder}/junk.pt2", None): "is no program of torch.export.save",
        (f"{folder}/none.py:make", None): "no file",
        (f"{folder}/broken.py:make", None): "cannot be imported",
        (f"{folder}/net.py:build", None): r"expected a function 'build' in .*, got .*make",
        (f"{folder}/net.py:number", None): "to return a torch.nn.Module, got int",
        (f"{folder}/net.py:make", folder / "none.pt"): "no weights at",
        (f"{folder}/net.py:make", folder / "junk.pt"): "pickled module|holds no weights",
        (f"{folder}/net.py:make", folder / "other.pt"): "do not fit the network",
        (f"{folder}/net.py:make", folder / "tensor.pt"): "expected a state_dict",
        (f"{folder}/net.tflite", None): "expected a model as .onnx, .pt2 or file.py:factory",
    }
    for (source, weights), sentence in sentences.items():
        with pytest.raises(ModelError, match=sentence):
            load_module(source, weights)


def test_weights_do_not_go_with_an_onnx_file(gru_file, write, tmp_path):
    path = write(gru_file)
    run = ["quantize", path, "--weights", "w.pt", "--calibration", "c.npy", "-o", "m.egb"]
    np.save(tmp_path / "c.npy", np.zeros((9, 3), np.float32))
    run[5] = tmp_path / "c.npy"
    result = CliRunner().invoke(main, [str(a) for a in run])
    assert result.exit_code == 2
    assert "has its own weights" in result.stderr


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def make():\n    raise KeyError('x')\n", r"make\(\) of .*net2\.py failed: KeyError: 'x'"),
        ("def make(size):\n    return size\n", r"make\(\) of .* failed: TypeError: .*without"),
        ("1 / 0\n", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_factory_that_fails_is_one_sentence(tmp_path, code, reason):
    path = tmp_path / "net2.py"
    path.write_text(code)
    with pytest.raises(ModelError, match=reason):
        load_module(f"{path}:make")
