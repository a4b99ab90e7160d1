"""Look inside the float step: what its tensors are at given inputs and states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from edge_gru.engines.base import Float32
from quantization.comparison import States


def probe(
    graph: onnx.ModelProto, names: Iterable[str], x: Float32, states: States
) -> dict[str, Float32]:
    """Evaluate tensors of a step graph at ``(m, n_in)`` inputs and ``(m, size)`` states.

    Names that the graph does not compute are left out.
    """
    computed = {name for node in graph.graph.node for name in node.output}
    wanted = [name for name in dict.fromkeys(names) if name in computed]
    if not wanted:
        return {}
    looked = onnx.ModelProto()
    looked.CopyFrom(graph)
    known = {value.name for value in looked.graph.output}
    looked.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in wanted
        if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        looked.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed: Mapping[str, Float32] = {"x": x, **states}
    found = session.run(wanted, {name: np.ascontiguousarray(v) for name, v in feed.items()})
    return dict(zip(wanted, found, strict=True))
