"""The models of a store: the current one serves, is judged on its trial, and makes way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from edge_gru.engines.golden import GoldenVectors
from edge_gru.engines.tensors import GOLDEN
from edge_gru.errors import EdgeGruError
from edge_gru.predictor import Prediction
from edge_gru.service.config import RunConfig
from edge_gru.service.models import BundleStatus, Model, open_model
from edge_gru.service.statistics import Summary
from edge_gru.store import Candidate, Store, Trial, TrialJudge, TrialLimits
from edge_gru.store.store import whole
from edge_gru.store.trial import N_CONSTANT

_log = logging.getLogger(__name__)

_SAVE_S = 30.0  # between notes of good service: what a crash costs the trial
_N_REPEATS = 3


@dataclass(frozen=True)
class _Opened:
    candidate: Candidate
    model: Model
    judge: TrialJudge | None

    @property
    def name(self) -> str:
        return self.candidate.name


class StoredModels:
    """Serves the current bundle of a store, and any that takes its place.

    A bundle on trial that fails, at its start or later, is rolled back here. Once ``first`` has
    returned, the store is written and engines are opened in a thread of its own: the loop waits
    for neither.
    """

    def __init__(self, config: RunConfig, store: Store) -> None:
        self.wants_restart = False
        self._config = config
        self._store = store
        self._worker: ThreadPoolExecutor | None = None
        self._serving: _Opened | None = None
        self._trial: Trial | None = None  # as the store has it
        self._pending: Future[_Opened | None] | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._is_given_up = False

    def first(self) -> Model:
        """Open the current bundle, or the one before it where that one cannot serve.

        Raises:
            StoreError: the store is not there, or empty.
            BundleError: no bundle in it is whole.
            EngineUnavailableError: no engine can run one of them.
            GoldenMismatchError: no engine reproduces the golden vectors.
        """
        self._stamp = self._store.stamp()
        candidate = self._store.begin()
        try:
            opened = self._open(candidate)
        except EdgeGruError as error:
            opened = self._open_earlier(candidate, error)
        self._worker = ThreadPoolExecutor(1, "edge-gru-store")
        return self._serve(opened)

    def following(self) -> Model | None:
        """Hand out what took the place of the current bundle, once its engine is proven."""
        if self._pending is not None:
            if not self._pending.done():
                return None
            opened, self._pending = self._pending.result(), None
            return None if opened is None else self._succeed(opened)
        stamp = self._store.stamp()
        if stamp != self._stamp and self._worker is not None:
            self._stamp = stamp
            self._pending = self._worker.submit(self._prepare)
        return None

    def observe(self, prediction: Prediction) -> None:
        """Judge a prediction, if the bundle is on trial."""
        judge = self._judge
        if judge is not None:
            judge.observe(prediction.sample.values.tolist(), prediction.values.tolist())

    def look(self, now_s: float, summary: Summary) -> None:
        """Judge the counters, if the bundle is on trial; note good service, or give it up."""
        serving, judge, trial = self._serving, self._judge, self._trial
        if serving is None or judge is None or trial is None or self._is_given_up:
            return
        judge.look(
            now_s,
            n_arrived=summary.n_samples + summary.overrun_samples,
            n_answered=summary.n_predictions + summary.rejected_samples,
            p99_us=summary.latency.p99_us,
        )
        if judge.fault is not None:
            self._is_given_up = True
            self._note(self._retreat, serving.candidate, judge.fault)
        elif judge.served_s >= min(_SAVE_S, trial.duration_s - trial.served_s):
            self._note(self._save, serving.candidate.folder, judge.take_served())

    def status(self) -> BundleStatus | None:
        """Say which bundle serves, and how far its trial is."""
        if self._serving is None:
            return None
        candidate, judge, trial = self._serving.candidate, self._judge, self._trial
        if judge is None or trial is None:
            return BundleStatus(candidate.folder, candidate.entry.version)
        return BundleStatus(
            folder=candidate.folder,
            version=candidate.entry.version,
            trial_s=trial.duration_s,
            served_s=round(trial.served_s + judge.served_s, 1),
            starts_left=trial.starts_left,
        )

    def close(self, *, is_fault: bool) -> None:
        """Give the start back if nothing failed, and wait for what is being written."""
        if self._worker is None:
            return
        judge, serving = self._judge, self._serving
        if serving is not None and judge is not None and not is_fault:
            folder = serving.candidate.folder
            self._note(self._save, folder, judge.take_served())
            self._note(self._store.note_stopped, folder)
        self._worker.shutdown()
        self._worker = None
        opened = None if self._pending is None else self._pending.result()
        if opened is not None:  # proven too late: the next run takes it
            opened.model.engine.close()
            self._quietly(self._store.note_stopped, opened.candidate.folder)

    @property
    def _judge(self) -> TrialJudge | None:
        return None if self._trial is None or self._serving is None else self._serving.judge

    def _serve(self, opened: _Opened) -> Model:
        self._serving, self._trial = opened, opened.candidate.trial
        self._is_given_up = False
        _log.info("%s serves%s", opened.name, ", on trial" if self._trial else "")
        return opened.model

    def _succeed(self, opened: _Opened) -> Model | None:
        """Let a proven model serve, unless the open link is not for its channels."""
        serving = self._serving
        channels = opened.model.manifest.schema.channels
        if serving is None or channels == serving.model.manifest.schema.channels:
            return self._serve(opened)
        _log.info("%s reads other channels; the port is opened again for it", opened.name)
        opened.model.engine.close()
        self._note(self._store.note_stopped, opened.candidate.folder)
        self.wants_restart = True
        return None

    def _prepare(self) -> _Opened | None:
        """Open what took the place of the serving bundle; None: nothing that can serve did."""
        serving = self._serving
        try:
            candidate = self._store.current()
            if serving is None or candidate.folder == serving.candidate.folder:
                self._trial = candidate.trial  # perhaps somebody has ended it
                return None
            candidate = self._store.begin()
            if candidate.folder == serving.candidate.folder:
                return None
        except EdgeGruError as error:
            _log.warning("the store cannot be followed now: %s", error)
            return None
        try:
            return self._open(candidate)
        except EdgeGruError as error:
            self._quietly(self._retreat, candidate, str(error))
            return None

    def _open(self, candidate: Candidate) -> _Opened:
        config = self._config
        source = whole(candidate).source
        model = open_model(source, config, candidate.entry.continues)
        engine = model.engine
        vectors = GoldenVectors.read(source.part(GOLDEN), engine.manifest, engine.precision)
        limits = TrialLimits(
            n_constant=None if _repeats(vectors.stream_y.tolist()) else N_CONSTANT,
            p99_us=config.trial_p99_us,
        )
        judge = None if candidate.trial is None else TrialJudge(limits)
        return _Opened(candidate, model, judge)

    def _open_earlier(self, candidate: Candidate, error: EdgeGruError) -> _Opened:
        """Open the bundle before one that cannot serve, and give that one up.

        Where none of them can, it is not the bundles that are at fault: nothing is given up.
        """
        earlier = self._store.before(candidate.folder)
        if earlier is None:
            raise error
        try:
            opened = self._open(earlier)
        except EdgeGruError as another:
            raise error from another
        self._retreat(candidate, str(error))
        return opened

    def _retreat(self, candidate: Candidate, reason: str) -> Candidate | None:
        """Give a bundle up; None: it stays, since there is no other."""
        earlier = self._store.retreat(candidate.folder, reason)
        if earlier is None or earlier.folder == candidate.folder:
            return None
        _log.warning("%s goes: %s", candidate.name, reason)
        return earlier

    def _save(self, folder: str, served_s: float) -> None:
        ledger = self._store.note_served(folder, served_s)
        if ledger.current != folder:
            return
        if ledger.trial is None and self._trial is not None:
            _log.info("%s has served well and stays", folder)
        self._trial = ledger.trial

    def _note(self, task: Callable[..., object], *arguments: object) -> None:
        """Write in the store, without waiting."""
        if self._worker is not None:
            self._worker.submit(self._quietly, task, *arguments)

    def _quietly(self, task: Callable[..., object], *arguments: object) -> None:
        try:
            task(*arguments)
        except EdgeGruError as error:
            _log.warning("the store could not be written: %s", error)


def _repeats(outputs: Sequence[Sequence[float]]) -> bool:
    """Tell whether this model answers the same several times, as a clipped output may for long."""
    n_same = 1
    for before, after in pairwise(outputs):
        n_same = n_same + 1 if before == after else 1
        if n_same >= _N_REPEATS:
            return True
    return False
