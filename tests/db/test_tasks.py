"""Skipping, drafts and predictions: what a task carries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from copl_core.records import Choice, Progress
from copl_core.study_settings import AssignmentSettings, Draft, Prediction


@pytest.fixture
def overlap(store, study):
    """Settles how many people label a pair."""
    return lambda n: store.set_assignment(study.id, AssignmentSettings(overlap=n))


def ids(pairs) -> list[int]:
    return [pair[0] for pair in pairs]


def test_a_skipped_pair_comes_again_when_nothing_else_is_left(store, study, hand_out, answer, four_pairs, ann, ben):
    for pair_id in ids(four_pairs[:2]):
        assert store.skip(hand_out(ann.id, pair_id).id, ann.id)
    assert store.open_task(ann.id) is None and store.label_count(study.id) == store.revision(study.id) == 0
    assert store.available_pairs(ann.id).pairs == four_pairs[2:] and store.available_pairs(ben.id).pairs == four_pairs
    assert store.progress(ann.id) == Progress(done=0, left=4, today=0, skipped=2)
    for pair_id in ids(four_pairs[2:]):
        answer(ann.id, pair_id, Choice.LEFT)
    assert store.available_pairs(ann.id).pairs == four_pairs[:1]  # the one skipped longest ago
    assert store.skip(hand_out(ann.id, four_pairs[0][0]).id, ann.id)
    assert store.available_pairs(ann.id).pairs == four_pairs[1:2]
    answer(ann.id, four_pairs[1][0], Choice.TIE)
    answer(ann.id, four_pairs[0][0], Choice.TIE)
    assert store.available_pairs(ann.id).pairs == [] and store.progress(ann.id).skipped == 0


def test_a_task_that_is_closed_or_somebody_elses_is_not_skipped(store, hand_out, four_pairs, ann, ben):
    task = hand_out(ann.id, four_pairs[0][0])
    assert not store.skip(task.id, ben.id) and not store.skip(task.id + 1, ann.id)
    store.submit(task.id, ann.id, Choice.LEFT)
    assert not store.skip(task.id, ann.id)
    assert store.progress(ann.id).skipped == 0


def test_undo_goes_back_through_answers_and_skips_in_the_order_they_came(store, hand_out, answer, four_pairs, ann):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    skipped = hand_out(ann.id, four_pairs[1][0], swap=True)
    store.skip(skipped.id, ann.id)
    answer(ann.id, four_pairs[2][0], Choice.LEFT)
    hand_out(ann.id, four_pairs[3][0])
    steps = [store.undo(ann.id) for _ in range(3)]
    assert [step.pair_id for step in steps] == ids(four_pairs)[2::-1]
    assert (steps[1].left.id, steps[1].right.id) == (skipped.left.id, skipped.right.id)
    assert store.undo(ann.id) is None
    assert store.progress(ann.id) == Progress(done=0, left=4, today=0)


def test_a_skip_is_not_taken_back_onto_a_pair_that_others_have_filled(
    store, overlap, hand_out, answer, four_pairs, ann, ben
):
    overlap(1)
    first = answer(ann.id, four_pairs[0][0], Choice.LEFT)
    store.skip(hand_out(ann.id, four_pairs[1][0]).id, ann.id)
    answer(ben.id, four_pairs[1][0], Choice.LEFT)
    assert store.undo(ann.id).pair_id == first.pair_id


def test_a_draft_stays_until_its_task_closes(store, hand_out, four_pairs, ann, ben):
    task = hand_out(ann.id, four_pairs[0][0])
    assert store.draft_of(task.id, ann.id) == Draft()
    for text in ("It is", "It is kinder"):
        assert store.draft(task.id, ann.id, Draft(text, ("kinder",)))
    assert store.draft_of(task.id, ann.id) == Draft("It is kinder", ("kinder",))
    assert not store.draft(task.id, ben.id, Draft("mine now")) and store.draft_of(task.id, ben.id) == Draft()
    store.submit(task.id, ann.id, Choice.LEFT, reason="It is kinder")
    assert store.draft_of(task.id, ann.id) == Draft() and not store.draft(task.id, ann.id, Draft("too late"))


def test_the_reason_of_a_label_taken_back_is_the_draft_of_its_new_task(store, hand_out, four_pairs, ann):
    store.submit(hand_out(ann.id, four_pairs[0][0]).id, ann.id, Choice.LEFT, reason="It is kinder", tags=["warm"])
    assert store.draft_of(store.undo(ann.id).id, ann.id) == Draft("It is kinder", ("warm",))


def test_a_prediction_is_kept_with_its_task_and_outlives_an_undo(store, hand_out, four_pairs, ann):
    soon = datetime.now(UTC) + timedelta(minutes=5)

    def answer_to(pair_id, choice, reason="uniform", prediction=Prediction(0.9, 0.4, "v1")):  # noqa: B008 (it is frozen)
        task = store.hand_out(ann.id, pair_id, swap=False, reason=reason, expires_at=soon, prediction=prediction)
        return store.submit(task.id, ann.id, choice)

    answer_to(four_pairs[0][0], Choice.RIGHT)
    again = store.undo(ann.id)
    first = store.submit(again.id, ann.id, Choice.LEFT)
    answer_to(four_pairs[1][0], Choice.TIE)
    answer_to(four_pairs[2][0], Choice.RIGHT, reason="informative")
    last = answer_to(four_pairs[3][0], Choice.RIGHT, prediction=Prediction(0.2, 0.7, "v2"))
    found = store.prediction_records(ann.id, last=50)
    assert [(one.label_id, one.left, one.prediction) for one in found] == [
        (first.id, True, Prediction(0.9, 0.4, "v1")),
        (last.id, False, Prediction(0.2, 0.7, "v2")),
    ]
    assert store.prediction_records(ann.id, last=1) == found[1:]
