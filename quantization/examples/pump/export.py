"""Write the trained pump as an ONNX file, for those who have no torch."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from quantization.examples.example import MODELS
from quantization.examples.network import GruNetwork
from quantization.examples.pump import Pump

PATH = MODELS / "pump.onnx"


def export(example: Pump, network: GruNetwork, path: Path = PATH) -> None:
    """Export with any batch and any number of steps: ``x`` -> the output names of the example."""
    x = torch.zeros(2, 3, example.schema().n_channels)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    program = torch.onnx.export(
        network.eval(),
        (x,),
        dynamo=True,
        verbose=False,
        input_names=["x"],
        output_names=list(example.outputs),
        dynamic_shapes={"x": free},
    )
    model = program.model_proto
    _forget_example_shapes(model.graph)
    _forget_build_host(model.graph)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _forget_example_shapes(graph: onnx.GraphProto) -> None:
    # The exporter notes the 3 steps of the example input behind the GRU, though any number runs.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = "time"


def _forget_build_host(graph: onnx.GraphProto) -> None:
    # Stack traces hold paths of the machine that exported.
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
