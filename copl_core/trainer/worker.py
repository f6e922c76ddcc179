"""The trainer: it claims queued runs from the database, fits, and publishes snapshots (``service``: its process).

The table of runs is the queue, for trainers on any machine.  Its promises: a run is claimed by one worker only, which
holds it by a lease (``lease``), a snapshot is on disk before it is in the database, and the champion changes in the
transaction that ends the run, if the worker still holds it.  A kill at any moment loses the last seconds of the current
run and nothing else: the next start in the same home, or another trainer once the lease has expired, marks that run as
interrupted and queues it again, and its training resumes from the last saved state (``checkpoint``), if that is there.
If labels have arrived in between, the training starts over on purpose: a snapshot knows all labels up to its watermark.

The worker has two lanes, one for each kind of run, so that people are placed on a new map within seconds while experts
train for minutes.  One graph of a study is fitted for the pages at a time, by any of the trainers (``_take_turn``): a
full run takes its turn at its end, and fits it to the labels of then, so a newer snapshot never knows fewer labels.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from threading import Event, Lock, RLock
from typing import TYPE_CHECKING, Any

import numpy as np

from copl_core.config import Settings
from copl_core.logs import about, note
from copl_core.records import (
    RUN_KINDS,
    CoplError,
    LeaseLost,
    RankLost,
    Run,
    RunState,
    SnapshotRecord,
    StoreUnavailable,
    TrainingData,
    counted_people,
)
from copl_core.snapshots.fingerprint import data_fingerprint
from copl_core.snapshots.snapshot import (
    Snapshot,
    newest_number,
    on_disk,
    prune,
    record_of,
    sweep,
    versions_to_keep,
    write_snapshot,
)
from copl_core.store import Store
from copl_core.trainer.departures import champion_without_left, change_for_others, map_of
from copl_core.trainer.lease import Lease
from copl_core.trainer.memory import peak_gigabytes, release_memory
from copl_core.trainer.run_log import RunLog, curves, read_log, remove_old_logs
from copl_core.trainer.run_progress import (
    EXPECTED,
    FIRST_LABELS,
    NEW_LABELS,
    TOOK,
    WAITING,
    RunClock,
    expected_seconds,
    fit_length,
    length_in_words,
    tags_in_words,
)
from copl_core.trainer.schedule import FEWEST, Situation, due
from copl_core.trainer.shared_snapshots import SharedSnapshots
from copl_core.trainer.start import start_of
from copl_core.trainer.worker_lock import Holder, new_name
from copl_core.trainer.writing import WriteLane
from copl_core.training.progress import HELD_OUT, Progress

if TYPE_CHECKING:
    from copl_core.trainer.job import Fitted
    from copl_core.training.checkpoint import Checkpoint

log = logging.getLogger("copl.worker")
CLAIM_SECONDS = 0.5  # between two looks for a queued run
_REPORT_SECONDS = 0.4  # between two progress reports
_RELEASE_SECONDS = 2.0  # between two times that freed memory goes back to the system, within a phase
_REPORT_RETRY_SECONDS = 30.0  # between a progress report that the database refuses and the next one
_PUBLISH_RETRY_SECONDS = (1.0, 5.0, 20.0)  # before each retry of recording a snapshot
_MAX_ATTEMPTS = 5  # of a run that is left behind every time
_LEFT_BEHIND = "The run was left behind"  # how the message of such a run begins
_STOPPED = "The worker was stopped."
_PART_NAMES = {
    "priors": "the choice of priors",
    "first graph": "the graph without the held-out labels",
    "graph": "the graph",
    "reward": "the reward model",
}  # of a training, by their names in a checkpoint


class Stopped(Exception):
    """The worker must stop; the current run is queued again."""


class Cancelled(Exception):
    """The current run was cancelled."""


class Trainer:
    """Executes runs against one store.

    Args:
        stop: once set, no run starts and the current one ends at its next step.
        embed: texts → φ (T, P); None: the bundled sentence model, loaded at first use.
        holder: this trainer and the dead one before it; None: one of its own name, with nobody before it.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        stop: Event | None = None,
        embed: Callable[..., np.ndarray] | None = None,
        holder: Holder | None = None,
    ) -> None:
        self.store, self.settings = store, settings
        holder = holder or Holder(new_name(), "")
        self.worker = holder.worker
        self._ours = [name for name in (holder.worker, holder.before) if name]  # whose runs this trainer may give up
        self.stop, self.shared = stop or Event(), SharedSnapshots(store, settings)
        self.writer = WriteLane(store, settings, self.worker, self.stop)
        self.current_runs: set[int] = set()  # ids of the runs that are executed at the moment
        self.interruptions: dict[int, str] = {}  # run id → the error that interrupted it, not its own
        self._embed = embed
        self._lock = RLock()  # held while a run is claimed or given up, so that the two never mix up
        self._turn = Lock()  # held from reading labels to publishing the graph that was fitted to them

    @property
    def state(self) -> str:
        """What the worker does, in words."""
        with self._lock:
            current = [f"run {run_id}" for run_id in sorted(self.current_runs)]
        return " and ".join(current + ["answers for a page"] * self.writer.busy) or "waiting for labels"

    # ---- recovery

    def recover(self) -> list[Run]:
        """Mark runs that no worker executes any more as interrupted and queue them again; returns the new runs.

        A killed worker leaves such a run, and so does a database that refuses the write that ends a run.  A run that
        ends the worker every time (out of memory, say) fails after a few attempts.
        """
        again = []
        with self._lock:
            for run in self.store.left_behind(self._ours):
                if run.id not in self.current_runs:
                    again += self._recover(run)
        return again

    def _recover(self, run: Run) -> list[Run]:
        known = self.interruptions.get(run.id)
        message = _LEFT_BEHIND + (
            f". {known}" if known else ": the worker was killed, or could not write to the database."
        )
        if self._attempts(run) < _MAX_ATTEMPTS:
            return self.store.give_up_run(run.id, run.token, RunState.INTERRUPTED, message, workers=self._ours)
        message += f" That was attempt {_MAX_ATTEMPTS}; it is not queued again; the worker's log may say why."
        self.store.give_up_run(run.id, run.token, RunState.FAILED, message, workers=self._ours)
        self._saved_states(run).clear()  # the saved state may be what ends the worker
        return []

    def _interrupt(self, run: Run) -> None:
        """Queue a run of this worker, which stops, again; one that was cancelled or taken over meanwhile stays so."""
        self.store.give_up_run(run.id, run.token, RunState.INTERRUPTED, _STOPPED, workers=self._ours)

    def give_up_current_runs(self) -> None:
        """Queue the current runs again where they do not reach their next step before the worker must end."""
        with self._lock:
            for run_id in sorted(self.current_runs):
                self._interrupt(self.store.run(run_id))

    def _attempts(self, run: Run) -> int:
        """How often in a row this run was left behind, this time included."""
        attempts = 1
        while run.retry_of is not None and attempts < _MAX_ATTEMPTS:
            run = self.store.run(run.retry_of)
            if not run.message.startswith(_LEFT_BEHIND):  # interrupted on request: not an attempt that failed
                break
            attempts += 1
        return attempts

    def sweep(self) -> None:
        """Remove snapshots that were written but never recorded."""
        for study in self.store.studies():
            self._sweep(study.id)
            shutil.rmtree(self.settings.cache / "training" / str(study.id), ignore_errors=True)  # of earlier versions

    def _sweep(self, study_id: int) -> None:
        if self._runs_elsewhere(study_id):
            return  # where snapshots are shared, a folder may be one that another trainer is writing
        known = {record.version for record in self.store.snapshots(study_id)}
        for name in sweep(self.root(study_id), known):
            log.info("removed the unrecorded snapshot %s", name)
        self.shared.sweep(study_id, known)

    def _runs_elsewhere(self, study_id: int) -> bool:
        """Whether another trainer executes a run of the study."""
        running = [run for run in self.store.active_runs() if run.state == RunState.RUNNING]
        return any(self.store.study_of_run(run.id) == study_id for run in running if run.worker not in self._ours)

    def _prune(self, study_id: int) -> None:
        """Remove old snapshots from disk and storage, so that a study refitted for months does not fill them."""
        try:
            known = {record.version for record in self.store.snapshots(study_id)}
            self.store.drop_forgotten_snapshots(study_id)
            records, champion = self.store.snapshots(study_id), self.store.study(study_id).champion
        except StoreUnavailable:
            return  # after the next run
        self.shared.prune(study_id, known, versions_to_keep(records, champion), champion)

    def root(self, study_id: int) -> Path:
        """Folder of the study's snapshots."""
        return self.settings.snapshots / str(study_id)

    # ---- due runs

    def ask_for_due_runs(self) -> None:
        """Queue the runs of this trainer's kinds that are due by the schedules of the studies."""
        busy = {(self.store.study_of_run(run.id), run.kind) for run in self.store.active_runs()}
        for study in self.store.studies():
            schedule = self.store.schedule(study.id) or self.settings.schedule
            left = study.forgotten > 0 and self.store.knows_forgotten(study.id)
            wanted = [kind for kind in self.settings.run_kinds if (study.id, kind) not in busy]
            if (schedule.automatic or left) and wanted:
                situation = replace(self._situation(study.id), left=left)
                for kind, reason in due(situation, schedule, self.store.clock()).items():
                    if kind in wanted:
                        self.store.add_due_run(study.id, kind, reason)

    def _situation(self, study_id: int) -> Situation:
        newest, reward = self.store.newest_watermarks(study_id)
        graph, full = (
            [run for run in self.store.runs(study_id, kind=kind, limit=100) if run.ended_at] for kind in RUN_KINDS
        )  # newest first
        return Situation(
            n_labels=self.store.label_count(study_id, most=max(FEWEST.values())),
            since_graph=self.store.revisions_since(study_id, newest or 0),
            since_reward=self.store.revisions_since(study_id, reward or 0),
            has_snapshot=newest is not None,
            has_reward=reward is not None,
            last_graph=_last_end(graph + full),
            last_reward=_last_end(full),
            failed_graph=_failed_in_a_row(graph),
            failed_reward=_failed_in_a_row(full),
        )

    # ---- execution

    def execute_next(self, kind: str | None = None) -> bool:
        """Execute the oldest queued run, of ``kind`` if given; False where there is none or the worker must stop.

        A full run lets graph runs of its study go first that were queued before it and that this trainer executes too.
        """
        run = self._claim(kind=kind, graphs_first=kind == "full" and "graph" in self.settings.run_kinds)
        if run is not None:
            with about(run=run.id):
                self._execute(run)
        return run is not None

    def execute(self, run_id: int) -> None:
        """Execute one queued run; a run in any other state is left alone."""
        try:
            run = self._claim(run_id)
        except StoreUnavailable as error:  # the run is still queued
            log.warning("run %s cannot be claimed: %s", run_id, error)
            self.interruptions[run_id] = str(error)
            return
        if run is not None:
            with about(run=run.id):
                self._execute(run)

    def _claim(self, run_id: int | None = None, *, kind: str | None = None, graphs_first: bool = False) -> Run | None:
        """Claim a run and make it a current one, in one step for ``recover``, which would otherwise give it up."""
        if self.stop.is_set():
            return None
        seconds = self.settings.lease_seconds
        with self._lock:
            run = self.store.claim_run(
                run_id, kind=kind, worker=self.worker, seconds=seconds, graphs_first=graphs_first
            )
            if run is not None:
                self.current_runs.add(run.id)
            return run

    def _execute(self, run: Run) -> None:
        run_log = RunLog(self.settings.run_logs, run.id)
        run_log.write(f"Run {run.id} ({run.kind}): {run.reason or 'no reason given'}.")
        try:
            study_id = self.store.study_of_run(run.id)
            note(study=study_id)
            with self._lease(run) as lease, self._checkpoint(run, run_log) as checkpoint:
                self._fit_and_publish(study_id, run, run_log, checkpoint, lease)
        except Stopped:
            run_log.write("The worker stops; the run is queued again.")
            self._interrupt(run)
        except Cancelled:
            log.info("run %s was cancelled", run.id)
            run_log.write("Cancelled; the champion stays.")
        except (StoreUnavailable, RankLost) as error:  # not its fault: ``recover`` queues it again, and it resumes
            log.warning("run %s was interrupted: %s", run.id, error)
            run_log.write(str(error))
            self.interruptions[run.id] = str(error)
        except LeaseLost as error:  # another trainer has it now, with all that is to be written of it
            log.warning("%s", error)
            run_log.write(str(error))
        except CoplError as error:  # includes a refusal to publish a cancelled run, which then stays cancelled
            log.warning("run %s failed: %s", run.id, error)
            run_log.write(str(error))
            self.store.finish_run(run.id, RunState.FAILED, message=str(error), token=run.token)
        except Exception as error:  # any error ends the fit, not the worker, and the training page shows it
            log.error("run %s failed\n%s", run.id, traceback.format_exc())
            run_log.write(traceback.format_exc())
            message = f"{type(error).__name__}: {error}"
            self.store.finish_run(run.id, RunState.FAILED, message=message, token=run.token)
        except KeyboardInterrupt:  # a fit in a terminal; the worker turns its signals into ``Stopped``
            self.store.finish_run(run.id, RunState.CANCELLED, message="Stopped in the terminal.", token=run.token)
            raise
        finally:
            with self._lock:
                self.current_runs.discard(run.id)
            run_log.write(f"Memory of the trainer: peak {peak_gigabytes():.1f} GB since its start.")
            release_memory()
            remove_old_logs(self.settings.run_logs)

    def _lease(self, run: Run) -> Lease:
        return Lease(self.store, run, self.settings.lease_seconds)

    @contextmanager
    def _checkpoint(self, run: Run, run_log: RunLog) -> Iterator[Checkpoint]:
        """Where a run saves its training state.

        The state is removed when the run ends, whether it succeeds, fails or is cancelled.  It stays where the worker
        must stop, the database fails or another trainer goes on with the run.  Each study has one such state per kind
        of run, so disk use is bounded, and the run that is queued again resumes from it.
        """
        checkpoint = self._saved_states(run, lambda part, state: run_log.write(_resumes(part, state)))
        try:
            yield checkpoint
        except (Stopped, StoreUnavailable, LeaseLost, RankLost):
            raise
        except (Exception, KeyboardInterrupt):
            checkpoint.clear()
            raise
        checkpoint.clear()

    def _saved_states(self, run: Run, found: Callable[[str, dict], None] | None = None) -> Checkpoint:
        from copl_core.training.checkpoint import Checkpoint

        study_id = self.store.study_of_run(run.id)
        folder = self.settings.cache / "training" / f"{study_id}-{run.kind}"
        return Checkpoint(folder, found=found, elsewhere=self.shared.states(study_id, run.kind))

    def _fit_and_publish(self, study_id: int, run: Run, run_log: RunLog, checkpoint: Checkpoint, lease: Lease) -> None:
        from copl_core.trainer.job import fit_graph_part, fit_reward_part

        started, clock = time.monotonic(), RunClock(expected_seconds(run.kind, self._earlier(study_id, run.kind)))
        config = run.config | self._settings_of_fits() | {EXPECTED: clock.expected}
        report = self._reporter(run, run_log, clock, lease)
        given = cache(lambda: self._given(run.kind, report, checkpoint))  # weights are looked for once labels are here
        reward, reward_data = None, None
        labels_phase = FIRST_LABELS
        if run.kind == "full":
            report(labels_phase, 0, 1, None)
            data, reward_data = self._read_labels(study_id, run, run_log, config)
            reward = fit_reward_part(data, previous=self._start(study_id, run, run_log), **given())
            run_log.write(length_in_words(fit_length(reward.entry)))
            if read := tags_in_words(reward.entry.get("tags")):
                run_log.write(read)
            labels_phase = NEW_LABELS
        with self._take_turn(run, report):
            report(labels_phase, 0, 1, None)
            data, cut = self._read_labels(study_id, run, run_log, config)
            version = self._next_version(study_id)
            before = self._start(study_id, run, run_log)
            past = champion_without_left(self.store, self.root(study_id), study_id) if before is None else None
            fitted = fit_graph_part(data, version, reward, previous=before, turned=map_of(past), **given())
            took = {TOOK: clock.seconds()} if run.retry_of is None else {}  # a resumed run skips what it has
            self._write(run, config=config | {"data": cut} | took)
            if changed := change_for_others(self.store, study_id, past, data, fitted.graph):
                run_log.write(changed.sentence)
            manifest = {
                "study": study_id,
                "run": run.id,
                "kind": run.kind,
                "watermark": data.watermark,
                "labels": len(data.labels),
                "data": cut,
                "reward_data": reward_data,
                "reward": fitted.reward,
                "metrics": fitted.metrics,
                "curves": {phase: asdict(curve) for phase, curve in curves(read_log(run_log.path)).items()},
                "made_at": self._now().isoformat(),
                "seconds": round(time.monotonic() - started, 2),
            }
            champion = self._publish(run, version, fitted, manifest)
            self._prune(study_id)
        place = "it is the champion now" if champion else "the champion stays, since a person chose it meanwhile"
        run_log.write(f"Published {version} after {manifest['seconds']:.1f} s; {place}.")
        log.info("published %s after %.1f s", version, manifest["seconds"])

    def _given(self, kind: str, report: Progress, checkpoint: Checkpoint) -> dict[str, Any]:
        """What both parts of a job take."""
        from copl_core.install.weights import resolver

        return {
            "embed": self._embedder(kind),
            "settings": self.settings,
            "weights": resolver(self.settings.weights),
            "progress": report,
            "checkpoint": checkpoint,
        }

    @contextmanager
    def _take_turn(self, run: Run, report: Progress) -> Iterator[None]:
        """Wait until no other run fits a graph here, or one of this study elsewhere; a run that must end does so while
        it waits.  The turn in the study lasts until the run ends.
        """
        while not self._take_both_turns(run):
            report(WAITING, 0, 1, None)  # may end the run, which then holds no turn
        try:
            yield
        finally:
            self._turn.release()

    def _take_both_turns(self, run: Run) -> bool:
        """Whether the run has the turn of this trainer and of its study.  While the study's is taken, another study's
        graph may be fitted here."""
        if not self._turn.acquire(timeout=CLAIM_SECONDS):
            return False
        try:
            taken = self._take_turn_of_study(run)
        except BaseException:
            self._turn.release()
            raise
        if not taken:
            self._turn.release()
            self.stop.wait(CLAIM_SECONDS)
        return taken

    def _take_turn_of_study(self, run: Run) -> bool:
        try:
            return self.store.take_turn(run.id, run.token)
        except StoreUnavailable as error:
            log.warning("run %s waits for the database: %s", run.id, error)
            return False

    def _read_labels(self, study_id: int, run: Run, run_log: RunLog, config: dict) -> tuple[TrainingData, dict]:
        """The labels of this moment and their fingerprint, which the run's config and log record."""
        data = self.store.training_data(study_id)
        cut = data_fingerprint(data)
        self._write(run, config=config | {"data": cut})
        run_log.write(
            f"Data: {cut['labels']:,} labels of {counted_people(cut['people'])} up to watermark {cut['watermark']}, "
            f"SHA-256 {cut['sha256'][:16]}…; seed {self.settings.seed}."
        )
        return data, cut

    def _write(self, run: Run, **facts: object) -> None:
        """Record facts about a run; a busy database costs the record and no training."""
        try:
            self.store.update_run(run.id, token=run.token, **facts)
        except StoreUnavailable as error:
            log.warning("run %s continues without a record of its %s: %s", run.id, " and ".join(facts), error)

    def _now(self) -> datetime:
        """The time of the database, or of this machine while the database does not answer."""
        try:
            return self.store.clock()
        except StoreUnavailable:
            return datetime.now(UTC)

    def _next_version(self, study_id: int) -> str:
        self.root(study_id).mkdir(parents=True, exist_ok=True)
        return self.store.next_version(study_id, after=newest_number(self.root(study_id)))

    def _earlier(self, study_id: int, kind: str) -> list[Run]:
        return self.store.runs(study_id, kind=kind, limit=20)

    def _publish(self, run: Run, version: str, fitted: Fitted, manifest: dict) -> bool:
        """Write the snapshot to its folder and to the storage, then record it; one that is not recorded is removed.

        Returns whether it is the champion.
        """
        root = self.root(manifest["study"])
        written = write_snapshot(
            root,
            version,
            graph=fitted.graph,
            layout=fitted.layout,
            manifest=manifest,
            save_reward=fitted.save_reward,
        )
        record = replace(record_of(written), created_at=datetime.fromisoformat(manifest["made_at"]))
        try:
            self.shared.put(manifest["study"], written)
            return self._record(manifest["study"], record, run)
        except Exception:
            if self.shared.take_back(manifest["study"], version):
                prune(root, on_disk(root) - {version})
            raise

    def _record(self, study_id: int, record: SnapshotRecord, run: Run) -> bool:
        """Record a snapshot that is on disk; it retries, so that a busy database costs no hours of training."""
        for seconds in _PUBLISH_RETRY_SECONDS:
            try:
                return self.store.publish(study_id, record, run_id=run.id, token=run.token)
            except StoreUnavailable as error:
                log.warning("snapshot %s is not recorded yet: %s", record.version, error)
                self.stop.wait(seconds)
        return self.store.publish(study_id, record, run_id=run.id, token=run.token)

    def _settings_of_fits(self) -> dict:
        """The settings of a run, with which it can be repeated on the same data."""
        names = ("backbone", "device", "reward_steps", "reward_budget_seconds", "seed")
        return {"settings": {name: getattr(self.settings, name) for name in names}}

    def _start(self, study_id: int, run: Run, run_log: RunLog) -> Snapshot | None:
        """What the run starts from (``start``); a start from nothing in spite of a champion is the run's message."""
        start = start_of(self.store, self.shared, study_id, run.kind)
        if start.note:
            log.warning("run %s: %s", run.id, start.note)
            run_log.write(start.note)
            self._write(run, message=start.note)
        return start.snapshot

    def _embedder(self, kind: str) -> Callable[..., np.ndarray]:
        """Texts → φ; each run has an embedder of its own, since the lanes run at once, and share new texts."""
        if self._embed is not None:
            return self._embed
        from copl_core.install.weights import resolver
        from copl_core.training.text_embedder import installed_embedder

        encoder = resolver(self.settings.weights)("minilm")
        embedder = installed_embedder(
            self.settings, encoder, longest_first=kind == "full", shared=self.shared.vectors()
        )

        def embed(texts: Sequence[tuple[str, str]], progress: Callable[[int, int], None] | None = None) -> np.ndarray:
            try:
                return embedder.embed(texts, progress)
            finally:
                embedder.forget_encoder()

        return embed

    def _reporter(
        self, run: Run, run_log: RunLog | None = None, clock: RunClock | None = None, lease: Lease | None = None
    ) -> Progress:
        """The progress callback of a run, which raises ``Stopped``, ``Cancelled`` or ``LeaseLost`` where the job must
        end.
        """
        reporter = _Reporter(self.store, run, clock or RunClock({}), lease or self._lease(run))

        def report(phase: str, step: int, steps: int, loss: float | None) -> None:
            if self.stop.is_set():
                raise Stopped
            if run_log is not None:
                run_log.measure(phase, step, steps, loss)
            if not phase.endswith(HELD_OUT):  # a measurement in between, for the log alone
                reporter.report(phase, step, steps, loss)

        return report


class _Reporter:
    """Writes the progress of one run to the database, at most a few times a second.

    A report that the database refuses is dropped: that costs a line on the page, and no training.
    """

    def __init__(self, store: Store, run: Run, clock: RunClock, lease: Lease) -> None:
        self.store, self.run, self.clock, self.lease = store, run, clock, lease
        self._phase = ""
        self._last_report = self._last_release = 0.0  # on the monotonic clock

    def report(self, phase: str, step: int, steps: int, loss: float | None) -> None:
        now, seconds_left = time.monotonic(), self.clock.at(phase, step, steps)
        if phase != self._phase:
            self._phase, self._last_report, self._last_release = phase, 0.0, 0.0
        if now - self._last_release > _RELEASE_SECONDS:
            self._last_release = now
            release_memory()  # what a finished phase or step used is not there twice
        if now - self._last_report < _REPORT_SECONDS and not self.lease.lost.is_set():
            return
        self._last_report = now
        finite_loss = None if loss is None or not math.isfinite(loss) else float(loss)
        try:
            self._write(phase=phase, step=step, steps=steps, loss=finite_loss, seconds_left=seconds_left)
        except StoreUnavailable as error:
            log.warning("run %s continues without this report: %s", self.run.id, error)
            self._last_report = time.monotonic() + _REPORT_RETRY_SECONDS

    def _write(self, **progress: object) -> None:
        if self.store.run(self.run.id).state == RunState.CANCELLED:
            raise Cancelled
        self.store.update_run(self.run.id, token=self.run.token, **progress)


def _resumes(part: str, state: dict) -> str:
    """The log line of a run that resumes a part of the training from a saved state."""
    name, _, number = part.partition(".")
    network = f", network {int(number) + 1}," if number and name != "reward" else ""
    step = f" at step {state['step']}" if "step" in state else ""
    steps = f" of {state['steps']}" if "steps" in state else ""
    return f"Resumes {_PART_NAMES.get(name, name)}{network}{step}{steps}, where an interrupted run stopped."


def _last_end(runs: list[Run]) -> datetime | None:
    return max((run.ended_at for run in runs if run.ended_at), default=None)


def _failed_in_a_row(ended: list[Run]) -> int:
    """How many of the newest runs failed in a row; interrupted runs do not count either way."""
    ended = [run for run in ended if run.state != RunState.INTERRUPTED]
    return next((n for n, run in enumerate(ended) if run.state != RunState.FAILED), len(ended))
