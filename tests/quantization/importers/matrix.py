"""Every kind of model that the importers take, and how far the step is from it over 1,000 steps.

``python tests/quantization/importers/matrix.py`` prints the table.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

from edge_gru.errors import ModelError
from edge_gru.manifest import StateInfo
from edge_gru.state import State
from firmware_bridge.sample import Schema
from quantization import pack, quantize
from quantization.calibrate import Calibration
from quantization.evaluate import run_stream
from quantization.importers.onnx import import_onnx
from quantization.importers.proof import TOLERANCE, prove
from quantization.importers.source import import_model
from quantization.quantized import Quantized
from quantization.recipe import RECIPES

N_STEPS = 1000
N_RANDOM = 24
KERAS_SEQUENCES = (
    "gru",
    "gru_reset_before",
    "gru_hard_sigmoid",
    "gru_hard_sigmoid_reset_before",
    "gru_relu",
    "lstm_batch_norm",
    "lstm_hard_sigmoid",
    "lstm_stacked",
    "rnn",
    "rnn_stacked",
)
ENGINES = ("onnxruntime", "reference")
HERE = Path(__file__).parent


def load(name: str) -> Any:
    """Load a file beside this one, which is in no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


zoo = load("onnx_zoo")
unusual_zoo = load("unusual_zoo")
walk_zoo = load("walk_zoo")
refused_zoo = load("refused_zoo")
try:
    torch_zoo = load("torch_zoo")
    random_zoo = load("random_zoo")
    torch_refused = load("zoo").NO_STREAMS
except ModuleNotFoundError:  # no torch here: the ONNX half
    torch_zoo = random_zoo = None
    torch_refused = {}


@dataclass(frozen=True)
class Case:
    """``make`` writes the model, ``run`` is the model itself: x (T, n) from states -> (T, n_out).

    ``has_own_start``: it takes no state, and is run from where it starts.
    """

    make: Callable[[Path], Any]
    run: Callable[[np.ndarray, list[np.ndarray]], np.ndarray]
    n_in: int
    has_own_start: bool = False


@dataclass(frozen=True)
class Parity:
    """Largest difference of an engine from the model, and the largest output.

    ``response``: how far the model itself moves when x does by its last bit.
    """

    difference: float
    largest: float
    response: float

    @property
    def is_equal(self) -> bool:
        return self.difference <= TOLERANCE * max(1.0, self.largest)

    @property
    def is_noise(self) -> bool:
        """Equal, but for what the network makes of the last bit of its inputs."""
        return self.is_equal or self.difference <= 4 * self.response


def draft(model: Any, x: np.ndarray) -> pack.Draft:
    """What engines open, without a gate."""
    outputs = tuple(f"y{k}" for k in range(model.n_out))
    description = pack.Description("matrix", Schema.unnamed(model.n_in), RECIPES["fp32"], outputs)
    return pack.draft(model, description, Calibration((x,)), Quantized())


def measure(case: Case, folder: Path, n_steps: int = N_STEPS) -> dict[str, Parity]:
    """Run the step on every engine and the model on the whole sequence, from a random state."""
    imported = import_model(case.make(folder), case.n_in)
    model, rng = imported.model, np.random.default_rng(7)
    x = rng.normal(size=(n_steps, case.n_in)).astype(np.float32)
    made = draft(model, x)
    states = [_random_state(info, rng) for info in model.states]
    expected = case.run(x, states)
    moved = case.run(np.nextafter(x, np.float32(np.inf)), states)
    response = float(np.abs(moved.astype(np.float64) - expected).max())
    found = {}
    for name in ENGINES:
        with made.open(name, "fp32") as engine:
            if not case.has_own_start:
                values = {info.name: s for info, s in zip(model.states, states, strict=True)}
                engine.load_state(0, State(engine.model_hash, 0, values))
            y = np.stack([engine.step(row) for row in x])
        assert y.shape == expected.shape, (y.shape, expected.shape)
        difference = float(np.abs(y.astype(np.float64) - expected).max())
        found[name] = Parity(difference, float(np.abs(expected).max()), response)
    return found


def prove_file(path: Path) -> None:
    """Import a file and prove it on a sequence, as ``quantize`` does."""
    imported = import_onnx(path, zoo.N_IN)
    model, x = imported.model, np.random.default_rng(3).normal(size=(60, zoo.N_IN)).astype("f4")
    with draft(model, x).open("onnxruntime", "fp32") as engine:
        prove(imported.original, partial(run_stream, engine), [x], imported.suspects)


def _random_state(info: StateInfo, rng: np.random.Generator) -> np.ndarray:
    reach = min(1.0, info.bound or 1.0)
    return rng.uniform(-reach, reach, info.size).astype(np.float32)


def onnx_case(spec: Any) -> Case:
    def make(folder: Path) -> Path:
        onnx.save(zoo.build(spec), folder / "model.onnx")
        return folder / "model.onnx"

    start = zoo.weights_of(spec.kind)
    own = [start[f"start_{k}"] for k in range(spec.n_states)]
    if spec.start == "constant":
        return Case(make, lambda x, _: zoo.run_twin(spec, x, own), zoo.N_IN, has_own_start=True)
    return Case(make, lambda x, states: zoo.run_twin(spec, x, states), zoo.N_IN)


def written_case(kind: str, proto: onnx.ModelProto) -> Case:
    def make(folder: Path) -> Path:
        onnx.save(proto, folder / "model.onnx")
        return folder / "model.onnx"

    return Case(make, lambda x, states: zoo.run_twin(zoo.Spec(kind), x, states), zoo.N_IN)


def onnx_cases() -> dict[str, Case]:
    """Operators, layouts, time axes and starts, in every combination; and graphs by other hands."""
    cases = {}
    opsets = itertools.cycle((11, 13, 17, 20))
    for kind, layout, n_steps, start in itertools.product(
        zoo.KINDS, (0, 1), (None, 25), ("absent", "constant", "input")
    ):
        opset = 17 if layout else next(opsets)
        spec = zoo.Spec(kind, layout, n_steps, start=start, opset=opset)
        time = "fixed" if n_steps else "dynamic"
        cases[f"onnx {kind}, layout {layout}, {time} time, {start} start, opset {opset}"] = (
            onnx_case(spec)
        )
    for kind in zoo.KINDS:
        cases[f"onnx {kind}, no bias"] = onnx_case(zoo.Spec(kind, has_bias=False))
        frozen = zoo.Spec(kind, n_steps=25, n_rows=2, reshapes=True)
        cases[f"onnx {kind}, reshape holds time and batch"] = onnx_case(frozen)
        cases[f"onnx {kind}, one step"] = written_case(kind, zoo.one_step(kind))
        cases[f"onnx {kind}, as tf2onnx"] = written_case(kind, zoo.keras(kind))
    return cases


def file_case(model: onnx.ModelProto, run: Callable[..., np.ndarray], **more: Any) -> Case:
    def make(folder: Path) -> Path:
        onnx.save(model, folder / "model.onnx")
        return folder / "model.onnx"

    return Case(make, run, zoo.N_IN, **more)


def unusual_cases() -> dict[str, Case]:
    """Cells that no engine has as one, written out in the step."""
    return {
        f"onnx {name}": file_case(
            unusual_zoo.build(case, zoo.Spec(case.kind)), partial(unusual_zoo.run, case)
        )
        for name, case in unusual_zoo.CASES.items()
    }


def walk_cases() -> dict[str, Case]:
    """Recurrences over the channels of each sample."""
    return {
        f"onnx {name}": file_case(model, partial(walk_zoo.run, twin))
        for name, (model, twin) in walk_zoo.all_models().items()
    }


def keras_cases() -> dict[str, Case]:
    """Files of Keras networks by tf2onnx, against themselves as onnxruntime runs them."""
    cases = {}
    for name in KERAS_SEQUENCES:
        model = onnx.load(refused_zoo.KERAS / f"{name}.onnx")
        cases[f"keras by tf2onnx, {name}"] = file_case(
            model, partial(_whole, model), has_own_start=True
        )
    return cases


def _whole(model: onnx.ModelProto, x: np.ndarray, _: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {model.graph.input[0].name: x[None]})[0][0]


def more_cases() -> dict[str, Case]:
    return {**unusual_cases(), **walk_cases(), **keras_cases()}


def random_cases() -> dict[str, Case]:
    """Random stacks in torch."""
    seeds = range(N_RANDOM if random_zoo else 0)
    return {
        f"torch, random network {seed}": random_zoo.case_of(Case, random_zoo.by_seed(seed))
        for seed in seeds
    }


def all_cases() -> dict[str, Case]:
    torch_cases = {**torch_zoo.cases(Case), **random_cases()} if torch_zoo else {}
    return {**onnx_cases(), **more_cases(), **torch_cases}


def refusal(make: Callable[[], Any], folder: Path) -> str:
    """Import and prove what must be refused; returns the reason, "" if there was none."""
    model = make()
    try:
        if isinstance(model, onnx.ModelProto):
            onnx.save(model, folder / "model.onnx")
            prove_file(folder / "model.onnx")
        else:
            quantize(model, [np.random.default_rng(3).normal(size=(30, 6)).astype("f4")])
    except ModelError as error:
        return str(error)
    return ""


def main() -> None:
    warnings.simplefilter("ignore")
    table = Table("model", *ENGINES, "equal", title=f"Importers, {N_STEPS} steps, random state")
    cases = all_cases()
    n_equal = 0
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure(case, Path(folder))
        is_equal = all(parity.is_equal for parity in found.values())
        n_equal += is_equal
        figures = (f"{parity.difference:.1e}" for parity in found.values())
        table.add_row(name, *figures, "yes" if is_equal else "NO")
    refused = Table("no step model", "reason", title="Refused", show_lines=True)
    wanted = {**refused_zoo.REFUSED, **{f"torch, {k}": v for k, v in torch_refused.items()}}
    n_refused = 0
    for name, (make, reason) in wanted.items():
        with tempfile.TemporaryDirectory() as folder:
            found_reason = refusal(make, Path(folder))
        is_right = bool(found_reason) and re.search(reason, found_reason) is not None
        n_refused += is_right
        refused.add_row(name, found_reason.replace(f"{folder}/", "") if is_right else "NOT SO")
    console = Console(width=120)
    console.print(table, f"{n_equal} of {len(cases)} equal")
    console.print(refused, f"{n_refused} of {len(wanted)} refused for the reason that they must be")
    sys.exit(n_equal != len(cases) or n_refused != len(wanted))


if __name__ == "__main__":
    main()
