"""A clock that jumps a year ahead and back: orders follow the answers, not the times written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

import db.imported_rows
import db.labelling
import db.pinned_pairs
import db.tasks
import db.watch
from copl_core.records import Choice, ImportRow
from copl_core.study_settings import Prediction

YEAR = timedelta(days=365)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A second passes with every look."""

    def __init__(self) -> None:
        self.ahead, self._seconds = timedelta(), count()

    def __call__(self) -> datetime:
        return START + timedelta(seconds=next(self._seconds)) + self.ahead


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (db.labelling, db.tasks, db.pinned_pairs, db.imported_rows, db.watch):
        if hasattr(module, "now"):
            monkeypatch.setattr(module, "now", clock)
    return clock


@pytest.fixture
def hand_out(store, clock):
    def hand_out(user_id, pair_id, *, reason="uniform"):
        return store.hand_out(
            user_id,
            pair_id,
            swap=False,
            reason=reason,
            expires_at=clock() + timedelta(minutes=15),
            prediction=Prediction(0.9, 0.5, f"v{pair_id}"),
        )

    return hand_out


@pytest.fixture
def steps(store, study, clock, hand_out, four_pairs, ann) -> list[int]:
    """An answer and a skip a year ahead, then an answer and a skip at the right time; the pairs in their order."""
    pairs = [pair[0] for pair in four_pairs]
    clock.ahead = YEAR
    store.submit(hand_out(ann.id, pairs[0]).id, ann.id, Choice.LEFT)
    assert store.skip(hand_out(ann.id, pairs[1]).id, ann.id)
    clock.ahead = timedelta()
    store.submit(hand_out(ann.id, pairs[2]).id, ann.id, Choice.RIGHT)
    assert store.skip(hand_out(ann.id, pairs[3]).id, ann.id)
    return pairs


def test_undo_takes_back_the_newest_answer_or_skip(store, steps, ann):
    assert [store.undo(ann.id).pair_id for _ in steps] == steps[::-1]
    assert store.undo(ann.id) is None


def test_a_correction_keeps_its_answers_turn_whenever_it_is_made(store, study, clock, steps, ann):
    first, second = store.labels(study.id)
    clock.ahead = 2 * YEAR
    edited = store.edit(first.id, ann.id, Choice.TIE)
    clock.ahead = timedelta()
    edited = store.edit(edited.id, ann.id, Choice.RIGHT)
    assert store.labels(study.id) == [edited, second]
    assert [store.undo(ann.id).pair_id for _ in steps] == steps[::-1]


def test_an_answer_given_again_after_an_undo_is_the_newest(store, study, clock, hand_out, four_pairs, ann):
    first, second = (pair[0] for pair in four_pairs[:2])
    clock.ahead = YEAR
    store.submit(hand_out(ann.id, first).id, ann.id, Choice.LEFT)
    store.submit(hand_out(ann.id, second).id, ann.id, Choice.LEFT)
    again = store.undo(ann.id)
    clock.ahead = timedelta()
    store.submit(again.id, ann.id, Choice.RIGHT)
    assert [label.pair_id for label in store.labels(study.id)] == [first, second]
    assert store.undo(ann.id).pair_id == second


def test_skipped_pairs_come_again_in_the_order_of_the_skips(store, steps, hand_out, ann):
    assert [pair[0] for pair in store.available_pairs(ann.id).pairs] == [steps[1]]
    assert store.skip(hand_out(ann.id, steps[1]).id, ann.id)
    assert [pair[0] for pair in store.available_pairs(ann.id).pairs] == [steps[3]]


def test_lists_and_the_export_follow_the_answers(store, study, clock, steps, ann):
    first, second = store.labels(study.id, user_id=ann.id)
    assert [first.pair_id, second.pair_id] == [steps[0], steps[2]] and first.created_at > second.created_at
    assert [label.pair_id for label in store.history(ann.id)] == [steps[2], steps[0]]
    assert store.answers(study.id).pair.tolist() == [steps[0], steps[2]]
    assert [row["pair"] for row in store.export(study.id)] == [steps[0], steps[2]]
    assert [summary.pair_id for summary in store.available_pairs(ann.id).summaries] == [steps[0], steps[2]]
    edited = store.edit(first.id, ann.id, Choice.TIE)
    assert [label.id for label in store.history(ann.id)] == [second.id, edited.id, first.id]
    store.undo(ann.id)  # the last skip
    store.undo(ann.id)
    assert [label.id for label in store.history(ann.id)] == [edited.id, first.id]


def test_the_last_of_two_answers_to_a_pair_is_the_later_one(store, study, clock, hand_out, four_pairs, ann):
    pair, left, right = four_pairs[0]
    clock.ahead = YEAR
    store.submit(hand_out(ann.id, pair).id, ann.id, Choice.LEFT)
    clock.ahead = timedelta()
    store.submit(hand_out(ann.id, pair, reason="repeat").id, ann.id, Choice.RIGHT)
    assert store.votes_of(study.id, [pair]) == [(pair, ann.id, left), (pair, ann.id, right)]


def test_predictions_are_compared_in_the_order_of_the_answers(store, steps, ann):
    records = store.prediction_records(ann.id, last=10)
    assert [record.prediction.snapshot for record in records] == [f"v{steps[0]}", f"v{steps[2]}"]
    assert store.prediction_records(ann.id, last=1) == records[1:]


def test_imported_labels_come_first_in_the_order_of_their_file_times(store, study, steps, ann):
    for day in (2, 1):
        row = ImportRow(day, "p", f"a {day}", f"b {day}", Choice.LEFT, "Ann", created_at=START + timedelta(days=day))
        store.import_rows(study.id, [row])
    early, late, *own = store.labels(study.id, user_id=ann.id)
    assert early.created_at < late.created_at and [label.pair_id for label in own] == [steps[0], steps[2]]
    assert store.history(ann.id) == [*own[::-1], late, early]


def test_a_pair_pinned_while_the_clock_is_ahead_waits_once_it_is_skipped(
    store, study, clock, hand_out, four_pairs, ann
):
    pair = four_pairs[2][0]
    clock.ahead = YEAR
    store.pin_pair(study.id, pair)
    clock.ahead = timedelta()
    assert [one[0] for one in store.available_pairs(ann.id).pinned] == [pair]
    store.skip(hand_out(ann.id, pair, reason="front").id, ann.id)
    assert store.available_pairs(ann.id).pinned == []


def test_a_pair_skipped_while_the_clock_was_ahead_is_next_once_it_is_pinned_and_waits_once_it_is_skipped_again(
    store, study, clock, hand_out, four_pairs, ann
):
    pair = four_pairs[2][0]
    clock.ahead = YEAR
    store.skip(hand_out(ann.id, pair).id, ann.id)
    store.pin_pair(study.id, four_pairs[0][0])
    clock.ahead = timedelta()
    store.pin_pair(study.id, pair)
    assert [one[0] for one in store.available_pairs(ann.id).pinned] == [pair, four_pairs[0][0]]
    store.skip(hand_out(ann.id, pair, reason="front").id, ann.id)
    assert [one[0] for one in store.available_pairs(ann.id).pinned] == [four_pairs[0][0]]


def test_answers_of_a_clock_that_was_ahead_are_of_no_other_day(store, study, steps, ann):
    """One of the two answers was given a year ahead."""
    progress = store.progress(ann.id)
    assert (progress.done, progress.today) == (2, 1) and store.recent_labels(600.0) == {study.id: 1}
