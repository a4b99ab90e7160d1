"""What a quantized model is, what it cost and what judged it: one table, one page, one JSON."""

from quantization.report.content import Report, build_report, report_of
from quantization.report.files import make_folder, write_report
from quantization.report.table import gate_table, reasons, report_table

__all__ = [
    "Report",
    "build_report",
    "gate_table",
    "make_folder",
    "reasons",
    "report_of",
    "report_table",
    "write_report",
]
