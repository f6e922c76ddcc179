"""What a label carries, and editing it."""

from __future__ import annotations

import pytest

from copl_core.formats.own import read_rows, write_jsonl
from copl_core.records import Choice, CoplError, ImportRow, Progress


def test_a_label_carries_its_tags_and_the_guidelines_it_was_made_under(store, study, hand_out, four_pairs, ann):
    assert store.submit(hand_out(ann.id, four_pairs[0][0]).id, ann.id, Choice.LEFT).guidelines is None
    store.write_guidelines(study.id, "Be fair.")
    store.write_guidelines(study.id, "Be fair and quick.")
    newest = store.submit(
        hand_out(ann.id, four_pairs[1][0]).id, ann.id, Choice.LEFT, tags=["warmer", " clearer ", "warmer", ""]
    )
    assert (newest.guidelines, newest.tags) == (2, ("warmer", "clearer"))
    old_screen = store.submit(hand_out(ann.id, four_pairs[2][0]).id, ann.id, Choice.LEFT, guidelines=1)
    assert old_screen.guidelines == 1
    assert store.labels(study.id)[1:] == [newest, old_screen]


def test_tags_travel_with_a_file(store, study, hand_out, four_pairs, ann, tmp_path):
    store.submit(hand_out(ann.id, four_pairs[0][0]).id, ann.id, Choice.LEFT, tags=["warmer", "clearer"])
    write_jsonl(store.export(study.id), tmp_path / "labels.jsonl")
    elsewhere = store.create_study("Elsewhere")
    store.import_rows(elsewhere.id, read_rows(tmp_path / "labels.jsonl", []))
    assert [label.tags for label in store.labels(elsewhere.id)] == [("warmer", "clearer")]
    bad, problems = tmp_path / "bad.jsonl", []
    bad.write_text((tmp_path / "labels.jsonl").read_text().replace('["warmer", "clearer"]', '{"a": 7}'))
    [row] = read_rows(bad, problems)
    assert (row.tags, problems) == ((), [])  # the label counts without them


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"strength": 4}, "strength"),
        ({"strength": 0}, "strength"),
        ({"reason": "x" * 10_001}, "characters"),
        ({"tags": ["x" * 61]}, "tags"),
        ({"tags": [str(n) for n in range(21)]}, "tags"),
    ],
)
def test_what_cannot_be_kept_is_reported_and_the_task_stays_open(
    store, study, hand_out, four_pairs, ann, extra, message
):
    task = hand_out(ann.id, four_pairs[0][0])
    with pytest.raises(CoplError, match=message):
        store.submit(task.id, ann.id, Choice.LEFT, **extra)
    assert store.open_task(ann.id) == task and store.labels(study.id) == []


def test_a_tie_is_never_strong(store, hand_out, four_pairs, ann):
    assert store.submit(hand_out(ann.id, four_pairs[0][0]).id, ann.id, Choice.TIE, strength=3).strength == 1


def test_an_edited_label_is_superseded_and_its_successor_counts_in_its_place(
    store, study, answer, four_pairs, ann, ben
):
    old = answer(ann.id, four_pairs[0][0], Choice.LEFT)
    later = answer(ann.id, four_pairs[1][0], Choice.LEFT)
    new = store.edit(old.id, ann.id, Choice.RIGHT, strength=2, reason="on reflection", tags=["kinder"])
    assert (new.pair_id, new.left_id, new.choice, new.strength, new.reason, new.tags) == (
        old.pair_id,
        old.left_id,
        Choice.RIGHT,
        2,
        "on reflection",
        ("kinder",),
    )
    assert (new.created_at, new.task_id, new.selection_reason) == (old.created_at, old.task_id, "uniform")
    assert new.edited_at > old.created_at
    assert store.labels(study.id) == [new, later] and store.revision(study.id) == 3
    newest_first = store.history(ann.id)
    assert [(label.id, label.counts, label.successor_id) for label in newest_first] == [
        (later.id, True, None),
        (new.id, True, None),
        (old.id, False, new.id),
    ]
    assert store.progress(ann.id) == Progress(done=2, left=2, today=2)
    assert store.edit(new.id, ann.id, Choice.RIGHT, strength=2, reason="on reflection", tags=["kinder"]) == new
    assert store.revision(study.id) == 3  # nothing was changed
    for label_id, user in ((old.id, ann), (new.id, ben), (10**6, ann)):
        with pytest.raises(CoplError, match="not one of your answers"):
            store.edit(label_id, user.id, Choice.TIE)
    assert store.audit(study.id)[0].event == "edit" and store.audit(study.id)[0].user_id == ann.id


def test_undo_takes_the_last_answer_back_and_not_the_last_edit(store, study, answer, four_pairs, ann):
    old = answer(ann.id, four_pairs[0][0], Choice.LEFT)
    last = answer(ann.id, four_pairs[1][0], Choice.LEFT)
    edited = store.edit(old.id, ann.id, Choice.RIGHT)
    assert store.undo(ann.id).pair_id == last.pair_id
    assert store.labels(study.id) == [edited]
    assert store.undo(ann.id).pair_id == old.pair_id
    assert store.labels(study.id) == []


def test_a_label_of_a_file_can_be_edited_and_the_file_imported_again(store, study, ann):
    rows = [ImportRow(1, "Name a bird", "Robin", "Wren", Choice.LEFT, "Ann", key="k")]
    store.import_rows(study.id, rows)
    edited = store.edit(store.labels(study.id)[0].id, ann.id, Choice.TIE)
    assert store.import_rows(study.id, rows).labels_known == 1
    assert store.labels(study.id) == [edited]


def test_a_confirmed_label_is_stored_once_and_belongs_to_its_user(store, study, four_pairs, answer, ann, ben):
    first, second = (pair[0] for pair in four_pairs[:2])
    label, tie = answer(ann.id, first, Choice.RIGHT), answer(ann.id, second, Choice.TIE)
    revision = store.revision(study.id)
    assert store.settled_labels(study.id) == set() and label.confirmed_at is None
    with pytest.raises(CoplError, match="not one of your answers"):
        store.confirm(label.id, ben.id)
    confirmed = store.confirm(label.id, ann.id)
    assert confirmed.confirmed_at is not None and store.confirm(label.id, ann.id) == confirmed
    store.confirm(tie.id, ann.id)
    assert store.settled_labels(study.id) == {(ann.id, first, label.preferred_id)}
    assert store.revision(study.id) == revision
    assert [entry.event for entry in store.audit(study.id)][:2] == ["confirm", "confirm"]
    new = store.edit(label.id, ann.id, Choice.LEFT)
    assert new.confirmed_at is None and store.settled_labels(study.id) == {(ann.id, first, new.preferred_id)}
    with pytest.raises(CoplError, match="not one of your answers"):
        store.confirm(label.id, ann.id)
