"""Random networks in torch: the step is the network, from a random state."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")


def _load(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


matrix = _load("matrix")
random_zoo = matrix.random_zoo
N_STEPS = 100  # the table of `make importers` has 1,000, for other networks


@given(recipe=random_zoo.recipes)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_step_of_a_random_network_is_the_network(recipe, tmp_path):
    torch.set_num_threads(1)
    case = random_zoo.case_of(matrix.Case, recipe)
    for engine, parity in matrix.measure(case, tmp_path, N_STEPS).items():
        assert parity.is_noise, (engine, parity)
