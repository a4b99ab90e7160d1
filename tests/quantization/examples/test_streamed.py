"""The trained examples through a real pty and the whole loop, against torch on whole recordings."""

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'edge-gru[torch]'")
streamed = pytest.importorskip("quantization.examples.__main__", reason="needs torch")

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.usefixtures("recordings")]


@pytest.mark.parametrize("name", streamed.RECORDED)
def test_streamed_is_offline_and_int8_costs_next_to_nothing(name):
    row = streamed.compare(streamed.EXAMPLES[name])
    assert row.n_lost == 0
    assert row.n_samples > 1000
    assert row.largest_difference <= row.allowed_difference
    assert row.int8_sqnr_db >= 45
    assert row.metric_change <= 0.005
    assert row.fp32 != row.int8 or row.metric == "accuracy"
    assert (row.gate, row.n_stuck) == ("pass", 0)
    assert row.gate_sqnr_db >= 50


def test_the_table_says_where_recordings_are_looked_for(monkeypatch):
    monkeypatch.delenv("EDGE_GRU_DATA")
    with pytest.raises(SystemExit, match="EDGE_GRU_DATA"):
        streamed.main(["basicmotions"])
