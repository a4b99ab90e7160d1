"""The loaders on the real recordings: shapes, units' ranges, labels, and gaps left as they are."""

import numpy as np
import pytest

from quantization.examples import EXAMPLES

pytestmark = pytest.mark.usefixtures("recordings")

SPLITS = [
    ("cmapss_fd001", "train", 100, 20631),
    ("cmapss_fd001", "test", 100, 13096),
    ("basicmotions", "train", 40, 4000),
    ("basicmotions", "test", 40, 4000),
    ("phone_motion", "train", 25, 28376),
    ("phone_motion", "validation", 10, 11176),
    ("phone_motion", "test", 10, 10572),
]


@pytest.mark.parametrize(("name", "split", "n_recordings", "n_steps"), SPLITS)
def test_recordings_have_schema_and_a_target_per_step(name, split, n_recordings, n_steps):
    example = EXAMPLES[name]
    sequences, targets = example.sequences(split), example.targets(split)
    assert len(sequences) == len(targets) == n_recordings
    assert sum(map(len, sequences)) == n_steps
    for x, target in zip(sequences, targets, strict=True):
        assert x.dtype == np.float32
        assert x.shape == (len(target), example.schema().n_channels)
        assert np.all(np.isfinite(x))


def test_cmapss_engines_count_down_to_failure_and_columns_vary():
    example = EXAMPLES["cmapss_fd001"]
    for target in example.targets("train"):
        assert target[-1] == 0
        assert target[0] == min(len(target) - 1, 125)
    assert np.all(np.concatenate(example.sequences("train")).std(axis=0) > 0)


def test_cmapss_columns_are_the_named_sensors():
    example = EXAMPLES["cmapss_fd001"]
    first = dict(zip(example.schema().names, example.sequences("train")[0][0], strict=True))
    assert first["T24"] == pytest.approx(641.82)
    assert first["Nf"] == pytest.approx(2388.06)
    assert first["W32"] == pytest.approx(23.4190)


def test_cmapss_test_engines_end_with_the_published_life():
    ends = np.array([target[-1] for target in EXAMPLES["cmapss_fd001"].targets("test")])
    assert ends[:3].tolist() == [112, 98, 69]
    assert ends.max() == 125  # one of 145 is capped


@pytest.mark.parametrize("split", ["train", "test"])
def test_basicmotions_has_ten_clips_of_each_activity(split):
    labels = [int(target[0]) for target in EXAMPLES["basicmotions"].targets(split)]
    assert np.bincount(labels).tolist() == [10, 10, 10, 10]


def test_phone_motion_keeps_jitter_and_gaps():
    example = EXAMPLES["phone_motion"]
    for t_s, x in zip(example.times_s("test"), example.sequences("test"), strict=True):
        assert len(t_s) == len(x)
        assert t_s[0] == 0
        intervals = np.diff(t_s)
        assert np.all(intervals >= 0)
        assert intervals.max() > 0.03
        assert intervals.mean() == pytest.approx(1 / example.schema().rate_hz, rel=0.01)


def test_phone_motion_measures_gravity():
    steps = np.concatenate(EXAMPLES["phone_motion"].sequences("train"))
    assert np.median(np.linalg.norm(steps[:, :3], axis=1)) == pytest.approx(9.8, abs=0.5)


@pytest.mark.parametrize("name", ["basicmotions", "cmapss_fd001", "phone_motion"])
def test_perfect_outputs_get_the_perfect_score(name):
    example = EXAMPLES[name]
    perfect = [
        np.eye(len(example.labels))[target] if example.labels else target[:, None]
        for target in example.targets("test")
    ]
    score = example.metric(perfect, "test")
    assert score[example.task_metric] == (1.0 if example.more_is_better else 0.0)


@pytest.mark.parametrize("name", ["basicmotions", "cmapss_fd001", "phone_motion"])
def test_unknown_split_is_refused(name):
    with pytest.raises(ValueError, match=r"train, .*'holdout'"):
        EXAMPLES[name].sequences("holdout")
