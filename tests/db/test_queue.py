"""One queue for trainers in separate homes: each run once, versions unique, and a trainer that lost a run is silent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import text

from copl_core.config import Settings
from copl_core.records import LeaseLost, RunState, SnapshotRecord
from copl_core.snapshots.snapshot import on_disk
from copl_core.study import contents, runs
from copl_core.study.session import Session
from copl_core.study_settings import Schedule
from copl_core.trainer.run_log import SENTENCE, log_path, read_log
from copl_core.trainer.worker import Trainer
from db.engine import writing
from tests.trainer.conftest import quick_graphs  # noqa: F401
from tests.worlds import by_style, camp_labels, pairs_to_label

ROOT = Path(__file__).resolve().parents[2]
WAIT = 120  # seconds, on a busy machine


@pytest.fixture
def home_of(store, tmp_path) -> Callable[..., Session]:
    """Makes sessions of a study in homes of their own, as on machines that share nothing but the database."""

    def home_of(name: str, study_id: int, **settings) -> Session:
        return Session(store, Settings(home=tmp_path / name, **settings), study_id)

    return home_of


@pytest.fixture
def labelled(store) -> Callable[[str], int]:
    """Makes studies with enough labels for a graph."""

    def labelled(name: str) -> int:
        study = store.create_study(name)
        session = Session(store, Settings(), study.id)
        contents.import_rows(session, pairs_to_label(6))
        contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=5))
        return study.id

    return labelled


def trainer(session: Session, embed=by_style) -> Trainer:
    return Trainer(session.store, session.settings, embed=embed)


def logged(session: Session, run_id: int) -> str:
    return " ".join(line.get(SENTENCE, "") for line in read_log(log_path(session.settings.run_logs, run_id)))


def let_expire(store, run_id: int) -> None:
    """The time of the lease passes, and nobody renews it."""
    with writing(store.engine) as connection:
        connection.execute(
            text("update run set lease_until = :past where id = :run"),
            {"past": datetime(2020, 1, 1) if store.engine.dialect.name != "sqlite" else "2020-01-01 00:00:00.000000",
             "run": run_id},
        )  # fmt: skip


def wait_for(condition: Callable, why: str, process: subprocess.Popen | None = None):
    ends = time.monotonic() + WAIT
    while time.monotonic() < ends:
        if found := condition():
            return found
        assert process is None or process.poll() is None, "the trainer has ended"
        time.sleep(0.05)
    raise AssertionError(why)


# ---- leases in the store


def test_a_lease_is_renewed_by_who_holds_it_and_lost_for_good_once_it_was_given_up(store, study):
    run = store.claim_run(store.add_run(study.id, "graph", "").id, worker="a", seconds=60)
    assert (run.worker, run.token, run.state) == ("a", 1, RunState.RUNNING)
    assert store.left_behind() == [] and store.renew_lease(run.id, run.token, 60)
    assert not store.renew_lease(run.id, run.token + 1, 60)
    assert store.give_up_run(run.id, run.token, RunState.INTERRUPTED, "not yet") == []
    let_expire(store, run.id)
    assert [left.id for left in store.left_behind()] == [run.id]
    assert store.renew_lease(run.id, run.token, 60) and store.left_behind() == []  # late, and in time
    let_expire(store, run.id)
    (again,) = store.give_up_run(run.id, run.token, RunState.INTERRUPTED, "left behind")
    assert (again.retry_of, again.state, again.worker) == (run.id, RunState.QUEUED, None)
    assert not store.renew_lease(run.id, run.token, 60)
    assert store.give_up_run(run.id, run.token, RunState.INTERRUPTED, "left behind") == []
    assert store.claim_run(again.id, worker="b").token == 2


def test_nothing_is_written_of_a_run_that_is_not_held_any_more(store, study):
    run = store.claim_run(store.add_run(study.id, "graph", "").id, worker="a", seconds=-1)
    (again,) = store.give_up_run(run.id, run.token, RunState.INTERRUPTED, "left behind")
    before, record = store.run(run.id), SnapshotRecord("v0001", run.id, 1, 1, {}, datetime.now(UTC))
    for write in (
        lambda: store.update_run(run.id, step=3, token=run.token),
        lambda: store.take_turn(run.id, run.token),
        lambda: store.publish(study.id, record, run_id=run.id, token=run.token),
    ):
        with pytest.raises(LeaseLost, match=f"Run {run.id} was taken over by another trainer"):
            write()
    store.finish_run(run.id, RunState.FAILED, message="late", token=run.token)
    assert store.run(run.id) == before and store.snapshots(study.id) == [] and store.champion(study.id) is None
    assert store.run(again.id).state == RunState.QUEUED


def test_a_study_has_one_turn_and_a_graph_does_not_wait_for_a_reward_fit(store, study):
    full, graph = (store.claim_run(store.add_run(study.id, kind, "").id) for kind in ("full", "graph"))
    other = store.claim_run(store.add_run(store.create_study("Trees").id, "graph", "").id)
    assert store.take_turn(graph.id, graph.token)  # while the full run trains
    assert not store.take_turn(full.id, full.token) and store.take_turn(other.id, other.token)
    store.finish_run(graph.id, RunState.FAILED, token=graph.token)
    assert store.take_turn(full.id, full.token)


def test_the_second_graph_run_of_a_study_waits_and_one_of_another_study_does_not(store, study):
    first, second = (store.add_run(study.id, "graph", "") for _ in range(2))
    other = store.add_run(store.create_study("Trees").id, "graph", "")
    assert [run and run.id for run in (store.claim_run(), store.claim_run(), store.claim_run())] == [
        first.id,
        other.id,
        None,
    ]
    assert store.claim_run(second.id) is None
    store.finish_run(first.id, RunState.DONE)
    assert store.claim_run().id == second.id


def test_a_full_run_lets_older_graphs_of_its_study_alone_go_first(store, study):
    elsewhere = store.add_run(store.create_study("Trees").id, "graph", "")
    graph, full = (store.add_run(study.id, kind, "") for kind in ("graph", "full"))
    assert store.claim_run(kind="full", graphs_first=True) is None
    store.finish_run(graph.id, RunState.DONE)
    assert store.claim_run(kind="full", graphs_first=True).id == full.id
    assert store.run(elsewhere.id).state == RunState.QUEUED


def test_versions_count_on_from_those_of_earlier_installations_and_from_the_disk(store, study):
    for version in ("v0007", "v9", "of-mine"):
        store.publish(study.id, SnapshotRecord(version, None, 1, 1, {}, datetime.now(UTC)), run_id=None)
    assert store.next_version(study.id) == "v0010"
    assert store.next_version(study.id, after=41) == "v0042"
    assert store.next_version(study.id) == "v0043"  # although nothing was published


def test_an_answer_of_the_database_that_is_lost_does_not_undo_what_was_published(store, study):
    run = store.claim_run(store.add_run(study.id, "graph", "").id)
    record = SnapshotRecord("v0001", run.id, 1, 1, {}, datetime.now(UTC))
    assert store.publish(study.id, record, run_id=run.id, token=run.token)
    assert store.publish(study.id, record, run_id=run.id, token=run.token)  # the trainer tries again
    assert [one.version for one in store.snapshots(study.id)] == ["v0001"]


# ---- trainers in separate homes


def test_trainers_in_separate_homes_execute_each_run_once_and_give_no_version_twice(store, labelled, home_of, tmp_path):
    studies = [labelled(f"Study {n}") for n in range(2)]
    made = [store.add_run(study, "graph", f"run {n}").id for n in range(2) for study in studies]
    homes = [home_of(name, studies[0], storage=str(tmp_path / "storage")) for name in ("a", "b")]
    trainers, enough = [trainer(home) for home in homes], Event()

    def work(one: Trainer) -> None:
        while not enough.is_set():
            assert one.recover() == []  # the other one is alive
            one.execute_next("graph")

    threads = [Thread(target=work, args=(one,), daemon=True) for one in trainers]
    for thread in threads:
        thread.start()
    wait_for(lambda: not store.active_runs(), "runs are left")
    enough.set()
    for thread in threads:
        thread.join(WAIT)
    assert {store.run(run_id).state for run_id in made} == {RunState.DONE}
    for study in studies:
        assert [record.version for record in store.snapshots(study)] == ["v0002", "v0001"]
        assert len(store.runs(study)) == 2  # none was queued again
    assert {store.run(run_id).worker for run_id in made} <= {one.worker for one in trainers}


def test_a_trainer_that_lost_its_lease_publishes_nothing_and_says_so(store, labelled, home_of):
    study = labelled("Lost")
    mine, theirs = home_of("mine", study), home_of("theirs", study)
    taken: list = []

    def loses(texts, progress=None):
        let_expire(store, run.id)
        other = trainer(theirs)
        taken.extend(other.recover())
        assert other.execute_next("graph")
        return by_style(texts, progress)

    run = store.add_run(study, "graph", "a test")
    trainer(mine, loses).execute(run.id)
    (again,) = taken
    assert store.run(run.id).state == RunState.INTERRUPTED and store.run(again.id).state == RunState.DONE
    assert "was taken over by another trainer" in logged(mine, run.id)
    assert [record.run_id for record in store.snapshots(study)] == [again.id]
    assert on_disk(mine.snapshot_root) == set() and len(on_disk(theirs.snapshot_root)) == 1


def test_a_trainer_that_lost_its_lease_at_the_last_moment_removes_its_snapshot(store, labelled, home_of, monkeypatch):
    study = labelled("Late")
    mine, theirs = home_of("mine", study), home_of("theirs", study)
    run, one = store.add_run(study, "graph", "a test"), trainer(mine)
    record = one._record

    def too_late(*given):
        assert len(on_disk(mine.snapshot_root)) == 1
        let_expire(store, run.id)
        assert len(trainer(theirs).recover()) == 1
        return record(*given)

    monkeypatch.setattr(one, "_record", too_late)
    one.execute(run.id)
    assert store.snapshots(study) == [] and on_disk(mine.snapshot_root) == set()
    assert "was taken over by another trainer" in logged(mine, run.id)


def test_a_lease_is_renewed_in_a_phase_that_reports_nothing(store, labelled, home_of):
    study = labelled("Silent")
    mine, theirs = home_of("mine", study, lease_seconds=1.0), home_of("theirs", study)
    found: list = []

    def is_silent(texts, progress=None):
        claimed = store.run(run.id).started_at
        wait_for(lambda: store.clock() - claimed > timedelta(seconds=1.5), "time stands still")
        found.extend(trainer(theirs).recover())
        return by_style(texts, progress)

    run = store.add_run(study, "graph", "a test")
    trainer(mine, is_silent).execute(run.id)
    assert found == [] and store.run(run.id).state == RunState.DONE


def test_a_clock_that_is_a_year_ahead_changes_nothing(store, labelled, home_of, monkeypatch):
    study = labelled("Clock")
    store.set_schedule(study, Schedule(True, 1, 3600.0, 1, 3600.0))
    ahead, right = home_of("ahead", study), home_of("right", study)
    other = trainer(right)

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=365)

    def looks(texts, progress=None):
        found.extend(other.recover())
        return by_style(texts, progress)

    found: list = []
    with monkeypatch.context() as wrong:
        for module in ("db.transactions", "copl_core.trainer.worker", "copl_core.snapshots.snapshot"):
            wrong.setattr(f"{module}.datetime", Ahead)
        one = trainer(ahead, looks)
        one.ask_for_due_runs()
        one.execute_next("graph")
        one.ask_for_due_runs()  # less than an hour has passed
    (run,) = store.runs(study)
    assert found == [] and run.state == RunState.DONE and store.active_runs() == []
    for at in (run.created_at, run.started_at, run.ended_at, store.snapshots(study)[0].created_at):
        assert abs((store.clock() - at).total_seconds()) < WAIT
    store.heartbeat(one.worker, "here", ("graph",), "waiting")
    assert 0 <= store.trainers()[0].silent_seconds < WAIT


def test_a_trainer_executes_and_asks_for_the_kinds_that_it_offers(store, labelled, home_of):
    study = labelled("Kinds")
    only_full = home_of("full", study, kinds="full")
    trainer(only_full).ask_for_due_runs()
    assert store.active_runs() == []  # a graph is due
    trainer(home_of("graph", study, kinds="graph")).ask_for_due_runs()
    assert [run.kind for run in store.active_runs()] == ["graph"]


def test_snapshots_in_the_making_elsewhere_are_not_swept_away(store, labelled, home_of):
    study = labelled("Swept")
    shared = home_of("shared", study)
    (shared.snapshot_root / "v0007").mkdir(parents=True)
    run = store.claim_run(store.add_run(study, "graph", "").id, worker="elsewhere")
    trainer(shared).sweep()
    assert on_disk(shared.snapshot_root) == {"v0007"}
    store.finish_run(run.id, RunState.FAILED)
    trainer(shared).sweep()
    assert on_disk(shared.snapshot_root) == set()


def test_a_fit_in_a_terminal_that_finds_another_trainer_at_work_says_who_it_is(store, labelled, home_of):
    study = labelled("Terminal")
    run = store.claim_run(store.add_run(study, "graph", "").id, worker="elsewhere-1")
    with pytest.raises(Exception, match=f"run {run.id} .graph. by elsewhere-1"):
        runs.fit_now(home_of("mine", study), "graph")


# ---- processes


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
def test_the_run_of_a_process_that_is_killed_or_paused_is_taken_over(store, labelled, home_of, tmp_path, sign):
    study, url = labelled("Taken over"), store.engine.url.render_as_string(hide_password=False)
    theirs, mine = home_of("theirs", study), home_of("mine", study)
    run = store.add_run(study, "graph", "a test")
    theirs.settings.make_home()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.db.trainer_process", str(theirs.settings.home), url],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(lambda: store.run(run.id).phase == "texts", (tmp_path / "log").read_text(), process)
        assert trainer(mine).recover() == []
        process.send_signal(sign)
        (again,) = wait_for(lambda: trainer(mine).recover(), "nobody takes the run over")
        assert trainer(mine).execute_next("graph") and store.run(again.id).state == RunState.DONE
        if sign == signal.SIGSTOP:
            (theirs.settings.home / "go").touch()
            process.send_signal(signal.SIGCONT)
            assert process.wait(WAIT) == 0
            assert "was taken over by another trainer" in logged(theirs, run.id)
    finally:
        process.kill()
        process.wait()
    assert store.run(run.id).state == RunState.INTERRUPTED
    assert [record.run_id for record in store.snapshots(study)] == [again.id]
    assert on_disk(theirs.snapshot_root) == set() and on_disk(mine.snapshot_root) == {store.champion(study).version}
