"""The same defects in networks that were trained, on the tasks that the accuracy tables use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch")

from quantization.benchmark.accuracy.measure import judged, made_by, work_on
from quantization.benchmark.accuracy.network import NetworkSpec, TrainingStreams, train
from quantization.benchmark.accuracy.streams import long_memory, run_to_failure
from quantization.benchmark.accuracy.subjects import Subject
from quantization.metrics import METRICS
from quantization.twins import Twins, twins_of

pytestmark = [pytest.mark.torch, pytest.mark.slow]
N_STEPS = 20_000


@dataclass(frozen=True)
class Trained:
    subject: Subject
    twins: Twins

    def verdicts(self, twins: Twins) -> dict[str, str]:
        judgement = judged(self.subject, twins, N_STEPS).judgement
        return {check.name: check.verdict for check in judgement.checks}


def make(stream, spec: NetworkSpec) -> Trained:
    network = train(spec, TrainingStreams(*stream(2000, 24, 1)))
    x, y = stream(2500, 8, 2)
    subject = Subject(
        "planted", network, list(stream(2000, 8, 3)[0]), list(x), list(y), METRICS["rmse"]
    )
    return Trained(subject, twins_of(made_by(work_on(subject), "rec")))


@pytest.fixture(scope="module")
def long_memory_network() -> Trained:
    spec = NetworkSpec(
        "GRU", 32, n_epochs=30, window_steps=200, learning_rate=8e-3, slow_start=True
    )
    return make(long_memory, spec)


@pytest.fixture(scope="module")
def run_to_failure_network() -> Trained:
    return make(run_to_failure, NetworkSpec("GRU", 32, n_epochs=8))


def test_the_networks_do_what_they_are_for(long_memory_network, run_to_failure_network):
    for trained, most in ((long_memory_network, 0.3), (run_to_failure_network, 0.2)):
        task = judged(trained.subject, trained.twins, N_STEPS).judgement.task
        assert task.fp32 < most


def test_rec_passes_on_both(long_memory_network, run_to_failure_network):
    for trained in (long_memory_network, run_to_failure_network):
        found = trained.verdicts(trained.twins)
        assert found.pop("length of the stream") == "warn"
        assert set(found.values()) == {"pass"}, found


def test_an_int8_state_fails_on_the_long_memory(long_memory_network, defect):
    planted = defect(long_memory_network).narrow("state_00_h_out", 1 / 127)
    found = long_memory_network.verdicts(planted.twins())
    assert found["stuck units"] == "fail"
    assert found["streamed SQNR"] == "fail"
    assert found["task metric rmse"] == "fail"


def test_gates_from_an_int8_table_fail_on_the_long_memory(long_memory_network, defect):
    planted = defect(long_memory_network)
    for gate in planted.outputs_of("Sigmoid"):
        planted.narrow(gate, 1 / 256, 255)
    found = long_memory_network.verdicts(planted.twins())
    assert found["streamed SQNR"] == "fail"


def test_one_scale_for_x_and_h_fails_on_spiky_sensors(run_to_failure_network, defect):
    network = run_to_failure_network.subject.model
    x = np.concatenate(run_to_failure_network.subject.calibration)
    normalised = (x - network.mean.numpy()) / network.scale.numpy()
    shared = float(np.abs(normalised).max()) / 127
    planted = defect(run_to_failure_network)
    (cell,) = [n for n in run_to_failure_network.twins.manifest.program.nodes if n.op == "GRU"]
    planted.narrow(cell.inputs[0], shared)
    planted.narrow("state_00_h", shared, readers=("QuantizeLinear",))
    found = run_to_failure_network.verdicts(planted.twins())
    assert found["streamed SQNR"] == "fail"
    assert found["task metric rmse"] == "fail"
