"""What tests of the engine do with it."""

from __future__ import annotations

import numpy as np

from edge_gru.engines.base import Engine


def use(engine: Engine, batch: np.ndarray) -> list[np.ndarray]:
    """Every kind of call; what it answers."""
    answers = [engine.step(batch[0]), engine.step(batch[1])]
    if engine.n_streams > 1:
        answers.append(engine.step_batch(batch[:2], np.array([engine.n_streams - 1, 0])))
    saved = engine.save_state(0)
    engine.reset(0)
    answers.append(engine.step(batch[2]))
    engine.load_state(0, saved)
    answers.append(engine.run_sequence(batch, 0))
    engine.reset()
    return [*answers, *engine.save_state(engine.n_streams - 1).values.values()]


def assert_answers(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
