"""Every operation of the reference against the same one in ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_gru.engines.operators import OPERATORS
from edge_gru.engines.reference import widened

onnxruntime = pytest.importorskip("onnxruntime", reason="engine onnxruntime is not installed")

_RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return _RNG.normal(size=shape).astype(np.float32)


A = normal(2, 4) * 3
POSITIVE = np.abs(A) + 0.1
ROW = normal(4)

CASES: dict[str, list[tuple[list[np.ndarray | None], dict[str, Any]]]] = {
    "Add": [([A, ROW], {})],
    "Sub": [([A, ROW], {})],
    "Mul": [([A, ROW], {})],
    "Div": [([A, np.abs(ROW) + 1], {}), ([A, np.array([1, 0, 2, 0], np.float32)], {})],
    "Pow": [([POSITIVE, np.array(1.5, np.float32)], {}), ([A, np.array(2, np.float32)], {})],
    "Max": [([A, ROW], {})],
    "Min": [([A, ROW], {})],
    "MatMul": [([A, normal(4, 3)], {})],
    "Gemm": [
        ([A, normal(4, 3), normal(3)], {}),
        ([A, normal(3, 4)], {"transB": 1, "alpha": 0.5}),
        ([A, normal(3, 4), normal(3)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
        ([normal(4, 2), normal(4, 3), normal(3)], {"transA": 1}),
    ],
    "Sigmoid": [
        (
            [
                A,
            ],
            {},
        ),
        ([A * 100], {}),
    ],
    "HardSigmoid": [([A], {}), ([A], {"alpha": 0.3, "beta": 0.4})],
    "Tanh": [([A], {})],
    "Relu": [([A], {})],
    "LeakyRelu": [([A], {}), ([A], {"alpha": 0.2})],
    "Elu": [([A], {}), ([A], {"alpha": 0.7})],
    "Softplus": [([A], {}), ([A * 30], {})],
    "Softsign": [([A], {})],
    "ThresholdedRelu": [([A], {}), ([A], {"alpha": 0.2})],
    "Erf": [([A], {})],
    "Exp": [([A], {})],
    "Log": [([POSITIVE], {}), ([np.array([[0.0, 1.0]], np.float32)], {})],
    "Sqrt": [([POSITIVE], {})],
    "Reciprocal": [([POSITIVE], {})],
    "Abs": [([A], {})],
    "Neg": [([A], {})],
    "Clip": [
        ([A], {}),
        ([A, np.array(-1, np.float32), np.array(1, np.float32)], {}),
        ([A, None, np.array(1, np.float32)], {}),
        ([A, np.array(0, np.float32)], {}),
    ],
    "Softmax": [([A], {}), ([A * 100], {"axis": 1}), ([A], {"axis": 0})],
    "LogSoftmax": [([A], {})],
    "LayerNormalization": [
        ([A, ROW, normal(4)], {}),
        ([A, ROW], {"epsilon": 0.1, "axis": 1}),
    ],
    "Concat": [([A, A * 2], {"axis": 1}), ([A, A], {"axis": -1})],
    "Gather": [
        ([A, np.array([2, 0])], {"axis": 1}),
        ([A, np.array(-1)], {"axis": 1}),
        ([A, np.array([1])], {}),
    ],
    "Slice": [
        ([A, np.array([1]), np.array([3]), np.array([1])], {}),
        ([A, np.array([-2]), np.array([2**31]), np.array([1])], {}),
    ],
}
FLAT = [
    pytest.param(op, inputs, attributes, id=f"{op}-{k}")
    for op, cases in CASES.items()
    for k, (inputs, attributes) in enumerate(cases)
]


def test_every_operation_has_a_case() -> None:
    assert CASES.keys() == OPERATORS.keys()


@pytest.mark.parametrize(("op", "inputs", "attributes"), FLAT)
def test_operation_is_that_of_onnx(
    op: str, inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    names = ["" if value is None else f"in_{k}" for k, value in enumerate(inputs)]
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in zip(names, inputs, strict=True)
        if value is not None
    ]
    node = helper.make_node(op, names, ["out"], **attributes)
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    proto = helper.make_model(
        helper.make_graph([node], "one", [], [output], constants),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    proto.ir_version = 8
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {})[0]
    wide = [None if value is None else widened(value) for value in inputs]
    with np.errstate(all="ignore"):
        got = OPERATORS[op](attributes, *wide)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
