from __future__ import annotations

import threading
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_gru.errors import BundleError, EngineUnavailableError, StoreError
from edge_gru.predictor import Prediction
from edge_gru.service.config import make_config
from edge_gru.service.events import ModelEvent, PredictionEvent
from edge_gru.service.loop import Service
from edge_gru.service.statistics import Latency, Summary
from edge_gru.service.stored_models import StoredModels
from edge_gru.signing import Release, Signature
from edge_gru.store import SignedBundle, Store, TrialPlan
from edge_gru.store.trial import N_CONSTANT
from firmware_bridge.errors import PortError, SchemaError
from firmware_bridge.link import LinkStatistics
from firmware_bridge.sample import LinkUp, Sample, Schema

ASKED = TrialPlan(duration_s=60, n_starts=3)
AT_ONCE = TrialPlan(duration_s=0)


def signed_of(bundle, version: int, **changes) -> SignedBundle:
    release = Release(bundle.manifest.name, version, **changes)
    text = Signature(bytes(8), bytes(64), release.to_comment("f"), bytes(64)).to_text()
    return SignedBundle(bundle, bundle.to_bytes(), text, release, "0" * 16)


@pytest.fixture
def signed(pack, schema):
    return lambda version, **changes: signed_of(pack(schema, seed=version), version, **changes)


@pytest.fixture
def store(tmp_path, signed) -> Store:
    made = Store(tmp_path / "bundles")
    made.install(signed(1))
    return made


@pytest.fixture
def models(store):
    config = make_config(
        {"store": str(store.root), "port": "/dev/x", "engine": "reference", "trial_p99_us": 1e4}
    )
    made = StoredModels(config, store)
    yield made
    made.close(is_fault=True)


def wrong(pack, schema):
    """A bundle whose golden vectors are another model's: no engine may serve it."""
    honest, other = pack(schema, seed=2), pack(schema, seed=3)
    parts = {**honest.parts, "golden.safetensors": other.parts["golden.safetensors"]}
    return signed_of(type(honest).pack(honest.manifest, parts), 2)


def wait_for(found):
    """Ask until there is an answer."""
    tick = threading.Event()
    for _ in range(2000):
        answer = found()
        if answer:
            return answer
        tick.wait(0.005)
    return pytest.fail("it never came")


def versions(store: Store) -> dict[int, str]:
    return {entry.version: entry.status for entry in store.read().entries.values()}


def summary(n: int, p99_us: float = 50.0) -> Summary:
    nothing = dict.fromkeys(Summary.__struct_fields__, 0)
    counts = {"n_samples": n, "n_predictions": n, "latency": Latency(1, 1, p99_us, p99_us)}
    return Summary(
        **{**nothing, "model": "m", "engine": "e", "saturated": {}, "link": {}, **counts}
    )


def prediction(*y: float) -> Prediction:
    sample = Sample(1.0, 0, np.zeros(2, np.float32), 1.0)
    return Prediction(sample, np.array(y, np.float32), 1, is_warming_up=False)


def test_the_current_bundle_serves_and_its_start_is_counted(store, models, signed):
    store.install(signed(2), ASKED)
    assert models.first().engine.model_hash == signed(2).bundle.hash
    assert store.current().trial.starts_left == 2
    status = models.status()
    assert (status.version, status.trial_s, status.starts_left) == (2, 60, 2)


def test_bundle_that_no_engine_reproduces_goes_back_at_the_start(
    store, models, signed, pack, schema
):
    store.install(wrong(pack, schema), ASKED)
    assert models.first().engine.model_hash == signed(1).bundle.hash
    assert models.status().version == 1
    failed = next(e for e in store.read().entries.values() if e.version == 2)
    assert "does not reproduce the golden vectors" in failed.reason


def test_damaged_bundle_goes_back_at_the_start(store, models, signed):
    candidate, _ = store.install(signed(2), AT_ONCE)
    candidate.path.write_bytes(b"")
    assert models.first().engine.model_hash == signed(1).bundle.hash


def test_where_no_bundle_can_serve_none_is_given_up(store, models, signed):
    first = store.current()
    second, _ = store.install(signed(2), AT_ONCE)
    for candidate in (first, second):
        candidate.path.write_bytes(b"")
    with pytest.raises(BundleError, match=second.folder):
        models.first()
    assert versions(store) == {1: "committed", 2: "committed"}
    second.path.write_bytes(signed(2).data)
    assert models.first().engine.model_hash == signed(2).bundle.hash


def test_without_another_bundle_the_reason_is_told(store, models):
    store.current().path.write_bytes(b"")
    with pytest.raises(BundleError, match="truncated or no archive"):
        models.first()


def test_empty_store_is_told(tmp_path):
    config = make_config({"store": str(tmp_path), "port": "/dev/x"})
    with pytest.raises(StoreError, match="found none"):
        StoredModels(config, Store(tmp_path)).first()


def test_bundle_that_comes_later_follows_once_it_is_proven(store, models, signed):
    models.first()
    assert models.following() is None
    store.install(signed(2, continues=(signed(1).bundle.hash,)), ASKED)
    model = wait_for(models.following)
    with model.engine:
        assert model.engine.model_hash == signed(2).bundle.hash
        assert model.continues == (signed(1).bundle.hash,)
        assert models.following() is None
    assert models.status().starts_left == 2


def test_bundle_that_comes_later_and_cannot_serve_is_given_up(store, models, pack, schema):
    models.first()
    store.install(wrong(pack, schema), ASKED)
    wait_for(lambda: models.following() or versions(store)[2] == "failed")
    assert models.status().version == 1
    assert versions(store) == {1: "committed", 2: "failed"}
    failed = next(e for e in store.read().entries.values() if e.version == 2)
    assert "does not reproduce the golden vectors" in failed.reason
    assert not models.wants_restart


def test_bundle_that_comes_as_the_service_stops_keeps_its_starts(store, models, signed):
    models.first()
    store.install(signed(2), ASKED)
    assert models.following() is None  # it is being opened
    models.close(is_fault=False)
    assert store.current().trial.starts_left == 3


def fail_by_output(models) -> None:
    models.observe(prediction(float("nan")))
    models.look(1.0, summary(1))


def fail_by_latency(models) -> None:
    models.look(1.0, summary(500, p99_us=2e4))


def fail_by_constant_output(models) -> None:
    for k in range(N_CONSTANT):
        sample = Sample(1.0, k, np.full(2, k, np.float32), 1.0)
        models.observe(Prediction(sample, np.zeros(4, np.float32), 1, is_warming_up=False))
    models.look(1.0, summary(N_CONSTANT))


def fail_by_silence(models) -> None:
    for second in range(12):  # samples come, and are dropped here: nobody is asked any more
        models.look(second, msgspec.structs.replace(summary(5), overrun_samples=100 * second))


FAILURES = {
    "is not finite": fail_by_output,
    "is the same in 500 predictions": fail_by_constant_output,
    "samples came for 10 s and it answered none": fail_by_silence,
    "its p99 is 20000 us, over the limit of 10000 us": fail_by_latency,
}


@pytest.mark.parametrize("reason", FAILURES)
def test_fault_on_trial_brings_the_bundle_before_back(store, models, signed, reason):
    store.install(signed(2), ASKED)
    models.first()
    FAILURES[reason](models)
    with wait_for(models.following).engine as engine:
        assert engine.model_hash == signed(1).bundle.hash
    assert versions(store) == {1: "committed", 2: "failed"}
    failed = next(e for e in store.read().entries.values() if e.version == 2)
    assert reason in failed.reason
    assert models.status().trial_s is None
    with pytest.raises(StoreError, match="failed here before"):
        store.install(signed(2), ASKED)


def test_fault_of_a_bundle_that_was_committed_is_no_reason_to_go_back(store, models, signed):
    store.install(signed(2), AT_ONCE)
    models.first()
    for fail in FAILURES.values():
        fail(models)
    models.close(is_fault=False)
    assert versions(store) == {1: "committed", 2: "committed"}


def test_good_service_ends_the_trial(store, models, signed):
    store.install(signed(2), ASKED)
    models.first()
    for second in range(62):
        models.look(second, summary(second * 100))
    wait_for(lambda: versions(store)[2] == "committed")
    wait_for(lambda: models.status().trial_s is None)


def test_confirmed_by_hand_ends_the_trial_in_the_service_too(store, models, signed):
    store.install(signed(2), ASKED)
    models.first()
    store.confirm()
    wait_for(lambda: models.following() or models.status().trial_s is None)
    fail_by_output(models)
    models.close(is_fault=False)
    assert versions(store)[2] == "committed"


@pytest.mark.parametrize(("is_fault", "starts_left"), [(False, 3), (True, 2)])
def test_a_stop_gives_the_start_back_and_a_fault_does_not(
    store, models, signed, is_fault, starts_left
):
    store.install(signed(2), ASKED)
    models.first()
    models.look(0, summary(0))
    models.look(2, summary(200))
    models.close(is_fault=is_fault)
    trial = store.current().trial
    assert (trial.starts_left, trial.served_s) == (starts_left, 0 if is_fault else 2)


def test_model_of_other_channels_wants_the_port_opened_again(store, models, pack):
    models.first()
    other = pack(Schema.of(["pressure"], rate_hz=200.0), seed=5)
    store.install(signed_of(other, 2), ASKED)
    wait_for(lambda: models.following() or models.wants_restart)
    assert models.status().version == 1
    models.close(is_fault=False)
    assert store.current().trial.starts_left == 3
    assert models.first().manifest.n_in == 1


class Feed:
    """A link of one endless stream, until ``is_over`` says so."""

    def __init__(self, block, is_over) -> None:
        self._block = block
        self._is_over = is_over
        self._n = -1
        self.statistics = LinkStatistics()
        self.overrun_samples = 0
        self.finished = False

    def receive(self, timeout_s):
        self._n += 1
        if self._n == 0:
            return LinkUp(1.0, "/dev/x", Schema.unnamed(2))
        self.finished = self.finished or self._is_over()
        return None if self.finished else self._block(self._n * 3, 3)

    def stop(self) -> None:
        self.finished = True

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


def serve_update(store, models, sink, block, monkeypatch, update) -> list[PredictionEvent]:
    """Run a service in which ``update`` happens after 50 samples, and 30 more follow."""
    monkeypatch.setattr("edge_gru.service.loop._SILENCE_S", 1e-9)

    def is_over() -> bool:
        if len(sink.of(PredictionEvent)) == 51:
            update()
        events = sink.of(ModelEvent)
        return len(events) > 1 and sink.events[-30:] == sink.of(PredictionEvent)[-30:]

    config = replace_config(models)
    service = Service(config, [sink], models=models, link_factory=lambda *_: Feed(block, is_over))
    service.run()
    return sink.of(PredictionEvent)


def replace_config(models):
    return msgspec.structs.replace(models._config, max_gap_s=1.0)


@pytest.mark.parametrize("is_compatible", [True, False])
def test_update_between_two_samples_loses_none_and_carries_the_state_if_it_may(
    store, models, sink, block, signed, monkeypatch, is_compatible
):
    continues = (signed(1).bundle.hash,) if is_compatible else ()
    made = signed(2, continues=continues)
    predictions = serve_update(
        store, models, sink, block, monkeypatch, lambda: store.install(made, ASKED)
    )
    seq = [event.sample_seq for event in predictions]
    assert seq == list(range(3, 3 + len(seq)))
    switch = next(k for k, e in enumerate(predictions) if e.model_hash == made.bundle.hash)
    assert {e.model_hash for e in predictions[:switch]} == {signed(1).bundle.hash}
    assert predictions[switch].n_steps == (switch + 1 if is_compatible else 1)
    assert predictions[switch].warming_up is not is_compatible
    expected = replayed(signed(1), made, block, len(seq), switch, is_compatible)
    got = np.array([list(event.y.values()) for event in predictions])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def replayed(old, new, block, n: int, switch: int, is_compatible: bool) -> np.ndarray:
    with old.bundle.open("reference") as before, new.bundle.open("reference") as after:
        x = block(3, n).values
        first = before.run_sequence(x[:switch])
        if is_compatible:
            after.load_state(0, replace(before.save_state(0), model_hash=after.model_hash))
        return np.concatenate([first, after.run_sequence(x[switch:])])


def test_rollback_by_hand_is_followed_too(store, models, sink, block, signed, monkeypatch):
    store.install(signed(2), ASKED)
    predictions = serve_update(
        store, models, sink, block, monkeypatch, lambda: store.rollback("by hand")
    )
    hashes = [event.model_hash for event in predictions]
    assert (hashes[0], hashes[-1]) == (signed(2).bundle.hash, signed(1).bundle.hash)


@pytest.mark.parametrize(
    ("error", "starts_left"),
    [(EngineUnavailableError("it broke"), 2), (SchemaError("other channels"), 2),
     (PortError("unplugged"), 3)],
)  # fmt: skip
def test_run_that_ends_by_an_error_has_used_its_start_unless_it_was_the_port(
    store, models, sink, signed, error, starts_left
):
    store.install(signed(2), ASKED)

    class Broken(Feed):
        def receive(self, timeout_s):
            raise error

    service = Service(
        models._config, [sink], models=models, link_factory=lambda *_: Broken(None, None)
    )
    with pytest.raises(type(error)):
        service.run()
    assert store.current().trial.starts_left == starts_left
