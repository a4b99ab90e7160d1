"""The build host: import, calibrate, quantize, judge and pack trained recurrent networks."""

from quantization.evaluation import evaluate_bundle
from quantization.explain import explain
from quantization.metrics import Metric
from quantization.pipeline import quantize
from quantization.report import report_of, report_table, write_report

__all__ = [
    "Metric", "evaluate_bundle", "explain", "quantize", "report_of", "report_table", "write_report",
]  # fmt: skip
