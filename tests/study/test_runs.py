"""The verbs of the Training page: runs, snapshots and the trainer."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from copl_core.records import RUN_KINDS, CoplError, Role, RunState
from copl_core.study import access, contents, runs
from copl_core.trainer.worker_lock import STOPPED, hold_worker_lock
from tests.worlds import (
    SHORT,
    camp_labels,
    fit_graph_now,
    label_in_camp,
)


def test_a_fit_is_queued_once_and_only_where_there_is_something_to_fit(untrained):
    with pytest.raises(CoplError, match="0 labels and a fit needs 10"):
        runs.request_fit(untrained, "graph")
    with pytest.raises(CoplError, match="no run of kind 'deep'"):
        runs.request_fit(untrained, "deep")
    contents.import_rows(untrained, camp_labels(n_users=1, per_user=12))
    with pytest.raises(CoplError, match="reward model needs 20"):
        runs.request_fit(untrained, "full")
    run = runs.request_fit(untrained, "graph")
    assert runs.request_fit(untrained, "graph").id == run.id
    runs.cancel(untrained, run.id)
    assert runs.list_runs(untrained)[0].state == RunState.CANCELLED
    with pytest.raises(CoplError, match="only a queued or running one"):
        runs.cancel(untrained, run.id)
    assert runs.request_fit(untrained, "graph").id != run.id


def test_a_damaged_snapshot_is_not_promoted_and_the_champion_stays(trained):
    owner = access.join(trained, "Olga", Role.OWNER)
    fit_graph_now(trained)
    runs.promote(trained, "v0001", by=owner.id)
    path = trained.snapshot_root / "v0002" / "graph" / "graph.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit
    with pytest.raises(CoplError, match="v0002 is damaged .graph/graph.safetensors"):
        runs.promote(trained, "v0002")
    path.write_bytes(content[:100])
    with pytest.raises(CoplError, match="v0002 is damaged"):
        runs.promote(trained, "v0002")
    with pytest.raises(CoplError, match="v0009"):
        runs.promote(trained, "v0009")
    assert trained.record.champion == "v0001"
    path.write_bytes(content)
    runs.promote(trained, "v0002")
    assert trained.record.champion == "v0002"
    assert owner.id in {entry.user_id for entry in trained.store.audit(trained.id) if entry.event == "champion"}


def test_the_trainer_is_alive_while_its_process_sends_heartbeats(trained):
    assert not runs.trainer_status(trained).alive
    trained.store.heartbeat("a", "here", RUN_KINDS, "waiting for labels")
    status = runs.trainer_status(trained)
    assert status.alive and status.state == "waiting for labels" and status.run is None and status.labels_since == 0
    label_in_camp(trained, access.join(trained, "Ann").id, SHORT, 3)
    run = runs.request_fit(trained, "graph")
    status = runs.trainer_status(trained)
    assert (status.labels_since, status.labels_needed, status.waiting) == (3, trained.settings.refit_labels, 1)
    trained.store.update_run(run.id, state=RunState.RUNNING, started_at=datetime.now(UTC))
    status = runs.trainer_status(trained)
    assert status.run.id == run.id and status.waiting == 0


def test_a_trainer_elsewhere_is_alive_by_its_heartbeats_and_one_here_by_its_lock_too(trained):
    trained.store.heartbeat("elsewhere-1", "elsewhere", ("full",), "waiting for labels")
    assert runs.trainer_status(trained).alive
    assert [one.worker for one in runs.trainer_status(trained).trainers] == ["elsewhere-1"]
    trained.store.heartbeat("elsewhere-1", "elsewhere", ("full",), STOPPED)
    assert not runs.trainer_status(trained).alive
    with hold_worker_lock(trained.settings) as holder:
        trained.store.heartbeat(holder.worker, "here", RUN_KINDS, "waiting for labels")
        assert runs.trainer_status(trained).alive
        with pytest.raises(CoplError, match="already serves"), hold_worker_lock(trained.settings):
            pass
    assert not runs.trainer_status(trained).alive  # killed an instant ago: nobody holds its lock
    listed = runs.list_trainers(trained)
    assert [(one.worker, one.kinds, alive) for one, alive in listed] == [
        (holder.worker, ("graph", "full"), False),
        ("elsewhere-1", ("full",), False),
    ]


def test_a_trainer_that_has_been_silent_counts_as_dead_by_the_clock_of_the_database(trained):
    trained.store.heartbeat("elsewhere-1", "elsewhere", RUN_KINDS, "run 7")
    with trained.store.engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("update trainer set seen_at = datetime(seen_at, '-16 seconds') || '.000000'"))
    assert not runs.trainer_status(trained).alive
    trained.store.heartbeat("elsewhere-1", "elsewhere", RUN_KINDS, "run 7")
    assert runs.trainer_status(trained).alive


def test_what_is_recorded_of_a_snapshot_is_plain_json(trained):
    record = runs.snapshots(trained)[0]
    manifest = json.loads((trained.snapshot_root / "v0001" / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert manifest["watermark"] == record.watermark == trained.record.revision
    assert manifest["labels"] == record.n_labels == 160
    json.dumps(record.metrics, allow_nan=False)
    assert record.metrics["graph"]["n"] > 0 and record.metrics["reward_watermark"] is None
