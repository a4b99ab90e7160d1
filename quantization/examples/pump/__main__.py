"""Train the wear of the pump, choose its alert on held-out pumps, and export it to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from firmware_bridge.sample import Float32
from quantization.examples.network import run_whole, save
from quantization.examples.pump import Pump
from quantization.examples.pump.alert import AlertRule, judged
from quantization.examples.pump.export import export
from quantization.examples.training import Recordings, Settings, parse_seed, train

SETTINGS = Settings(n_epochs=12, learning_rate=5e-3, window_steps=250, restart_share=0.5)
RULES = tuple(
    AlertRule(enter=enter, exit=enter / 2, for_s=for_s)
    for enter in (0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2)
    for for_s in (0.3, 0.5, 1.0)
)


def loss_of_wear(outputs: torch.Tensor, wear: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy, which minds small wear more than the squared error does."""
    return torch.nn.functional.binary_cross_entropy(outputs[:, 0], wear)


def choose_rule(example: Pump, outputs: Sequence[Float32]) -> AlertRule:
    """Print what each rule does on the held-out pumps and return the fastest one with a margin.

    The margin: it would raise no false alarm there even at half its threshold.
    """
    scenarios = example.scenarios("validation")
    scores = []
    for rule in RULES:
        outcomes = judged(scenarios, outputs, rule)
        halved = judged(scenarios, outputs, replace(rule, enter=rule.enter / 2))
        n_wrong = sum(o.missed for o in outcomes) + sum(o.false_alarm for o in halved)
        delay_s = float(np.median([o.delay_s for o in outcomes if o.detected] or [np.inf]))
        scores.append((n_wrong, delay_s))
        print(f"held-out: {n_wrong} wrong at the margin, median delay {delay_s:.2f} s  {rule}")
    return RULES[min(range(len(RULES)), key=scores.__getitem__)]


def main() -> None:
    """Train, choose the rule, evaluate the test pumps once, export."""
    seed = parse_seed(__doc__ or "")
    example = Pump()
    recordings = Recordings(example.sequences("train"), example.targets("train"))
    network = train(example, recordings, loss_of_wear, SETTINGS, seed=seed)
    save(example, network)
    export(example, network)
    rule = choose_rule(example, run_whole(network, example.sequences("validation")))
    print(f"best rule {rule}; the example uses {example.alert}")
    score = example.metric(run_whole(network, example.sequences("test")), "test")
    print(f"test {score}  seed {seed}  {SETTINGS}")


if __name__ == "__main__":
    main()
