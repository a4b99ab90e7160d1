"""Quantize one graph by nvidia-modelopt: in a process of its own, as it alters onnxruntime's.

``python -I modelopt_worker.py FLOAT.onnx CALIBRATION.npz QUANTIZED.onnx``, in the interpreter that
has modelopt; it needs nothing else of this project.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np


def main(graph: str, calibration: str, quantized: str) -> None:
    """Read a graph and arrays for its inputs, write the INT8 graph."""
    tool = importlib.import_module("modelopt.onnx.quantization")
    with np.load(calibration) as arrays:
        data = {name: arrays[name] for name in arrays.files}
    tool.quantize(
        graph,
        calibration_data=data,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=quantized,
        log_level="ERROR",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
