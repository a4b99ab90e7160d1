"""The network of the demo through the gate, judged on pumps that nothing was fitted to."""

import pytest

from quantization import Metric, evaluate_bundle, quantize
from quantization.examples import EXAMPLES
from quantization.examples.example import MODELS


@pytest.mark.slow
def test_the_pumps_network_passes_with_nothing_stuck():
    pump = EXAMPLES["pump"]
    bundle = quantize(
        MODELS / "pump.onnx",
        pump.sequences("train")[:12],
        schema=pump.schema(),
        outputs=pump.outputs,
        targets=pump.targets("train")[:12],
        metric="rmse",
    )
    assert bundle.manifest.gate.verdict == "pass"

    def score(outputs, _):
        return pump.metric(outputs, "test")["rmse_wear"]

    metric = Metric("rmse_wear", score, more_is_better=False)
    report = evaluate_bundle(
        bundle, pump.sequences("test"), targets=pump.targets("test"), metric=metric
    )
    gate = report["gate"]
    assert gate["verdict"] == "pass", gate["checks"]
    assert gate["stuck"]["n_stuck"] == 0
    assert gate["stuck"]["n_moving"] > 100
    assert gate["task"]["worsening"] <= 0.005
    assert report["deviation_from_fp32"]["int8"]["sqnr_db"] >= 50
