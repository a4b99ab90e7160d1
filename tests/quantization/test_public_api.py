from __future__ import annotations

import quantization

PUBLIC = {
    "Metric", "evaluate_bundle", "explain", "quantize", "report_of", "report_table", "write_report",
}  # fmt: skip


def test_public_names_are_pinned():
    assert set(quantization.__all__) == PUBLIC
    assert all(hasattr(quantization, name) for name in PUBLIC)


def test_explain_lists_every_tensor(gru_file, write, sequences):
    bundle = quantization.quantize(write(gru_file), sequences)
    rows = {row.name: row for row in quantization.explain(bundle)}
    weights = bundle.source.tensors("weights.safetensors")
    named = {n for n in weights if not n.endswith(("_q", "_scale"))}
    assert named | {"x", "y", "state_00_h", "state_00_h into gru_00.w_hh"} < set(rows)
    assert [name for name, row in rows.items() if row.dtype == "int8"] == [
        "state_00_h into gru_00.w_hh",
        "gru_00.w_hh",
    ]
    assert rows["state_00_h into gru_00.w_hh"].sqnr_db is None  # no stream was run
    plain = quantization.quantize(write(gru_file), sequences, recipe="fp32")
    assert {row.dtype for row in quantization.explain(plain)} <= {"float32", "int64"}
