from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from copl_core.records import Choice, CoplError, ImportRow, Kind, Progress
from copl_core.study_settings import AssignmentSettings


def everything(store, study):
    return (
        store.labels(study.id),
        store.revision(study.id),
        [(store.open_task(user.id), store.progress(user.id)) for user in store.users(study.id)],
    )


def test_a_task_shows_its_pair_on_the_sides_asked_for(store, hand_out, four_pairs, ann):
    pair = store.pair(four_pairs[1][0])
    task = hand_out(ann.id, pair.id, swap=True, reason="informative")
    assert (task.left, task.right) == (pair.second, pair.first)
    assert (task.prompt, task.pair_id, task.user_id, task.reason) == (pair.prompt, pair.id, ann.id, "informative")
    assert store.open_task(ann.id) == task


def test_an_answer_stores_the_label_closes_the_task_and_moves_the_revision(store, study, hand_out, four_pairs, ann):
    task = hand_out(ann.id, four_pairs[0][0])
    label = store.submit(task.id, ann.id, Choice.RIGHT, strength=3, reason="kinder", milliseconds=1234)
    assert (label.task_id, label.user_id, label.pair_id) == (task.id, ann.id, task.pair_id)
    assert (label.left_id, label.right_id, label.preferred_id) == (task.left.id, task.right.id, task.right.id)
    assert (label.strength, label.reason, label.milliseconds) == (3, "kinder", 1234)
    assert abs(datetime.now(UTC) - label.created_at) < timedelta(minutes=1)
    assert store.labels(study.id) == store.labels(study.id, user_id=ann.id) == [label]
    assert store.labels(study.id, pair_id=four_pairs[1][0]) == []
    assert store.open_task(ann.id) is None
    assert (store.revision(study.id), store.revisions_since(study.id, 0), store.label_count(study.id)) == (1, 1, 1)


def test_a_user_with_an_open_task_gets_that_one_again(store, hand_out, four_pairs, ann, ben):
    task = hand_out(ann.id, four_pairs[0][0])
    assert hand_out(ann.id, four_pairs[1][0], swap=True) == task
    assert hand_out(ben.id, four_pairs[0][0]).id != task.id  # people may judge the same pair at the same time


def test_a_stale_answer_changes_nothing(store, study, hand_out, four_pairs, ann, ben):
    task = hand_out(ann.id, four_pairs[0][0])
    open_task = everything(store, study)
    assert store.submit(task.id, ben.id, Choice.LEFT) is None  # somebody else's
    assert store.submit(task.id + 1, ann.id, Choice.LEFT) is None  # no such task
    assert everything(store, study) == open_task
    store.submit(task.id, ann.id, Choice.LEFT)
    answered = everything(store, study)
    assert store.submit(task.id, ann.id, Choice.RIGHT) is None  # answered already
    assert everything(store, study) == answered


def test_an_answer_that_cannot_be_leaves_the_task_open(store, study, hand_out, four_pairs, ann):
    task = hand_out(ann.id, four_pairs[0][0])
    before = everything(store, study)
    with pytest.raises(ValueError):
        store.submit(task.id, ann.id, "neither")
    with pytest.raises(CoplError, match="strength"):
        store.submit(task.id, ann.id, Choice.LEFT, strength=0)
    assert everything(store, study) == before


def test_an_expired_task_goes_back_but_may_still_be_answered_by_who_saw_it(store, study, hand_out, four_pairs, ann):
    task = hand_out(ann.id, four_pairs[0][0], minutes=-1)
    assert store.open_task(ann.id) is None
    assert four_pairs[0] in store.available_pairs(ann.id).pairs
    assert store.submit(task.id, ann.id, Choice.LEFT).pair_id == task.pair_id


def test_an_expired_task_whose_place_was_given_away_is_stale(store, study, hand_out, four_pairs, ann, ben):
    store.set_assignment(study.id, AssignmentSettings(overlap=1))
    task = hand_out(ann.id, four_pairs[0][0], minutes=-1)
    hand_out(ben.id, four_pairs[0][0])
    assert store.submit(task.id, ann.id, Choice.LEFT) is None
    assert store.label_count(study.id) == 0


def test_an_expired_task_is_stale_once_its_user_has_another(store, hand_out, four_pairs, ann):
    task = hand_out(ann.id, four_pairs[0][0], minutes=-1)
    new = hand_out(ann.id, four_pairs[1][0])
    assert new.id != task.id
    assert store.submit(task.id, ann.id, Choice.LEFT) is None
    assert store.open_task(ann.id) == new


def test_a_pair_of_another_study_is_not_handed_out(store, hand_out, four_pairs):
    outsider = store.create_user(store.create_study("Trees").id, "Eve")
    with pytest.raises(CoplError, match="not in the study"):
        hand_out(outsider.id, four_pairs[0][0])


def test_pairs_left_are_those_without_label_or_open_task_of_the_user(store, hand_out, answer, four_pairs, ann, ben):
    assert store.available_pairs(ann.id).pairs == four_pairs
    answer(ann.id, four_pairs[2][0], Choice.TIE)
    hand_out(ann.id, four_pairs[0][0])
    assert store.available_pairs(ann.id).pairs == [four_pairs[1], four_pairs[3]]
    assert store.available_pairs(ben.id).pairs == four_pairs
    assert store.progress(ann.id) == Progress(done=1, left=3, today=1)


def test_a_pair_may_be_answered_again_and_both_labels_count(store, study, answer, four_pairs, ann):
    first = answer(ann.id, four_pairs[0][0], Choice.LEFT)
    again = answer(ann.id, four_pairs[0][0], Choice.RIGHT, swap=True, reason="repeat")
    assert first.preferred_id == again.preferred_id
    assert store.labels(study.id, pair_id=four_pairs[0][0]) == [first, again]
    assert store.progress(ann.id) == Progress(done=2, left=3, today=2)


def test_a_pair_labelled_meanwhile_is_not_asked_again_by_accident(store, hand_out, answer, four_pairs, ann, ben):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    assert hand_out(ann.id, four_pairs[0][0], reason="informative") is None
    assert store.open_task(ann.id) is None
    assert hand_out(ben.id, four_pairs[0][0]) is not None
    assert hand_out(ann.id, four_pairs[0][0], reason="repeat") is not None


def test_undo_takes_the_last_label_back_and_shows_its_pair_as_before(store, study, hand_out, answer, four_pairs, ann):
    kept = answer(ann.id, four_pairs[0][0], Choice.LEFT)
    undone = answer(ann.id, four_pairs[1][0], Choice.LEFT, swap=True, reason="informative")
    hand_out(ann.id, four_pairs[2][0])
    again = store.undo(ann.id)
    assert (again.pair_id, again.left.id, again.right.id) == (undone.pair_id, undone.left_id, undone.right_id)
    assert again.reason == "informative"
    assert store.open_task(ann.id) == again  # and the task that was open is withdrawn
    assert store.labels(study.id) == [kept]
    assert (store.revision(study.id), store.revisions_since(study.id, 2)) == (3, 1)
    assert store.submit(undone.task_id, ann.id, Choice.LEFT) is None  # the old screen
    better = store.submit(again.id, ann.id, Choice.RIGHT)
    assert store.labels(study.id) == [kept, better]
    assert [(entry.event, entry.user_id) for entry in store.audit(study.id)][:1] == [("undo", ann.id)]


def test_undo_goes_back_step_by_step_and_ends(store, study, answer, four_pairs, ann, ben):
    others = answer(ben.id, four_pairs[0][0], Choice.LEFT)
    labels = [answer(ann.id, pair_id, Choice.LEFT) for pair_id, _, _ in four_pairs[:3]]
    assert [store.undo(ann.id).pair_id for _ in labels] == [label.pair_id for label in reversed(labels)]
    before = everything(store, study)
    assert store.undo(ann.id) is None
    assert everything(store, study) == before
    assert store.labels(study.id) == [others]


def test_a_label_that_came_in_a_file_is_neither_undone_nor_of_today(store, study, ann):
    store.import_rows(study.id, [ImportRow(1, "Name a bird", "Robin", "Wren", Choice.LEFT, "Ann", key="k")])
    assert store.undo(ann.id) is None
    assert store.progress(ann.id) == Progress(done=1, left=0, today=0)


def test_without_simulated_users_the_study_looks_as_if_they_had_never_been(store, study, answer, four_pairs, ann):
    robot = store.create_user(study.id, "Robot", kind=Kind.SIMULATED, true_group="brief")
    mine = answer(ann.id, four_pairs[0][0], Choice.LEFT)
    for pair_id, _, _ in four_pairs[:3]:
        answer(robot.id, pair_id, Choice.RIGHT)
    with_robot = store.labels(study.id), list(store.export(study.id))
    store.include_simulated(study.id, False)
    assert store.users(study.id) == [ann]
    assert store.labels(study.id) == [mine] and store.labels(study.id, user_id=robot.id) == []
    assert [row["annotator"] for row in store.export(study.id)] == ["Ann"]
    data = store.training_data(study.id)
    assert (store.label_count(study.id), len(data.labels), data.user_ids.tolist()) == (1, 1, [ann.id])
    assert store.revisions_since(study.id, 4) == 3  # three labels went
    store.include_simulated(study.id, False)
    assert store.revision(study.id) == 7
    store.include_simulated(study.id, True)
    assert (store.labels(study.id), list(store.export(study.id))) == with_robot
    assert store.revision(study.id) == 10


def test_the_revision_grows_with_every_change_and_only_then(store, study, hand_out, answer, four_pairs, ann):
    seen = [store.revision(study.id)]
    for change in (
        lambda: answer(ann.id, four_pairs[0][0], Choice.LEFT),
        lambda: store.undo(ann.id),
        lambda: store.include_simulated(study.id, False),
    ):
        change()
        seen.append(store.revision(study.id))
    assert seen == [0, 1, 2, 3]
    hand_out(ann.id, four_pairs[1][0])
    store.create_user(study.id, "Ben")
    store.import_rows(study.id, [ImportRow(1, "Name a bird", "Robin", "Wren")])
    assert store.revision(study.id) == 3
