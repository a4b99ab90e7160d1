"""Makes the files beside it: networks with random weights, as Keras has them and tf2onnx writes.

Run with ``tensorflow-cpu==2.15.*``, ``tf2onnx==1.17`` and ``onnx<1.17``; the tests need none of
them. ``expected.npz`` holds x (T, n) and what Keras itself makes of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

HERE = Path(__file__).parent
L = tf.keras.layers
N_IN, N_STEPS = 3, 40
RNG = np.random.default_rng(3)


def network(*layers, n_steps=None):
    model = tf.keras.Sequential([tf.keras.Input((n_steps, N_IN)), *layers])
    for weight in model.weights:
        value = RNG.normal(0, 0.4, weight.shape).astype(np.float32)
        weight.assign(np.abs(value) if "variance" in weight.name else value)
    return model


def gru(**arguments):
    return network(L.GRU(5, **{"return_sequences": True, **arguments}), L.Dense(2))


def main():
    hard = {"recurrent_activation": "hard_sigmoid"}
    networks = {
        "gru": gru(),
        "gru_reset_before": gru(reset_after=False),
        "gru_last_step": gru(return_sequences=False),
        "gru_hard_sigmoid": gru(**hard),
        "gru_hard_sigmoid_reset_before": gru(**hard, reset_after=False),
        "gru_relu": gru(activation="relu"),
        "gru_window": network(L.GRU(5, return_sequences=True), L.Dense(2), n_steps=N_STEPS),
        "lstm_batch_norm": network(
            L.LSTM(5, return_sequences=True), L.BatchNormalization(), L.Dense(2)
        ),
        "lstm_hard_sigmoid": network(L.LSTM(5, return_sequences=True, **hard), L.Dense(2)),
        "lstm_stacked": network(
            L.LSTM(5, return_sequences=True),
            L.Dropout(0.3),
            L.LSTM(4, return_sequences=True),
            L.TimeDistributed(L.Dense(2, activation="tanh")),
        ),
        "rnn": network(L.SimpleRNN(5, return_sequences=True), L.Dense(2)),
        "rnn_stacked": network(
            L.SimpleRNN(5, return_sequences=True),
            L.GRU(4, return_sequences=True, reset_after=False),
        ),
        "gru_bidirectional": network(L.Bidirectional(L.GRU(5, return_sequences=True)), L.Dense(2)),
        "gru_layer_norm": network(
            L.LayerNormalization(), L.GRU(5, return_sequences=True), L.Dense(2)
        ),
    }
    x = RNG.normal(size=(1, N_STEPS, N_IN)).astype(np.float32)
    expected = {"x": x[0]}
    for name, model in networks.items():
        proto, _ = tf2onnx.convert.from_keras(model, opset=15)
        onnx.save(proto, HERE / f"{name}.onnx")
        expected[name] = model(x).numpy()[0]
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
