from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

import edge_gru
from edge_gru.service import Latency, Summary
from quantization.cli.demo import DemoResult, _faults

N_SAMPLES = 2000


@pytest.fixture
def good() -> DemoResult:
    counts = dict.fromkeys(
        (
            *("rejected_samples", "lost_samples", "overrun_samples", "frames_bad", "reconnects"),
            *("resets_gap", "resets_epoch", "resets_time", "held_gaps", "dropped_events"),
        ),
        0,
    )
    summary = Summary(
        model="pump",
        engine="onnxruntime-int8",
        duration_s=20.0,
        n_samples=N_SAMPLES,
        n_predictions=N_SAMPLES,
        n_alerts=1,
        latency=Latency(1.0, 1.0, 1.0, 1.0),
        link={},
        saturated={},
        **counts,
    )
    return DemoResult(
        n_sent=N_SAMPLES,
        summary=summary,
        int8_sqnr_db=60.0,
        streamed_minus_offline=0.0,
        wear_began_s=8.0,
        wear_called_s=10.0,
        faults=[],
    )


def test_a_good_run_has_no_faults(good):
    assert _faults(good, N_SAMPLES) == []


@pytest.mark.parametrize(
    ("changes", "of_summary", "fault"),
    [
        ({}, {"n_predictions": 1999}, "1999 predictions of 2000 samples"),
        ({"n_sent": 1999}, {}, "predictions of 2000"),
        ({}, {"lost_samples": 3}, "3 samples lost"),
        ({}, {"frames_bad": 1}, "1 samples lost or frames bad"),
        ({}, {"overrun_samples": 2}, "2 samples lost"),
        ({"int8_sqnr_db": 39.9}, {}, "INT8 at 39.9 dB"),
        ({"streamed_minus_offline": 1e-7}, {}, "differ by 1e-07"),
        ({"wear_called_s": None}, {}, "never called"),
        ({"wear_called_s": 7.9}, {}, "before it began"),
    ],
)
def test_anything_off_is_a_fault(good, changes, of_summary, fault):
    summary = msgspec.structs.replace(good.summary, **of_summary)
    result = msgspec.structs.replace(good, summary=summary, **changes)
    (found,) = _faults(result, N_SAMPLES)
    assert fault in found


@pytest.mark.slow
def test_the_demo_calls_the_wear_live_and_needs_no_torch(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from edge_gru.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--json", "-o", str(tmp_path / "pump.egb")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == []
    assert result["summary"]["n_predictions"] == result["n_sent"] == N_SAMPLES
    assert 8.0 <= result["wear_called_s"] <= 13.0
    assert edge_gru.load(tmp_path / "pump.egb").manifest.alerts[0].name == "wear"
