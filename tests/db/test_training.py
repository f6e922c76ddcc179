from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, ImportRow, RunState, SnapshotRecord
from copl_core.study_settings import Schedule
from copl_core.tags import tag_key

CHOICES = list(Choice)


def snapshot(version: str, run_id: int | None = None) -> SnapshotRecord:
    return SnapshotRecord(version, run_id, 4, 2, {"accuracy": 0.75, "groups": [1, 2]}, datetime(2025, 3, 1, tzinfo=UTC))


def test_training_data_are_the_counting_labels_as_columns(store, study):
    rng = np.random.default_rng(0)
    store.import_rows(
        study.id,
        (
            ImportRow(
                n,
                f"prompt {n % 3}",
                f"a {n % 5}",
                f"b {n % 4}",
                CHOICES[rng.integers(4)],
                f"user {n % 7}",
                key=str(n),
                strength=int(rng.integers(1, 4)),
                tags=("clearer", f"tag {n}") if n % 5 == 0 else (),
            )
            for n in range(60)
        ),
    )
    idle = store.create_user(study.id, "No labels")
    data = store.training_data(study.id)
    assert data.watermark == store.revision(study.id) == 60
    assert data.user_ids.tolist() == [user.id for user in store.users(study.id)] and idle.id in data.user_ids
    assert dict(zip(data.response_ids.tolist(), data.responses, strict=True)) == {
        number: response.text for number, response in store.responses(data.response_ids.tolist()).items()
    }
    assert [(prompt, text) for prompt, text in data.texts()] == [
        (dict(store.prompts(study.id))[response.prompt_id], response.text)
        for response in store.responses(data.response_ids.tolist()).values()
    ]
    columns = data.labels
    outcome = {Choice.LEFT: 1.0, Choice.RIGHT: 0.0, Choice.TIE: 0.5, Choice.BOTH_BAD: 0.5}
    for row, label in enumerate(sorted(store.labels(study.id), key=lambda label: label.id)):
        assert data.user_ids[columns.user[row]] == label.user_id
        assert data.response_ids[columns.left[row]] == label.left_id
        assert data.response_ids[columns.right[row]] == label.right_id
        assert columns.outcome[row] == outcome[label.choice]
        assert columns.both_bad[row] == (label.choice is Choice.BOTH_BAD)
        assert columns.strength[row] == label.strength
        assert data.tags.between(row, row + 1).key.tolist() == [tag_key(tag) for tag in label.tags]
    tagged = np.unique(columns.user[data.tags.label])
    store.exclude(int(data.user_ids[tagged[0]]), True)
    left = store.training_data(study.id)
    assert len(np.unique(left.labels.user[left.tags.label])) == len(tagged) - 1, "tags go with their labels"


def test_an_empty_study_has_empty_training_data(store, study):
    data = store.training_data(study.id)
    assert (data.n_users, data.n_responses, len(data.labels), data.prompts, data.watermark) == (0, 0, 0, (), 0)
    assert data.tags is None


def test_a_run_lives_from_queued_to_done(store, study):
    run = store.add_run(study.id, "graph", "8 new labels")
    assert (run.state, run.kind, run.reason, run.started_at, run.config) == (
        RunState.QUEUED,
        "graph",
        "8 new labels",
        None,
        {"after_choice": 0},
    )
    assert store.active_runs() == [run] and store.study_of_run(run.id) == study.id
    store.update_run(
        run.id, state=RunState.RUNNING, phase="fit", step=3, steps=10, loss=0.5, seconds_left=2.5, config={"dim": 32}
    )
    running = store.run(run.id)
    assert (running.state, running.step, running.loss, running.config) == (RunState.RUNNING, 3, 0.5, {"dim": 32})
    store.update_run(run.id, state=RunState.RUNNING, step=4)
    assert store.run(run.id).started_at == running.started_at is not None
    store.finish_run(run.id, RunState.DONE, snapshot="v1")
    done = store.run(run.id)
    assert (done.state, done.snapshot, done.seconds_left) == (RunState.DONE, "v1", None)
    assert done.ended_at >= done.started_at and store.active_runs() == []


def test_the_first_end_of_a_run_stands(store, study):
    run = store.add_run(study.id, "full", "requested by hand")
    store.finish_run(run.id, RunState.CANCELLED, message="Cancelled by hand.")
    cancelled = store.run(run.id)
    store.update_run(run.id, state=RunState.RUNNING, phase="fit")
    store.finish_run(run.id, RunState.FAILED, message="late")
    with pytest.raises(CoplError, match="was cancelled"):
        store.publish(study.id, snapshot("v1", run.id), run_id=run.id)
    assert store.run(run.id) == cancelled
    assert (store.snapshots(study.id), store.champion(study.id)) == ([], None)


def test_an_interrupted_run_is_tried_again(store, study):
    run = store.add_run(study.id, "graph", "8 new labels")
    store.finish_run(run.id, RunState.INTERRUPTED, message="The worker ended.")
    retry = store.add_run(study.id, "graph", "interrupted", retry_of=run.id)
    assert retry.retry_of == run.id
    assert store.runs(study.id) == [retry, store.run(run.id)] and store.runs(study.id, limit=1) == [retry]


def test_runs_of_a_kind_are_found_behind_any_number_of_others(store, study):
    full = store.add_run(study.id, "full", "")
    for _ in range(3):
        store.add_run(study.id, "graph", "")
    assert store.runs(study.id, kind="full", limit=2) == [full]


def test_a_run_has_no_other_fields(store, study):
    run = store.add_run(study.id, "graph", "")
    with pytest.raises(TypeError, match="no changeable field speed"):
        store.update_run(run.id, speed=3)


def test_publishing_records_the_snapshot_makes_it_champion_and_ends_its_run(store, study):
    run = store.add_run(study.id, "graph", "")
    store.update_run(run.id, state=RunState.RUNNING)
    store.publish(study.id, snapshot("v1", run.id), run_id=run.id)
    assert store.champion(study.id) == snapshot("v1", run.id)
    assert (store.run(run.id).state, store.run(run.id).snapshot) == (RunState.DONE, "v1")
    assert store.study(study.id).champion == "v1"


def test_a_version_is_published_once_and_a_failure_changes_nothing(store, study):
    store.publish(study.id, snapshot("v1"), run_id=None)
    run = store.add_run(study.id, "graph", "")
    with pytest.raises(CoplError, match="exists already"):
        store.publish(study.id, snapshot("v1"), run_id=run.id)
    with pytest.raises(CoplError, match="no run"):
        store.publish(study.id, snapshot("v2"), run_id=99)
    assert store.snapshots(study.id) == [snapshot("v1")]
    assert store.run(run.id) == run


def test_an_older_snapshot_can_be_made_champion_again(store, study):
    owner = store.create_user(study.id, "Olga")
    for version in ("v1", "v2"):
        store.publish(study.id, snapshot(version), run_id=None)
    assert [record.version for record in store.snapshots(study.id)] == ["v2", "v1"]
    store.promote(study.id, "v1", by=owner.id)
    assert store.champion(study.id).version == "v1"
    assert store.audit(study.id)[0].detail == {"before": "v2", "after": "v1"}
    assert store.audit(study.id)[0].user_id == owner.id
    with pytest.raises(CoplError, match="no snapshot v9"):
        store.promote(study.id, "v9")
    with pytest.raises(CoplError, match="no snapshot v1"):
        store.promote(store.create_study("Trees").id, "v1")


def test_the_newest_watermarks_are_those_of_all_snapshots_whichever_is_champion(store, study):
    assert store.newest_watermarks(study.id) == (None, None)
    first = replace(snapshot("v1"), watermark=5, metrics={"reward_watermark": None})
    store.publish(study.id, first, run_id=None)
    assert store.newest_watermarks(study.id) == (5, None)
    for version, watermark, reward in (("v2", 9, 7), ("v3", 12, 7)):
        later = replace(snapshot(version), watermark=watermark, metrics={"reward_watermark": reward})
        store.publish(study.id, later, run_id=None)
    store.promote(study.id, "v1")
    assert store.newest_watermarks(study.id) == (12, 7)


def test_a_run_of_a_kind_is_claimed_before_older_ones_of_another(store, study):
    full, graph = (store.add_run(study.id, kind, "") for kind in ("full", "graph"))
    assert store.claim_run(kind="graph").id == graph.id and store.claim_run(kind="graph") is None
    assert store.claim_run().id == full.id


def test_a_note_is_kept_with_its_snapshot_and_leaves_a_trail(store, study):
    store.publish(study.id, snapshot("v1"), run_id=None)
    olga = store.create_user(study.id, "Olga")
    for text in ("Before the new guidelines.", "Before the new guidelines.", ""):
        store.write_note(study.id, "v1", text, by=olga.id)
        assert store.snapshots(study.id)[0].note == text == store.champion(study.id).note
    trail = [entry for entry in store.audit(study.id) if entry.event == "note"]
    assert [entry.user_id for entry in trail] == [olga.id] * 2  # the same words again are no change
    assert trail[-1].detail == {"snapshot": "v1", "before": "", "after": "Before the new guidelines."}
    with pytest.raises(CoplError, match="no snapshot v2"):
        store.write_note(study.id, "v2", "x")
    with pytest.raises(CoplError, match="4,000 are kept"):
        store.write_note(study.id, "v1", "x" * 4001)


def test_a_schedule_belongs_to_one_study_until_it_is_removed(store, study):
    other = store.create_study("Trees")
    chosen = Schedule(False, 3, 0.5, 70, 600.0)
    assert store.schedule(study.id) is None
    store.set_schedule(study.id, chosen)
    assert store.schedule(study.id) == chosen and store.schedule(other.id) is None
    store.set_schedule(study.id, None)
    assert store.schedule(study.id) is None
    assert [entry.event for entry in store.audit(study.id)] == ["schedule"] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"refit_labels": 0},
        {"reward_labels": 1.5},
        {"refit_seconds": -1.0},
        {"reward_seconds": 1e9},
        {"refit_seconds": float("nan")},
    ],
)
def test_a_schedule_out_of_its_range_is_refused(change):
    with pytest.raises(CoplError):
        Schedule(**change)


def test_the_figures_of_an_audit_join_the_metrics_of_a_snapshot_and_replace_earlier_ones(store, study):
    store.publish(study.id, snapshot("v0001"), run_id=None)
    store.write_audit(study.id, "v0001", {"rows": [1]})
    store.write_audit(study.id, "v0001", {"rows": [2]})
    assert store.champion(study.id).metrics == snapshot("v0001").metrics | {"audit": {"rows": [2]}}
    with pytest.raises(CoplError):
        store.write_audit(study.id, "v0002", {})


def test_processes_that_make_the_mark_of_a_storage_at_once_make_one(store):
    assert store.storage_mark() == ("", False)
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: store.storage_mark(make=True), range(4)))
    ((mark, left),) = made
    assert mark and not left
    assert store.storage_mark(left=True) == store.storage_mark(make=True) == (mark, True)
