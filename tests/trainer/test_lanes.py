"""Two lanes: graphs are refitted while experts train, and a rollback stays until new labels come."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest

from copl_core.preference.config import GraphConfig
from copl_core.records import CoplError, RunState, SnapshotRecord
from copl_core.snapshots.mix import Mix
from copl_core.study import contents, runs
from copl_core.study.session import Session
from copl_core.study_settings import Schedule
from copl_core.trainer import job
from copl_core.trainer.job import FittedReward
from copl_core.trainer.run_log import SENTENCE, log_path, read_log
from copl_core.trainer.run_progress import TOOK
from copl_core.trainer.service import execute_runs, look
from copl_core.trainer.worker import Trainer
from tests.trainer.conftest import QUICK_GRAPH, quick_three_people
from tests.worlds import by_style, camp_labels, fit_graph_now, trained, trainer

WAIT = 120  # seconds, on a busy machine
EAGER = Schedule(True, 1, 0.0, 1, 0.0)


@pytest.fixture
def session(tmp_path_factory, tmp_path) -> Session:
    """Three people, their labels and a first snapshot."""
    return trained(quick_three_people, tmp_path_factory, tmp_path / "home")


def more_labels(session: Session, seed: int = 1) -> None:
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=1, seed=seed))


class NoReward(FittedReward):
    """A reward part that holds the mix alone."""

    def save(self, folder: Path) -> None:
        (folder / "mix.json").write_text("{}")


class Experts:
    """Stands in for a reward model that trains until it may end."""

    def __init__(self, monkeypatch, *, wait: bool = True) -> None:
        self.began, self.end = Event(), Event()
        if not wait:
            self.end.set()
        monkeypatch.setattr(job, "fit_reward_part", self.fit)

    def fit(self, data, *, progress, **_) -> FittedReward:
        self.began.set()
        while not self.end.wait(0.02):
            progress("training reward", 1, 60, 0.5)
        length = {"steps": 31, "planned_steps": 60, "cut": True, "seconds": 240.0}
        tags = {"labels": 7, "weight": 0.9}
        entry = {"watermark": data.watermark, "metrics": {}, "config": {}, "gain": None, "fit": length, "tags": tags}
        return NoReward(entry, None, None, None, Mix(), QUICK_GRAPH)


def full_run(session: Session, one: Trainer) -> tuple[int, Thread]:
    run = session.store.add_run(session.id, "full", "a test")
    thread = Thread(target=one.execute, args=(run.id,), daemon=True)
    thread.start()
    return run.id, thread


def published(session: Session, run_id: int) -> SnapshotRecord:
    run = session.store.run(run_id)
    assert run.state == RunState.DONE, run.message
    return next(record for record in runs.snapshots(session) if record.version == run.snapshot)


def logged(session: Session, run_id: int) -> str:
    return " ".join(line.get(SENTENCE, "") for line in read_log(log_path(session.settings.run_logs, run_id)))


# ---- two lanes


def test_a_graph_is_refitted_while_experts_train_and_the_champion_never_goes_back(session, monkeypatch):
    experts, one = Experts(monkeypatch), trainer(session)
    full, thread = full_run(session, one)
    assert experts.began.wait(WAIT)
    more_labels(session)
    graph = session.store.add_run(session.id, "graph", "a test")
    one.execute(graph.id)
    assert session.store.run(full).state == RunState.RUNNING
    assert session.record.champion == published(session, graph.id).version == "v0002"
    assert session.snapshot().watermark == session.record.revision
    more_labels(session, seed=2)  # labels that the experts do not know, and the graph beside them does
    experts.end.set()
    thread.join(WAIT)
    last = published(session, full)
    assert session.record.champion == last.version == "v0003"
    assert last.watermark == session.record.revision > last.metrics["reward_watermark"]
    assert session.snapshot().manifest["reward"]["fitted_in"] == "v0003"


def test_both_runs_of_a_worker_are_its_own(session, monkeypatch):
    experts, stop = Experts(monkeypatch), Event()
    recovered: list = []

    def looks(texts, progress=None):
        recovered.extend(one.recover())
        recovered.append(one.state)
        return by_style(texts)

    one = Trainer(session.store, session.settings, stop, embed=looks)
    full, thread = full_run(session, one)
    assert experts.began.wait(WAIT)
    graph = session.store.add_run(session.id, "graph", "")
    one.execute(graph.id)
    assert recovered == [f"run {full} and run {graph.id}"]
    stop.set()
    thread.join(WAIT)
    (again,) = session.store.active_runs()
    assert (again.kind, again.retry_of) == ("full", full) and one.current_runs == set()


def test_a_worker_that_must_end_gives_up_every_run(session):
    one = trainer(session)
    for kind in ("graph", "full"):
        one._claim(session.store.add_run(session.id, kind, "").id)
    assert len(one.current_runs) == 2
    one.give_up_current_runs()
    assert sorted(run.kind for run in session.store.active_runs()) == ["full", "graph"]
    assert all(run.state == RunState.QUEUED for run in session.store.active_runs())


def test_a_graph_that_is_due_at_the_same_time_goes_first(session, monkeypatch):
    Experts(monkeypatch, wait=False)
    session.store.set_schedule(session.id, EAGER)
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=3, seed=1))
    one = trainer(session)
    one.ask_for_due_runs()
    one.ask_for_due_runs()
    graph, full = session.store.active_runs()
    assert (graph.kind, full.kind) == ("graph", "full")
    assert not one.execute_next("full") and one.execute_next("graph") and one.execute_next("full")
    assert published(session, graph.id).version == "v0002" and published(session, full.id).version == "v0003"


def test_each_lane_executes_its_own_kind(session, monkeypatch):
    Experts(monkeypatch, wait=False)
    one = trainer(session)
    made = [session.store.add_run(session.id, kind, "") for kind in ("full", "graph")]
    lanes = [Thread(target=execute_runs, args=(one, kind), daemon=True) for kind in ("graph", "full")]
    for lane in lanes:
        lane.start()
    for _ in range(WAIT * 10):
        if not session.store.active_runs():
            break
        one.stop.wait(0.1)
    one.stop.set()
    for lane in lanes:
        lane.join(WAIT)
    assert {session.store.run(run.id).state for run in made} == {RunState.DONE}
    assert sorted(record.version for record in runs.snapshots(session)) == ["v0001", "v0002", "v0003"]


@pytest.mark.parametrize("loop", [partial(execute_runs, kind="graph"), look])
def test_a_database_that_does_not_answer_costs_a_lane_a_sentence_and_not_its_life(session, caplog, monkeypatch, loop):
    one, database, tries = trainer(session), session.settings.home / "copl.db", []
    execute, is_lane = one.execute_next, loop is not look
    monkeypatch.setattr(one, "execute_next", lambda kind: tries.append(kind) or execute(kind))
    monkeypatch.setattr("copl_core.trainer.service.CLAIM_SECONDS", 0.01)
    monkeypatch.setattr("copl_core.trainer.duties.LOOK_SECONDS", 0.01)
    session.store.engine.dispose()
    aside = database.rename(database.with_suffix(".aside"))
    database.mkdir()
    thread = Thread(target=loop, args=(one,), daemon=True)
    thread.start()
    for _ in range(WAIT * 100):
        if len(tries) > 3 if is_lane else len(caplog.records) > 1:
            break
        one.stop.wait(0.01)
    assert thread.is_alive()
    one.stop.set()
    thread.join(WAIT)
    database.rmdir()
    aside.rename(database)
    lines = [record.getMessage() for record in caplog.records if record.name == "copl.worker"]
    assert lines and all("cannot be opened; its folder must exist" in line for line in lines)
    assert not any("Traceback" in line for line in lines) and (len(lines) == 1 or not is_lane)


def test_a_run_that_waits_for_its_turn_can_be_cancelled(session, monkeypatch):
    monkeypatch.setattr("copl_core.trainer.worker.CLAIM_SECONDS", 0.01)
    monkeypatch.setattr("copl_core.trainer.worker._REPORT_SECONDS", 0.0)
    one, run = trainer(session), session.store.add_run(session.id, "graph", "")
    with one._turn:
        thread = Thread(target=one.execute, args=(run.id,), daemon=True)
        thread.start()
        for _ in range(WAIT * 100):
            if session.store.run(run.id).phase.startswith("waiting"):
                break
            one.stop.wait(0.01)
        runs.cancel(session, run.id)
        thread.join(WAIT)
    assert session.store.run(run.id).state == RunState.CANCELLED and session.record.champion == "v0001"


def take_over(session: Session, run_id: int) -> None:
    """What another trainer does once the lease of a run has passed."""
    token = session.store.run(run_id).token
    assert session.store.renew_lease(run_id, token, -1)
    assert session.store.give_up_run(run_id, token, RunState.INTERRUPTED, "left behind")


@pytest.mark.parametrize(
    ("end", "state", "kept"),
    [
        (lambda session, one, run: one.stop.set(), RunState.INTERRUPTED, True),
        (lambda session, one, run: runs.cancel(session, run.id), RunState.CANCELLED, False),
        (lambda session, one, run: take_over(session, run.id), RunState.INTERRUPTED, True),
    ],
    ids=["the trainer stops", "it is cancelled", "another trainer has taken it over"],
)
def test_a_run_that_waits_for_the_turn_of_another_trainer_ends_as_it_would_elsewhere(
    session, monkeypatch, end, state, kept
):
    monkeypatch.setattr("copl_core.trainer.worker.CLAIM_SECONDS", 0.01)
    monkeypatch.setattr("copl_core.trainer.worker._REPORT_SECONDS", 0.0)
    store, one = session.store, trainer(session)
    elsewhere = store.claim_run(store.add_run(session.id, "graph", "").id, worker="elsewhere")
    assert store.take_turn(elsewhere.id, elsewhere.token)
    run = store.add_run(session.id, "full", "")
    Experts(monkeypatch, wait=False)
    cleared = []
    monkeypatch.setattr("copl_core.training.checkpoint.Checkpoint.clear", lambda states: cleared.append(states))
    thread = Thread(target=one.execute, args=(run.id,), daemon=True)
    thread.start()
    for _ in range(WAIT * 100):
        if store.run(run.id).phase.startswith("waiting"):
            break
        one.stop.wait(0.01)
    end(session, one, run)
    thread.join(WAIT)
    assert store.run(run.id).state == state and bool(cleared) != kept
    assert one._turn.acquire(timeout=0)  # nobody has it


# ---- a rollback


def test_a_rollback_stays_until_new_labels_come(session, monkeypatch):
    """Also to a snapshot without a reward model, with a schedule that waits for nothing."""
    Experts(monkeypatch, wait=False)
    session.store.set_schedule(session.id, EAGER)
    one = trainer(session)
    contents.import_rows(session, camp_labels(n_users=3, n_prompts=6, per_user=3, seed=1))
    one.execute(session.store.add_run(session.id, "full", "").id)
    assert session.record.champion == "v0002"
    runs.promote(session, "v0001")
    one.ask_for_due_runs()
    assert session.store.active_runs() == [] and runs.trainer_status(session).labels_since == 0
    more_labels(session, seed=2)
    one.ask_for_due_runs()
    assert {run.kind for run in session.store.active_runs()} == {"graph", "full"}
    assert one.execute_next("graph")
    assert session.record.champion == "v0003"


def test_a_run_that_was_queued_before_a_rollback_does_not_undo_it(session):
    fit_graph_now(session)
    run = session.store.add_run(session.id, "graph", "")

    def promotes(texts, progress=None):
        runs.promote(session, "v0001")
        return by_style(texts)

    Trainer(session.store, session.settings, embed=promotes).execute(run.id)
    assert published(session, run.id).version == "v0003" and session.record.champion == "v0001"
    assert "a person chose it" in logged(session, run.id)
    assert fit_graph_now(session) == "v0004" == session.record.champion  # requested after the rollback


def test_an_interrupted_run_does_not_undo_a_rollback_either(session):
    fit_graph_now(session)
    run = session.store.add_run(session.id, "graph", "")
    session.store.update_run(run.id, state=RunState.RUNNING)
    runs.promote(session, "v0001")
    one = trainer(session)
    (again,) = one.recover()
    one.execute(again.id)
    assert published(session, again.id) and session.record.champion == "v0001"


def test_people_alone_are_in_the_trail_of_champions(session):
    fit_graph_now(session)
    assert [entry for entry in session.store.audit(session.id) if entry.event == "champion"] == []
    runs.promote(session, "v0001")
    (entry,) = [entry for entry in session.store.audit(session.id) if entry.event == "champion"]
    assert entry.detail == {"before": "v0002", "after": "v0001"}


# ---- what a run leaves


def test_a_cut_fit_and_the_tags_that_it_read_are_in_the_log_and_in_the_snapshot(session, monkeypatch):
    Experts(monkeypatch, wait=False)
    run = session.store.add_run(session.id, "full", "")
    trainer(session).execute(run.id)
    record = published(session, run.id)
    assert runs.reward_length(record) == (31, 60, True)
    assert "cut after 31 of 60 steps" in logged(session, run.id) and "peak" in logged(session, run.id)
    assert "7 labels have tags" in logged(session, run.id) and "weigh 0.9 of it" in runs.tags_read(record)
    assert fit_graph_now(session)  # shares the reward model
    assert runs.reward_length(runs.snapshots(session)[0]) == (31, 60, True)
    assert runs.tags_read(runs.snapshots(session)[0]) == runs.tags_read(record)


def test_a_run_remembers_how_long_its_phases_took(session):
    run = runs.request_fit(session, "graph")
    trainer(session).execute(run.id)
    took = session.store.run(run.id).config[TOOK]
    assert {"texts", "graph", "map"} <= set(took) and all(seconds >= 0 for seconds in took.values())


def test_old_snapshots_leave_the_disk_and_their_rows_stay(session, monkeypatch):
    monkeypatch.setattr("copl_core.snapshots.snapshot.KEPT_NEWEST", 2)
    runs.write_note(session, "v0001", "Before the workshop.")
    for _ in range(4):
        fit_graph_now(session)
    assert [record.version for record in runs.snapshots(session)] == ["v0005", "v0004", "v0003", "v0002", "v0001"]
    assert runs.on_disk(session) == {"v0001", "v0004", "v0005"}
    with pytest.raises(CoplError, match="v0002 is not on this disk"):
        runs.promote(session, "v0002")
    runs.promote(session, "v0001")
    assert json.loads((session.snapshot_root / "v0001" / "manifest.json").read_text())["version"] == "v0001"


def test_a_graph_config_of_a_full_run_is_that_of_its_choice(session, monkeypatch):
    Experts(monkeypatch, wait=False)
    run = session.store.add_run(session.id, "full", "")
    trainer(session).execute(run.id)
    config = GraphConfig.of(published(session, run.id).metrics["config"]["graph"])
    assert config.architecture.members == QUICK_GRAPH.architecture.members
