"""The trainer: runs move from state to state, snapshots are published whole, and a kill loses the current run only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, RunState, StoreUnavailable
from copl_core.snapshots.snapshot import load_snapshot, verify
from copl_core.study import access, contents, labelling, runs
from copl_core.study.session import Session
from copl_core.trainer.run_log import SENTENCE, log_path, read_log
from copl_core.trainer.schedule import due
from copl_core.trainer.worker import _LEFT_BEHIND, _STOPPED, Trainer
from copl_core.trainer.worker_lock import hold_worker_lock
from db.store import SqlStore
from tests.trainer.conftest import quick_three_people
from tests.worlds import (
    by_style,
    camp_labels,
    fit_graph_now,
    open_study,
    pairs_to_label,
    three_people,
    trained,
    trainer,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def session(tmp_path) -> Session:
    return three_people(tmp_path)


@pytest.fixture
def fitted(tmp_path_factory, tmp_path) -> Session:
    """The same three people and a first snapshot."""
    return trained(quick_three_people, tmp_path_factory, tmp_path / "home")


def state_of(session: Session, run_id: int) -> RunState:
    return session.store.run(run_id).state


def versions_on_disk(session: Session) -> list[str]:
    return sorted(path.name for path in session.snapshot_root.iterdir()) if session.snapshot_root.is_dir() else []


# ---- a run


def test_a_run_publishes_a_snapshot_and_the_champion_moves_to_it(session):
    run = runs.request_fit(session, "graph", reason="a test")
    trainer(session).execute(run.id)
    done = session.store.run(run.id)
    assert (done.state, done.snapshot, done.message) == (RunState.DONE, "v0001", "")
    assert done.created_at <= done.started_at <= done.ended_at and done.step <= done.steps
    assert session.record.champion == "v0001"
    snapshot = session.snapshot()
    assert verify(snapshot) == [] and snapshot.watermark == session.record.revision
    assert snapshot.manifest["run"] == run.id and snapshot.manifest["kind"] == "graph" and not snapshot.has_reward
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=1, seed=1))
    assert fit_graph_now(session) == session.record.champion == "v0002"
    assert versions_on_disk(session) == ["v0001", "v0002"]


@pytest.mark.parametrize("state", [s for s in RunState if s != RunState.QUEUED])
def test_a_run_that_is_not_queued_is_left_alone(session, state):
    run = runs.request_fit(session, "graph")
    if state == RunState.RUNNING:
        session.store.update_run(run.id, state=state)
    else:
        session.store.finish_run(run.id, state, message="before")
    before = session.store.run(run.id)
    trainer(session).execute(run.id)
    assert session.store.run(run.id) == before and versions_on_disk(session) == []


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (RuntimeError("out of luck"), "RuntimeError: out of luck"),
        (CoplError("Fetch the weights first."), "Fetch the weights first."),
    ],
)
def test_a_failure_is_reported_and_the_champion_stays(fitted, problem, message):
    def fails(texts, progress=None):
        raise problem

    run = runs.request_fit(fitted, "graph")
    broken = Trainer(fitted.store, fitted.settings, embed=fails)
    broken.execute(run.id)
    failed = fitted.store.run(run.id)
    assert (failed.state, failed.message, failed.snapshot) == (RunState.FAILED, message, None)
    assert fitted.record.champion == "v0001" and versions_on_disk(fitted) == ["v0001"]
    assert broken.current_runs == set() and fitted.store.active_runs() == []


def test_too_few_labels_and_nothing_but_ties_are_reported_in_a_sentence(tmp_path):
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(12))
    ann = access.join(session, "Ann")
    for _ in range(11):
        labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.TIE)
    run = runs.request_fit(session, "graph")
    trainer(session).execute(run.id)
    assert "are ties" in session.store.run(run.id).message
    short = session.store.add_run(session.id, "full", "by hand")
    trainer(session).execute(short.id)
    assert "needs 20" in session.store.run(short.id).message


def test_a_cancelled_run_ends_at_its_next_step(session):
    run = runs.request_fit(session, "graph")

    def cancels(texts, progress=None):
        runs.cancel(session, run.id)
        return by_style(texts)

    Trainer(session.store, session.settings, embed=cancels).execute(run.id)
    assert state_of(session, run.id) == RunState.CANCELLED
    assert session.record.champion is None and versions_on_disk(session) == [] and session.store.active_runs() == []


class CancelledAtTheLastMoment(SqlStore):
    """Somebody cancels between the writing of the snapshot and its recording."""

    def publish(self, study_id, record, *, run_id, token=None):
        self.finish_run(run_id, RunState.CANCELLED, message="Cancelled by hand.")
        return super().publish(study_id, record, run_id=run_id, token=token)


def test_a_run_cancelled_while_it_publishes_publishes_nothing_and_leaves_nothing(fitted):
    run = runs.request_fit(fitted, "graph")
    Trainer(CancelledAtTheLastMoment(fitted.store.engine), fitted.settings, embed=by_style).execute(run.id)
    ended = fitted.store.run(run.id)
    assert (ended.state, ended.message) == (RunState.CANCELLED, "Cancelled by hand.")
    assert fitted.record.champion == "v0001" and versions_on_disk(fitted) == ["v0001"]


def test_a_worker_that_stops_queues_its_run_again(fitted):
    stop = Event()

    def stops(texts, progress=None):
        stop.set()
        progress(0, len(texts))

    run = runs.request_fit(fitted, "graph", reason="a test")
    Trainer(fitted.store, fitted.settings, stop, embed=stops).execute(run.id)
    assert state_of(fitted, run.id) == RunState.INTERRUPTED
    (again,) = fitted.store.active_runs()
    assert (again.state, again.retry_of, again.kind, again.reason) == (RunState.QUEUED, run.id, "graph", "a test")
    Trainer(fitted.store, fitted.settings, stop, embed=by_style).execute(again.id)
    assert state_of(fitted, again.id) == RunState.QUEUED  # a worker that stops starts no run
    trainer(fitted).execute(again.id)
    assert state_of(fitted, again.id) == RunState.DONE


def test_a_run_cancelled_while_the_worker_ends_is_not_queued_again(session):
    stop = Event()
    run = runs.request_fit(session, "graph")

    def both(texts, progress=None):
        runs.cancel(session, run.id)
        stop.set()
        progress(0, len(texts))

    Trainer(session.store, session.settings, stop, embed=both).execute(run.id)
    assert state_of(session, run.id) == RunState.CANCELLED and session.store.active_runs() == []


def test_a_fit_stopped_in_the_terminal_is_cancelled(session):
    def interrupted(texts, progress=None):
        raise KeyboardInterrupt

    run = runs.request_fit(session, "graph")
    with pytest.raises(KeyboardInterrupt):
        Trainer(session.store, session.settings, embed=interrupted).execute(run.id)
    assert state_of(session, run.id) == RunState.CANCELLED


def test_progress_is_reported_in_numbers_that_every_database_keeps(session):
    run = runs.request_fit(session, "graph")
    seen = []

    def watched(texts, progress=None):
        progress(3, 10)
        seen.append(session.store.run(run.id))
        return by_style(texts)

    one = Trainer(session.store, session.settings, embed=watched)
    one.execute(run.id)
    assert (seen[0].state, seen[0].phase, seen[0].steps) == (RunState.RUNNING, "texts", 12)
    other = one._claim(session.store.add_run(session.id, "graph", "").id)
    one._reporter(other)("reading", np.int64(1), np.int64(2), float("nan"))
    assert session.store.run(other.id).loss is None
    one._reporter(other)("graph", 1, 2, np.float32(0.5))
    reported = session.store.run(other.id)
    assert (reported.phase, reported.step, reported.steps, reported.loss) == ("graph", 1, 2, 0.5)


# ---- what was there before


def test_a_damaged_champion_is_neither_started_from_nor_handed_on(fitted):
    path = fitted.snapshot_root / "v0001" / "graph" / "graph.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fit_graph_now(fitted) == "v0002"
    assert verify(load_snapshot(fitted.snapshot_root, "v0002")) == []
    message = runs.list_runs(fitted)[0].message
    assert message.startswith("Trained from nothing, since the champion v0001 is damaged: graph/graph")
    assert fit_graph_now(fitted) == "v0003" and runs.list_runs(fitted)[0].message == ""


def test_the_version_of_a_snapshot_whose_folder_is_gone_is_not_given_again(fitted):
    for path in sorted(fitted.snapshot_root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert trainer(fitted)._next_version(fitted.id) == "v0002"


def test_a_run_left_running_is_interrupted_and_queued_again_once(session):
    run = runs.request_fit(session, "graph", reason="a test")
    session.store.update_run(run.id, state=RunState.RUNNING)
    one = trainer(session)
    (again,) = one.recover()
    assert one.recover() == []
    left = session.store.run(run.id)
    assert left.state == RunState.INTERRUPTED and "left behind" in left.message and left.ended_at is not None
    assert (again.retry_of, again.kind, again.reason) == (run.id, "graph", "a test")
    assert [active.id for active in session.store.active_runs()] == [again.id]


def test_a_kill_between_the_two_steps_of_recovery_neither_loses_nor_doubles_the_run(session):
    run = runs.request_fit(session, "graph")
    session.store.update_run(run.id, state=RunState.RUNNING)
    again = session.store.add_run(session.id, run.kind, run.reason, retry_of=run.id)  # and then the kill
    assert [one.id for one in trainer(session).recover()] == [again.id]
    assert state_of(session, run.id) == RunState.INTERRUPTED
    assert [active.id for active in session.store.active_runs()] == [again.id]


def test_a_run_that_kills_the_worker_every_time_is_given_up(session):
    runs.request_fit(session, "graph")
    tries = 0
    while session.store.active_runs() and tries < 20:
        tries += 1
        session.store.update_run(session.store.active_runs()[0].id, state=RunState.RUNNING)
        trainer(session).recover()
    last = runs.list_runs(session)[0]
    assert tries == 5 and last.state == RunState.FAILED and "not queued again" in last.message


class LosesTheLastWord(SqlStore):
    """A database that cannot be written at the moment a run ends."""

    def finish_run(self, run_id, state, *, message="", snapshot=None, token=None):
        raise CoplError("The disk is full.")


def test_a_run_whose_end_could_not_be_written_does_not_block_the_study(session):
    def fails(texts, progress=None):
        raise RuntimeError("out of luck")

    run = runs.request_fit(session, "graph")
    unlucky = Trainer(LosesTheLastWord(session.store.engine), session.settings, embed=fails)
    with pytest.raises(CoplError, match="disk is full"):
        unlucky.execute(run.id)
    assert state_of(session, run.id) == RunState.RUNNING
    unlucky.store = session.store  # there is room again
    assert len(unlucky.recover()) == 1 and state_of(session, run.id) == RunState.INTERRUPTED


def test_the_current_run_is_not_taken_for_one_left_behind(fitted):
    def looks(texts, progress=None):
        recovered.extend(one.recover())
        return by_style(texts)

    recovered: list = []
    one = Trainer(fitted.store, fitted.settings, embed=looks)
    run = runs.request_fit(fitted, "graph")
    one.execute(run.id)
    assert recovered == [] and state_of(fitted, run.id) == RunState.DONE


# ---- looking for work


def test_a_due_run_is_queued_once(session):
    one = trainer(session)
    one.ask_for_due_runs()
    one.ask_for_due_runs()
    (run,) = session.store.active_runs()
    assert (run.kind, run.reason) == ("graph", "first snapshot of the study")
    one.execute(run.id)
    one.ask_for_due_runs()
    assert session.store.active_runs() == []


def test_runs_that_fail_come_further_and_further_apart(fitted):
    def fails(texts, progress=None):
        raise RuntimeError("out of luck")

    one = Trainer(fitted.store, fitted.settings, embed=fails)
    for failures in range(1, 4):
        one.execute(fitted.store.add_run(fitted.id, "graph", "").id)
        assert one._situation(fitted.id).failed_graph == failures
    assert one._situation(fitted.id).failed_reward == 0
    fitted.store.finish_run(fitted.store.add_run(fitted.id, "graph", "").id, RunState.INTERRUPTED)
    assert one._situation(fitted.id).failed_graph == 3  # neither a failure nor a success
    contents.import_rows(fitted, camp_labels(n_users=3, n_prompts=6, per_user=1, seed=1))
    soon = replace(fitted.settings.schedule, refit_labels=1, refit_seconds=40.0)
    situation, ended = one._situation(fitted.id), runs.list_runs(fitted)[0].ended_at
    assert due(situation, soon, ended + timedelta(seconds=319)) == {}  # eight times the wait
    assert list(due(situation, soon, ended + timedelta(seconds=321))) == ["graph"]
    fit_graph_now(fitted)
    assert one._situation(fitted.id).failed_graph == 0


def test_a_reward_model_that_failed_is_remembered_behind_any_number_of_graphs(fitted):
    one = trainer(fitted)
    failed = fitted.store.add_run(fitted.id, "full", "")
    fitted.store.finish_run(failed.id, RunState.FAILED)
    for _ in range(101):
        fitted.store.finish_run(fitted.store.add_run(fitted.id, "graph", "").id, RunState.DONE)
    situation = one._situation(fitted.id)
    assert situation.failed_reward == 1 and situation.last_reward == fitted.store.run(failed.id).ended_at


# ---- a database that fails


class Fails(SqlStore):
    """A store whose given verb fails the first so many times, as a busy database does."""

    def __init__(self, engine, verb: str, times: int) -> None:
        super().__init__(engine)
        self.verb, self.times = verb, times

    def __getattribute__(self, name: str):
        if name == object.__getattribute__(self, "__dict__").get("verb") and self.times > 0:
            self.times -= 1
            raise StoreUnavailable("The database was busy for 30 seconds; try again. Nothing was saved.")
        return super().__getattribute__(name)


@pytest.mark.parametrize("verb", ["run", "update_run", "publish"])
def test_a_database_that_is_busy_for_a_while_costs_no_training(session, verb, monkeypatch):
    monkeypatch.setattr("copl_core.trainer.worker._PUBLISH_RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("copl_core.trainer.worker._REPORT_SECONDS", 0.0)
    monkeypatch.setattr("copl_core.trainer.worker._REPORT_RETRY_SECONDS", 0.0)
    one, run = trainer(session), runs.request_fit(session, "graph")
    report = one._reporter

    def from_here_on_it_fails(*given):
        one.store = Fails(session.store.engine, verb, 2)
        return report(*given)

    one._reporter = from_here_on_it_fails
    one.execute(run.id)
    assert one.store.times == 0  # it did fail
    assert state_of(session, run.id) == RunState.DONE and session.record.champion == "v0001"


def test_a_snapshot_that_is_recorded_although_the_answer_was_lost_stays_the_champion(session, monkeypatch):
    monkeypatch.setattr("copl_core.trainer.worker._PUBLISH_RETRY_SECONDS", ())
    one, run = trainer(session), runs.request_fit(session, "graph")
    home, publish = session.settings.home, session.store.publish

    def record_and_go_away(*given, **named):
        publish(*given, **named)
        session.store.engine.dispose()
        (home / "copl.db").rename(home / "aside.db")
        (home / "copl.db").mkdir()
        raise StoreUnavailable("The database server does not answer.")

    monkeypatch.setattr(session.store, "publish", record_and_go_away)
    one.execute(run.id)
    (home / "copl.db").rmdir()
    (home / "aside.db").rename(home / "copl.db")
    assert one.recover() == [] and state_of(session, run.id) == RunState.DONE
    assert session.record.champion == "v0001" and versions_on_disk(session) == ["v0001"]
    assert verify(session.snapshot()) == []


def test_a_snapshot_that_cannot_be_recorded_waits_for_the_next_try_with_what_was_trained(session, monkeypatch):
    monkeypatch.setattr("copl_core.trainer.worker._PUBLISH_RETRY_SECONDS", (0.0, 0.0))
    one, run = trainer(session), runs.request_fit(session, "graph")
    one.store = Fails(session.store.engine, "publish", 3)
    one.execute(run.id)
    assert state_of(session, run.id) == RunState.RUNNING and versions_on_disk(session) == []
    assert list((session.settings.cache / "training" / f"{session.id}-graph").glob("graph.*"))
    (again,) = one.recover()
    one.execute(again.id)
    assert state_of(session, again.id) == RunState.DONE
    assert versions_on_disk(session) == ["v0002"]  # the first version was never recorded, and is not given again
    sentences = [line.get(SENTENCE, "") for line in read_log(log_path(session.settings.run_logs, again.id))]
    assert any("Resumes the graph" in sentence for sentence in sentences)


def test_stops_on_request_are_no_failed_attempts(session):
    one, run = trainer(session), runs.request_fit(session, "graph")
    for message in [_LEFT_BEHIND] * 3 + [_STOPPED] + [_LEFT_BEHIND] * 3:
        session.store.finish_run(run.id, RunState.INTERRUPTED, message=message)
        run = session.store.add_run(session.id, "graph", "", retry_of=run.id)
    assert one._attempts(run) == 4


# ---- the queue


def test_the_oldest_queued_run_is_executed_first_and_none_twice(fitted):
    one, other = trainer(fitted), trainer(fitted)
    first, second = (fitted.store.add_run(fitted.id, "graph", "") for _ in range(2))
    assert one.execute_next()
    assert (state_of(fitted, first.id), state_of(fitted, second.id)) == (RunState.DONE, RunState.QUEUED)
    one.execute(first.id)  # a run that is done is left alone
    assert other.execute_next() and not one.execute_next()
    assert state_of(fitted, second.id) == RunState.DONE and versions_on_disk(fitted) == ["v0001", "v0002", "v0003"]


def test_a_worker_recovers_no_run_between_its_claim_and_its_start(session):
    run, one, recovered = runs.request_fit(session, "graph"), trainer(session), []
    claim = session.store.claim_run

    def looks_meanwhile(run_id=None, **which):
        claimed = claim(run_id, **which)
        look = Thread(target=lambda: recovered.extend(one.recover()))
        look.start()
        look.join(timeout=0.2)  # it waits until the claim is complete
        assert look.is_alive()
        return claimed

    session.store.claim_run = looks_meanwhile
    assert one.execute_next()
    assert recovered == [] and state_of(session, run.id) == RunState.DONE


def test_a_run_that_reaches_no_next_step_is_queued_again_when_the_worker_stops(session):
    one, run = trainer(session), runs.request_fit(session, "graph")
    one._claim(run.id)
    one.give_up_current_runs()
    stopped, (again,) = session.store.run(run.id), session.store.active_runs()
    assert (stopped.state, stopped.message) == (RunState.INTERRUPTED, _STOPPED)
    assert again.retry_of == run.id and one._attempts(again) == 1
    one.current_runs.clear()
    one.give_up_current_runs()
    assert [active.id for active in session.store.active_runs()] == [again.id]


def test_the_queue_of_an_older_installation_is_ignored(fitted):
    (fitted.settings.home / "queue.db").write_bytes(b"no database")
    assert not trainer(fitted).execute_next()
    assert fit_graph_now(fitted) == "v0002"


# ---- processes


def test_one_worker_serves_an_installation(session):
    with hold_worker_lock(session.settings):
        with pytest.raises(CoplError, match=f"process {os.getpid()}"), hold_worker_lock(session.settings):
            pass
        ended = subprocess.run(
            [sys.executable, "-m", "copl_core", "worker"],
            env=environment(session),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ended.returncode == 1 and "already serves" in ended.stderr and "Traceback" not in ended.stderr
    with hold_worker_lock(session.settings):
        pass  # free again


def environment(session: Session) -> dict[str, str]:
    return {**os.environ, "COPL_HOME": str(session.settings.home), "OMP_NUM_THREADS": "1"}


@contextmanager
def worker_process(session: Session):
    """A worker process, killed at the end if it still runs."""
    with (session.settings.home / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "copl_core", "worker"], env=environment(session), cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for(condition, process: subprocess.Popen, log: Path, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.05)
    raise AssertionError(f"the condition did not hold within {seconds} s\n{log.read_text()[-3000:]}")


class Reader(Thread):
    """Opens the champion repeatedly and verifies every byte of it."""

    def __init__(self, session: Session) -> None:
        super().__init__(daemon=True)
        self.study, self.seen, self.problems, self.enough = session, set(), [], Event()

    def run(self) -> None:
        while not self.enough.is_set():
            try:
                snapshot = load_snapshot(self.study.snapshot_root, self.study.record.champion)
                self.problems += verify(snapshot)
                self.seen.add(snapshot.version)
            except Exception as problem:  # any problem at all is a finding
                self.problems.append(repr(problem))
            self.enough.wait(0.1)


@pytest.mark.weights
def test_a_worker_killed_in_the_middle_of_a_fit_loses_that_run_and_nothing_else(fitted, minilm):
    (fitted.settings.home / "weights").mkdir()
    (fitted.settings.home / "weights" / "minilm").symlink_to(minilm, target_is_directory=True)
    contents.import_rows(fitted, pairs_to_label(20, start=100))  # their texts take seconds, so the fit has a middle
    log = fitted.settings.home / "worker.log"
    run = runs.request_fit(fitted, "graph", reason="the one that is killed")
    ann = access.join(fitted, "Ann")
    reader = Reader(fitted)
    reader.start()

    with worker_process(fitted) as worker:
        wait_for(lambda: (now := fitted.store.run(run.id)).phase in ("texts", "graph") and now.step > 0, worker, log)
        labelling.submit(fitted, labelling.next_task(fitted, ann.id).id, ann.id, Choice.LEFT)  # people go on labelling
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    labels = fitted.store.labels(fitted.id)
    assert state_of(fitted, run.id) == RunState.RUNNING and fitted.record.champion == "v0001"
    assert not runs.trainer_status(fitted).alive
    (fitted.snapshot_root / f".writing-v0002-{worker.pid}" / "graph").mkdir(parents=True)  # killed while writing
    (fitted.snapshot_root / "v0002").mkdir()  # killed between writing and recording

    with worker_process(fitted) as worker:
        wait_for(lambda: fitted.record.champion != "v0001", worker, log)
        assert runs.trainer_status(fitted).alive
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
    reader.enough.set()
    reader.join()

    again = next(one for one in runs.list_runs(fitted) if one.retry_of == run.id)
    assert state_of(fitted, run.id) == RunState.INTERRUPTED
    assert (again.state, again.snapshot, again.reason) == (RunState.DONE, fitted.record.champion, run.reason)
    assert fitted.store.labels(fitted.id) == labels and len(labels) == 16
    assert reader.problems == [] and reader.seen == {"v0001", fitted.record.champion}
    assert fitted.snapshot().watermark == fitted.record.revision  # the label given in the meantime is in it
    assert versions_on_disk(fitted) == ["v0001", fitted.record.champion]
    assert runs.trainer_status(fitted).state == "stopped" and datetime.now(UTC) > runs.trainer_status(fitted).seen_at
