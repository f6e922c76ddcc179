"""The trainer: a process of its own that takes runs from the queue, fits, and publishes snapshots.

What it promises: a run is in the database before it is on the queue, a snapshot is on disk before it is in the
database, and the champion moves in the transaction that ends the run.  Killed at any moment, it loses the last seconds
of the run in hand and nothing else; at the next start that run is marked interrupted and queued again, and its training
goes on where it stood (``checkpoint``).  Where labels have arrived in between the training starts anew, and that is
meant: a snapshot knows every label up to its watermark.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np

from copl_core.config import Settings
from copl_core.records import CoplError, Run, RunState, SnapshotRecord, StoreTrouble
from copl_core.snapshots.fingerprint import data_cut
from copl_core.snapshots.snapshot import Snapshot, load_snapshot, next_version, sweep, verify, write_snapshot
from copl_core.store import Store
from copl_core.trainer.queue import make_queue, on_queue
from copl_core.trainer.run_log import RunLog, curves, read_log, tidy
from copl_core.trainer.schedule import Situation, due
from copl_core.training.progress import HELD_OUT, Progress

if TYPE_CHECKING:
    from copl_core.training.checkpoint import Checkpoint

log = logging.getLogger("copl.worker")
_LOOK_EVERY = 1.0  # seconds between two looks at the studies
_TELL_EVERY = 0.4  # seconds between two progress reports
_TELL_AGAIN = 30.0  # seconds after a progress report that the database refused
_PUBLISH_AGAIN = (1.0, 5.0, 20.0)  # seconds before another try to record a snapshot that the database refused
_MOST_TRIES = 5  # of a run that is left behind every time
_LEFT_BEHIND = "The run was left behind: the worker was killed, or could not write to the database."
_TOLD_TO_END = "The worker was told to end."
_PATIENCE = 8.0  # seconds a run in hand gets to reach its next step when the worker is told to end
_PARTS = {
    "priors": "the choice of priors",
    "first graph": "the graph without the held-out labels",
    "graph": "the graph",
    "reward": "the reward model",
}  # of a training, as its checkpoint names them


class Stopped(Exception):
    """The worker is asked to end; the run in hand will run again."""


class Cancelled(Exception):
    """Somebody cancelled the run in hand."""


class Trainer:
    """Executes runs against one store."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        stop: Event | None = None,
        embed: Callable[..., np.ndarray] | None = None,
    ) -> None:
        self.store, self.settings = store, settings
        self.stop = stop or Event()
        self.state = "starting"
        self.in_hand: int | None = None  # the run that is being carried out
        self.trouble: dict[int, str] = {}  # what the database said of runs that it broke off
        self._embed = embed  # texts → φ; the bundled sentence model, opened at first use, unless another is given

    # ---- before work

    def recover(self) -> list[Run]:
        """Mark runs that nobody carries out any more as interrupted and queue them again.

        A killed worker leaves one behind, and so does a database that could not be written when a run ended.  One that
        ends the worker every time (out of memory, say) is given up after a few tries.
        """
        again = []
        for run in self.store.active_runs():
            if run.state == RunState.RUNNING and run.id != self.in_hand:
                left = f"{_LEFT_BEHIND} {self.trouble.get(run.id, '')}".strip()
                if self._tries(run) < _MOST_TRIES:
                    again += self._interrupted(run, left)
                else:
                    self.store.finish_run(
                        run.id,
                        RunState.FAILED,
                        message=f"{left} That was try {_MOST_TRIES}; it is "
                        "not queued again; the worker's log may say why.",
                    )
                    self._states(self.store.study_of_run(run.id)).clear()  # it may be what ended the worker
        return again

    def sweep(self) -> None:
        """Remove snapshots that were written but never recorded."""
        for study in self.store.studies():
            self._sweep(study.id)

    def _interrupted(self, run: Run, message: str) -> list[Run]:
        """Queue a run again, then call it interrupted: in this order a kill in between loses nothing.

        One that was cancelled in the meantime stays cancelled.
        """
        if self.store.run(run.id).state != RunState.RUNNING:
            return []
        again = [other for other in self.store.active_runs() if other.retry_of == run.id]
        if not again:
            again = [self.store.add_run(self.store.study_of_run(run.id), run.kind, run.reason, retry_of=run.id)]
        self.store.finish_run(run.id, RunState.INTERRUPTED, message=message)
        return again

    def _tries(self, run: Run) -> int:
        """How often in a row this run was left behind, this time included."""
        tries = 1
        while run.retry_of is not None and tries < _MOST_TRIES:
            run = self.store.run(run.retry_of)
            if run.message == _TOLD_TO_END:
                break
            tries += run.message.startswith(_LEFT_BEHIND)
        return tries

    def _sweep(self, study_id: int) -> None:
        known = {record.version for record in self.store.snapshots(study_id)}
        for name in sweep(self.root(study_id), known):
            log.info("removed the leftover %s", name)

    def root(self, study_id: int) -> Path:
        return self.settings.snapshots / str(study_id)

    # ---- looking for work

    def ask_for_due_runs(self) -> None:
        """Queue a run for each study whose labels have moved enough."""
        busy = {self.store.study_of_run(run.id) for run in self.store.active_runs()}
        for study in self.store.studies():
            if study.id not in busy:
                schedule = self.store.schedule(study.id) or self.settings.schedule
                found = due(self._situation(study.id), schedule, datetime.now(UTC)) if schedule.automatic else None
                if found:
                    self.store.add_run(study.id, *found)

    def _situation(self, study_id: int) -> Situation:
        champion = self.store.champion(study_id)
        reward = champion.metrics.get("reward_watermark") if champion else None
        ended, full = (
            [run for run in self.store.runs(study_id, kind=kind, limit=100) if run.ended_at] for kind in (None, "full")
        )  # newest first
        return Situation(
            n_labels=self.store.label_count(study_id),
            since_graph=self.store.revisions_since(study_id, champion.watermark if champion else 0),
            since_reward=self.store.revisions_since(study_id, reward or 0),
            has_snapshot=champion is not None,
            has_reward=reward is not None,
            last_graph=max((run.ended_at for run in ended), default=None),
            last_reward=max((run.ended_at for run in full), default=None),
            failed_graph=_failed_in_a_row(ended),
            failed_reward=_failed_in_a_row(full),
        )

    # ---- work

    def execute(self, run_id: int) -> None:
        """Carry out one queued run; a run in any other state is left alone (a doubled message)."""
        run = self.store.run(run_id)
        if run.state != RunState.QUEUED or self.stop.is_set():
            return
        study_id = self.store.study_of_run(run_id)
        self.in_hand, self.state = run_id, f"run {run_id}"
        told = RunLog(self.settings.run_logs, run_id)
        told.say(f"Run {run_id} ({run.kind}): {run.reason or 'no reason given'}.")
        try:
            self.store.update_run(run_id, state=RunState.RUNNING, started_at=datetime.now(UTC), phase="reading labels")
            with self._checkpoint(study_id, told) as checkpoint:
                self._publish(study_id, run, told, checkpoint)
        except Stopped:
            told.say("The worker was told to end; the run is queued again.")
            self._interrupted(run, _TOLD_TO_END)
        except Cancelled:
            log.info("run %s was cancelled", run_id)
            told.say("Cancelled; the champion stays.")
        except StoreTrouble as problem:  # not the run's fault: it is found left behind, queued again, and goes on
            log.warning("run %s was broken off: %s", run_id, problem)
            told.say(str(problem))
            self.trouble[run_id] = str(problem)
        except CoplError as problem:  # also a publishing refused because the run was cancelled: then it stays cancelled
            told.say(str(problem))
            self.store.finish_run(run_id, RunState.FAILED, message=str(problem))
        except Exception as problem:  # whatever breaks a fit must not break the worker, and is told on the page
            log.error("run %s failed\n%s", run_id, traceback.format_exc())
            told.say(traceback.format_exc())
            self.store.finish_run(run_id, RunState.FAILED, message=f"{type(problem).__name__}: {problem}")
        except KeyboardInterrupt:  # a fit in a terminal; the worker turns its signals into ``Stopped``
            self.store.finish_run(run_id, RunState.CANCELLED, message="Stopped in the terminal.")
            raise
        finally:
            self.in_hand, self.state = None, "waiting for labels"
            tidy(self.settings.run_logs)

    @contextmanager
    def _checkpoint(self, study_id: int, told: RunLog) -> Iterator[Checkpoint]:
        """Where a run keeps how far it is, forgotten when it ends by itself, well or badly, or is cancelled; not where
        the worker is told to end, or the database fails it.

        A study has one place, so that room is bounded: what goes on there is the run that is queued again, and a run
        of another kind in between begins it anew.
        """
        checkpoint = self._states(study_id, lambda part, state: told.say(_goes_on(part, state)))
        try:
            yield checkpoint
        except (Stopped, StoreTrouble):
            raise
        except (Exception, KeyboardInterrupt):
            checkpoint.clear()
            raise
        checkpoint.clear()

    def _states(self, study_id: int, found: Callable[[str, dict], None] | None = None) -> Checkpoint:
        from copl_core.training.checkpoint import Checkpoint

        return Checkpoint(self.settings.cache / "training" / str(study_id), found=found)

    def _publish(self, study_id: int, run: Run, told: RunLog, checkpoint: Checkpoint) -> None:
        from copl_core.install.weights import resolver
        from copl_core.trainer.job import fit

        data = self.store.training_data(study_id)
        cut = data_cut(data)
        self.store.update_run(run.id, config=self._config(cut))
        told.say(
            f"Data: {cut['labels']:,} labels of {cut['people']:,} people up to watermark {cut['watermark']}, "
            f"SHA-256 {cut['sha256'][:16]}…; seed {self.settings.seed}."
        )
        root = self.root(study_id)
        root.mkdir(parents=True, exist_ok=True)
        version = next_version(root, [record.version for record in self.store.snapshots(study_id)])
        began = time.monotonic()
        fitted = fit(
            data,
            run.kind,
            version,
            embed=self._embedder(),
            settings=self.settings,
            weights=resolver(self.settings.weights),
            previous=self._champion(study_id),
            progress=self._reporter(run.id, told),
            checkpoint=checkpoint,
        )
        manifest = {
            "study": study_id,
            "run": run.id,
            "kind": run.kind,
            "watermark": data.watermark,
            "labels": len(data.labels),
            "data": cut,
            "reward": fitted.reward,
            "metrics": fitted.metrics,
            "curves": {phase: asdict(curve) for phase, curve in curves(read_log(told.path)).items()},
            "made_at": datetime.now(UTC).isoformat(),
            "seconds": round(time.monotonic() - began, 2),
        }
        write_snapshot(
            root, version, graph=fitted.graph, layout=fitted.layout, manifest=manifest, save_reward=fitted.save_reward
        )
        metrics = {
            **fitted.metrics,
            "reward_watermark": fitted.reward and fitted.reward["watermark"],
            "seconds": manifest["seconds"],
            "kind": run.kind,
            "data": cut,
            "fitted_in": fitted.reward and fitted.reward["fitted_in"],
        }
        record = SnapshotRecord(version, run.id, data.watermark, len(data.labels), metrics, datetime.now(UTC))
        try:
            self._record(study_id, record)
        except Exception:
            self._sweep(study_id)
            raise
        told.say(f"Published {version} after {manifest['seconds']:.1f} s; it is the champion now.")
        log.info("published %s after %.1f s", version, manifest["seconds"])

    def _record(self, study_id: int, record: SnapshotRecord) -> None:
        """Publish what stands on disk; what took hours is not given up because the database is busy for a minute."""
        for seconds in _PUBLISH_AGAIN:
            try:
                return self.store.publish(study_id, record, run_id=record.run_id)
            except StoreTrouble as problem:
                log.warning("snapshot %s waits to be recorded: %s", record.version, problem)
                self.stop.wait(seconds)
        return self.store.publish(study_id, record, run_id=record.run_id)

    def _config(self, cut: dict) -> dict:
        """What the run was told, so that it can be told again."""
        names = ("backbone", "device", "reward_budget_seconds", "seed")
        return {"data": cut, "settings": {name: getattr(self.settings, name) for name in names}}

    def _champion(self, study_id: int) -> Snapshot | None:
        """The champion to start warm from; a damaged one is no reason not to fit, and is not handed on."""
        champion = self.store.champion(study_id)
        if champion is None:
            return None
        try:
            snapshot = load_snapshot(self.root(study_id), champion.version)
            damaged = verify(snapshot)
        except (CoplError, OSError) as problem:
            snapshot, damaged = None, [str(problem)]
        if damaged:
            log.warning("starting cold, since the champion %s is damaged: %s", champion.version, ", ".join(damaged))
        return None if damaged else snapshot

    def _embedder(self) -> Callable[..., np.ndarray]:
        if self._embed is None:
            from copl_core.install.weights import resolver
            from copl_core.training.text_embedder import TextEmbedder

            self._embed = TextEmbedder(
                resolver(self.settings.weights)("minilm"),
                device=self.settings.device,
                cache=self.settings.cache / "phi",
            ).embed
        return self._embed

    def _reporter(self, run_id: int, log_of: RunLog | None = None) -> Progress:
        """Writes progress to the run, at most a few times a second, and ends the job when it should end.

        A phase whose name ends in ``HELD_OUT`` is a measurement in passing, for the log alone.  A report that the
        database refuses is left out: it costs a line on the page, and no training.
        """
        told, phase_now, phase_began, first = 0.0, "", time.monotonic(), 0

        def report(phase: str, step: int, steps: int, loss: float | None) -> None:
            nonlocal told, phase_now, phase_began, first
            now = time.monotonic()
            if self.stop.is_set():
                raise Stopped
            if log_of is not None:
                log_of.measure(phase, step, steps, loss)
            if phase.endswith(HELD_OUT):
                return
            if phase != phase_now:
                phase_now, phase_began, told, first = phase, now, 0.0, max(0, step - 1)
            if now - told < _TELL_EVERY:
                return
            told = now
            left = (now - phase_began) / (step - first) * (steps - step) if step > first else None
            said = None if loss is None or not math.isfinite(loss) else float(loss)
            try:
                if self.store.run(run_id).state == RunState.CANCELLED:
                    raise Cancelled
                self.store.update_run(run_id, phase=phase, step=step, steps=steps, loss=said, seconds_left=left)
            except StoreTrouble as problem:
                log.warning("run %s goes on untold: %s", run_id, problem)
                told = time.monotonic() + _TELL_AGAIN

        return report


def _goes_on(part: str, state: dict) -> str:
    """What a run says that finds how far an earlier one was, in this part of the training."""
    name, _, number = part.partition(".")
    network = f", network {int(number) + 1}," if number and name != "reward" else ""
    step = f" at step {state['step']}" if "step" in state else ""
    steps = f" of {state['steps']}" if "steps" in state else ""
    return f"Goes on with {_PARTS.get(name, name)}{network}{step}{steps}, where an interrupted run left off."


def _failed_in_a_row(ended: list[Run]) -> int:
    """How many of the newest runs failed before one that did not; one that was interrupted says neither."""
    ended = [run for run in ended if run.state != RunState.INTERRUPTED]
    return next((n for n, run in enumerate(ended) if run.state != RunState.FAILED), len(ended))


def work(store: Store, settings: Settings) -> int:
    """Run the trainer until it is told to end (SIGTERM or Ctrl-C).

    Raises:
        CoplError: another worker holds this installation.
    """
    stop = Event()
    with hold_worker_lock(settings):
        _set_threads(settings)
        trainer = Trainer(store, settings, stop)
        queue = make_queue(settings)
        queue.flush()  # messages only repeat what the database says, and it says it again below
        send = on_queue(queue, trainer.execute)
        trainer.recover()
        trainer.sweep()
        looker = Thread(target=_look, args=(trainer, send, stop), name="look", daemon=True)
        looker.start()
        consumer = queue.create_consumer(
            workers=1, periodic=False, max_delay=0.5, flush_locks=True, shutdown_timeout=_PATIENCE
        )
        hangup = signal.getsignal(signal.SIGHUP)
        consumer.start()
        _on_signals(stop, hangup)  # after start, which sets huey's own
        stop.wait()
        consumer.stop(graceful=True)  # the run in hand ends at its next step, or is found interrupted at the next start
        looker.join(timeout=5)
        store.heartbeat(os.getpid(), "stopped")
    return 0


def _look(trainer: Trainer, send: Callable[[int], object], stop: Event) -> None:
    """Every second: a sign of life, runs left behind, due runs, and a message for every queued run that has none."""
    sent: dict[int, float] = {}
    while not stop.is_set():
        try:
            trainer.store.heartbeat(os.getpid(), trainer.state)
            trainer.recover()
            trainer.ask_for_due_runs()
            for run in trainer.store.active_runs():
                if run.state == RunState.QUEUED and time.monotonic() - sent.get(run.id, -1e9) > 30:
                    send(run.id)
                    sent[run.id] = time.monotonic()
        except Exception:  # a locked database is no reason to stop looking
            log.warning("a look at the studies failed\n%s", traceback.format_exc())
        stop.wait(_LOOK_EVERY)


def _on_signals(stop: Event, hangup: object) -> None:
    """End on SIGTERM, Ctrl-C and a closed terminal, the last unless the starter ignores it (``nohup``)."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        ignored = number == signal.SIGHUP and hangup == signal.SIG_IGN
        signal.signal(number, signal.SIG_IGN if ignored else lambda *_: stop.set())


def _set_threads(settings: Settings) -> None:
    """Leave a core to the app unless told otherwise; oversubscribed threads make torch several times slower."""
    import torch

    torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 2) - 1))


@contextmanager
def hold_worker_lock(settings: Settings):
    """Be the one process that fits in this installation; the kernel lets the lock go when the process dies.

    Raises:
        CoplError: another worker holds it.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    path = settings.home / "worker.lock"
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            raise CoplError(
                f"A worker (process {stream.read().strip() or 'unknown'}) already serves {path.parent}; "
                "one is enough; stop it first or choose another COPL_HOME."
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
