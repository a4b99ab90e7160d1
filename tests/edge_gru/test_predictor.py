from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_gru.bundle import Bundle
from edge_gru.engines.base import Engine
from edge_gru.errors import ConfigError, InputShapeError
from edge_gru.manifest import InputRange
from edge_gru.predictor import GapPolicy, Prediction, Predictor
from firmware_bridge.sample import Sample

POLICY = GapPolicy(max_missing=3, max_gap_s=1.0)
Make = Callable[..., Predictor]


def sample(t_s: float, *values: float) -> Sample:
    return Sample(t_s, 0, np.array(values or (0.5, -0.5), np.float32), t_s)


@pytest.fixture
def make(bundle: Bundle) -> Make:
    def predictor(n_warmup: int | None = 2, policy: GapPolicy = POLICY) -> Predictor:
        return Predictor(bundle.open("reference"), gap_policy=policy, n_warmup=n_warmup)

    return predictor


def pushed(predictor: Predictor, t_s: float) -> Prediction:
    prediction = predictor.push(sample(t_s))
    assert prediction is not None
    return prediction


def counted(predictor: Predictor) -> dict[str, int]:
    return {name: n for name, n in asdict(predictor.statistics).items() if n}


def test_prediction_is_the_engines_and_says_what_it_is_worth(bundle: Bundle, make: Make) -> None:
    engine = bundle.open("reference")
    predictor = make(n_warmup=2)
    for k in range(4):
        x = sample(0.1 * k, k, -k)
        prediction = predictor.push(x)
        assert prediction is not None
        assert prediction.sample is x
        assert prediction.n_steps == k + 1
        assert prediction.is_warming_up == (k < 2)
        np.testing.assert_array_equal(prediction.values, engine.step(x.values))
    assert counted(predictor) == {"n_predictions": 4}


def test_without_a_known_warm_up_it_never_ends(make: Make) -> None:
    predictor = make(n_warmup=None)
    assert all(pushed(predictor, 0.1 * k).is_warming_up for k in range(50))


def test_warm_up_of_no_steps_is_over_at_once(make: Make) -> None:
    assert not pushed(make(n_warmup=0), 0.0).is_warming_up


@pytest.mark.parametrize(("n_missing", "n_steps"), [(0, 2), (1, 2), (3, 2), (4, 1), (1000, 1)])
def test_lost_samples_hold_the_state_up_to_the_limit(
    make: Make, n_missing: int, n_steps: int
) -> None:
    predictor = make()
    pushed(predictor, 0.0)
    predictor.note_missing(n_missing)
    assert pushed(predictor, 0.5).n_steps == n_steps
    expected = {"n_predictions": 2}
    if n_missing:
        expected["held_gaps" if n_steps == 2 else "resets_gap"] = 1
    assert counted(predictor) == expected


def test_lost_samples_add_up_until_the_next_one(make: Make) -> None:
    predictor = make()
    pushed(predictor, 0.0)
    predictor.note_missing(2)
    predictor.note_missing(2)
    assert pushed(predictor, 0.1).n_steps == 1


def test_a_sample_that_comes_ends_the_count(make: Make) -> None:
    predictor = make()
    for k in range(5):
        pushed(predictor, 0.1 * k)
        predictor.note_missing(3)
    assert counted(predictor) == {"n_predictions": 5, "held_gaps": 4}


@pytest.mark.parametrize(("elapsed_s", "n_steps"), [(0.5, 2), (1.0, 2), (1.0000001, 1), (1e9, 1)])
def test_silence_holds_the_state_up_to_the_limit(
    make: Make, elapsed_s: float, n_steps: int
) -> None:
    predictor = make()
    pushed(predictor, 0.0)
    assert pushed(predictor, elapsed_s).n_steps == n_steps
    assert predictor.statistics.resets_gap == (n_steps == 1)


@pytest.mark.parametrize("t_s", [10.0, 9.999, -1e9, math.nan])
def test_time_that_does_not_advance_clears_the_state(make: Make, t_s: float) -> None:
    predictor = make()
    pushed(predictor, 10.0)
    assert pushed(predictor, t_s).n_steps == 1
    assert counted(predictor) == {"n_predictions": 2, "resets_time": 1}


def test_time_that_is_no_number_is_not_trusted_later(make: Make) -> None:
    predictor = make()
    pushed(predictor, math.nan)
    assert pushed(predictor, 5.0).n_steps == 1
    assert pushed(predictor, 5.1).n_steps == 2


def test_cleared_state_is_that_of_a_new_stream(make: Make) -> None:
    seasoned, fresh = make(), make()
    for k in range(10):
        seasoned.push(sample(0.1 * k, 3.0, k))
    np.testing.assert_array_equal(pushed(seasoned, 100.0).values, pushed(fresh, 0.0).values)


def test_held_state_is_carried_bit_exactly(make: Make) -> None:
    gapped, whole = make(), make()
    for predictor in (gapped, whole):
        pushed(predictor, 0.0)
    gapped.note_missing(2)
    np.testing.assert_array_equal(pushed(gapped, 0.9).values, pushed(whole, 0.1).values)


def test_new_stream_clears_the_state_and_what_was_missing(make: Make) -> None:
    predictor = make()
    pushed(predictor, 5.0)
    predictor.note_missing(100)
    predictor.note_new_stream()
    assert pushed(predictor, 0.0).n_steps == 1  # time may begin anew, too
    assert pushed(predictor, 0.1).n_steps == 2
    assert counted(predictor) == {"n_predictions": 3, "resets_epoch": 1}


def test_new_stream_before_any_sample_is_no_reset(make: Make) -> None:
    predictor = make()
    predictor.note_missing(100)
    predictor.note_new_stream()
    predictor.note_new_stream()
    pushed(predictor, 0.0)
    assert counted(predictor) == {"n_predictions": 1}


def test_loss_before_the_first_sample_is_no_gap(make: Make) -> None:
    predictor = make()
    predictor.note_missing(100)
    pushed(predictor, 0.0)
    assert pushed(predictor, 0.1).n_steps == 2
    assert counted(predictor) == {"n_predictions": 2}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("channel", [0, 1])
def test_sample_that_is_not_finite_never_reaches_the_state(
    make: Make, bad: float, channel: int
) -> None:
    predictor, clean = make(), make()
    for one in (predictor, clean):
        pushed(one, 0.0)
    values = [0.5, 0.5]
    values[channel] = bad
    assert predictor.push(sample(0.1, *values)) is None
    clean.note_missing(1)
    after, expected = pushed(predictor, 0.2), pushed(clean, 0.2)
    np.testing.assert_array_equal(after.values, expected.values)
    assert after.n_steps == expected.n_steps == 2
    assert counted(predictor) == {"n_predictions": 2, "rejected_samples": 1, "held_gaps": 1}


def test_many_samples_that_are_not_finite_are_a_gap(make: Make) -> None:
    predictor = make()
    pushed(predictor, 0.0)
    for k in range(4):
        assert predictor.push(sample(0.1 + 0.1 * k, math.nan, 0.0)) is None
    assert pushed(predictor, 0.6).n_steps == 1
    assert predictor.statistics.resets_gap == 1


@pytest.mark.parametrize("values", [(1.0,), (1.0, 2.0, 3.0), (math.nan,)])
def test_wrong_channel_count_keeps_the_state(make: Make, values: tuple[float, ...]) -> None:
    predictor = make()
    pushed(predictor, 0.0)
    with pytest.raises(InputShapeError, match="expected 2 channels, got shape"):
        predictor.push(sample(50.0, *values))
    assert pushed(predictor, 0.1).n_steps == 2
    assert counted(predictor) == {"n_predictions": 2}


def test_predictions_belong_to_the_caller(make: Make) -> None:
    predictor = make()
    first = pushed(predictor, 0.0)
    kept = first.values.copy()
    second = pushed(predictor, 0.1)
    second.values[:] = math.nan
    np.testing.assert_array_equal(first.values, kept)
    assert np.isfinite(pushed(predictor, 0.2).values).all()


def test_predictor_begins_with_a_fresh_stream_0_alone(bundle: Bundle) -> None:
    engine = bundle.open("reference", streams=2)
    engine.step_batch(np.ones((2, 2), np.float32))
    kept = engine.save_state(1)
    predictor = Predictor(engine, gap_policy=POLICY, n_warmup=0)
    fresh = bundle.open("reference")
    np.testing.assert_array_equal(pushed(predictor, 0.0).values, fresh.step(sample(0.0).values))
    np.testing.assert_array_equal(
        engine.save_state(1).values["state_00_h"], kept.values["state_00_h"]
    )


@pytest.mark.parametrize(
    "settings",
    [{"max_missing": -1}, {"max_gap_s": 0.0}, {"max_gap_s": -1.0}, {"max_gap_s": math.nan}],
)
def test_impossible_policy_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        GapPolicy(**settings)


def test_policy_for_a_rate_allows_ten_periods() -> None:
    assert GapPolicy.for_rate(100.0).max_gap_s == pytest.approx(0.1)
    assert GapPolicy.for_rate(None).max_gap_s == 1.0


def test_policy_of_no_tolerance_and_of_no_limit(make: Make) -> None:
    strict = make(policy=GapPolicy(max_missing=0))
    pushed(strict, 0.0)
    strict.note_missing(1)
    assert pushed(strict, 0.1).n_steps == 1
    patient = make(policy=GapPolicy(max_missing=10**9, max_gap_s=math.inf))
    pushed(patient, 0.0)
    patient.note_missing(10**6)
    assert pushed(patient, 1e9).n_steps == 2


@dataclass
class Rule:
    """The gap policy once more, as a list of what belongs together."""

    policy: GapPolicy
    sequence: list[Sample] = field(default_factory=list)
    n_missing: int = 0

    def apply(self, act: str, value: float) -> list[Sample] | None:
        """The samples that a prediction rests on; None where there is none."""
        if act == "missing":
            self.n_missing += int(value)
        elif act == "new stream":
            self.sequence, self.n_missing = [], 0
        elif act == "bad":
            self.n_missing += 1
        else:
            if self.sequence:
                elapsed_s = value - self.sequence[-1].t_s
                is_one = 0 < elapsed_s <= self.policy.max_gap_s
                if not is_one or self.n_missing > self.policy.max_missing:
                    self.sequence = []
            self.sequence, self.n_missing = [*self.sequence, sample(value, value, 1.0)], 0
            return self.sequence
        return None


STEPS_S = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.25, -0.5])
ACTS = st.one_of(
    st.tuples(st.just("sample"), STEPS_S),
    st.tuples(st.just("bad"), STEPS_S),
    st.tuples(st.just("missing"), st.integers(0, 5).map(float)),
    st.tuples(st.just("new stream"), st.just(0.0)),
)


def after(engine: Engine, sequence: list[Sample]) -> np.ndarray:
    engine.reset(0)
    return [engine.step(one.values) for one in sequence][-1]


# The bundle is only read, so examples may share it.
@given(acts=st.lists(ACTS, max_size=30), n_warmup=st.sampled_from([None, 0, 3]))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_history_predicts_from_what_belongs_together(
    bundle: Bundle, make: Make, acts: list[tuple[str, float]], n_warmup: int | None
) -> None:
    predictor, rule, alone, t_s = make(n_warmup), Rule(POLICY), bundle.open("reference"), 0.0
    for act, value in acts:
        if act in ("sample", "bad"):
            t_s += value
        sequence = rule.apply(act, t_s if act == "sample" else value)
        if act == "missing":
            predictor.note_missing(int(value))
        elif act == "new stream":
            predictor.note_new_stream()
        elif act == "bad":
            assert predictor.push(sample(t_s, math.nan, 1.0)) is None
        else:
            prediction = predictor.push(sample(t_s, t_s, 1.0))
            assert prediction.n_steps == len(sequence)
            assert prediction.is_warming_up == (n_warmup is None or len(sequence) <= n_warmup)
            np.testing.assert_array_equal(prediction.values, after(alone, sequence))


def test_samples_beyond_the_grid_are_counted_by_channel(bundle: Bundle) -> None:
    engine = bundle.open("reference")
    info = engine.manifest.precisions[engine.precision]
    limited = msgspec.structs.replace(info, input_limit=InputRange((-1.0, -2.0), (1.0, 2.0)))
    precisions = {**engine.manifest.precisions, engine.precision: limited}
    engine.manifest = msgspec.structs.replace(engine.manifest, precisions=precisions)
    predictor = Predictor(engine, gap_policy=POLICY, n_warmup=0)
    for k, values in enumerate([(0.5, 1.5), (1.5, 1.5), (-1.5, 2.5), (0.0, -2.0)]):
        assert predictor.push(sample(0.1 * k, *values)) is not None
    assert predictor.statistics.saturated == [2, 1]


def test_model_without_a_grid_of_x_counts_nothing(make: Make) -> None:
    predictor = make()
    assert predictor.push(sample(0.0, 1e9, 1e9)) is not None
    assert predictor.statistics.saturated == []
