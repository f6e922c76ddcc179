"""Pairs at the front of the queue, as the store keeps them."""

from __future__ import annotations

import pytest

from copl_core.records import Choice, CoplError
from copl_core.study_settings import AssignmentSettings


@pytest.fixture
def olga(store, study):
    return store.create_user(study.id, "Olga")


def in_front(store, user) -> list[int]:
    return [pair[0] for pair in store.available_pairs(user.id).pinned]


def test_the_pair_asked_for_last_stands_first_until_it_is_answered(store, study, four_pairs, answer, olga, ann, ben):
    first, second, third = (pair[0] for pair in four_pairs[:3])
    assert in_front(store, ann) == []
    for pair in (first, second, third, first):
        store.pin_pair(study.id, pair, by=olga.id)
    assert in_front(store, ann) == [first, third, second]
    answer(ann.id, first, Choice.LEFT)
    assert in_front(store, ann) == [third, second] and in_front(store, ben) == [first, third, second]
    found = {ask.pair_id: (ask.by, ask.answered) for ask in store.pinned_pairs(study.id)}
    assert found == {first: (olga.id, 1), third: (olga.id, 0), second: (olga.id, 0)}


def test_answers_given_before_the_question_are_not_counted_as_answers_to_it(store, study, four_pairs, answer, ann):
    answer(ann.id, four_pairs[0][0], Choice.TIE)
    assert store.pin_pair(study.id, four_pairs[0][0]).answered == 0
    assert in_front(store, ann) == []


def test_a_pair_put_off_before_it_was_asked_for_comes_again_and_after_that_it_waits(
    store, study, four_pairs, hand_out, ann
):
    pair = four_pairs[2][0]
    store.skip(hand_out(ann.id, pair).id, ann.id)
    store.pin_pair(study.id, pair)
    assert in_front(store, ann) == [pair]
    store.skip(hand_out(ann.id, pair, reason="front").id, ann.id)
    assert in_front(store, ann) == []


def test_a_pair_without_room_is_not_at_the_front_of_anybody(store, study, four_pairs, answer, hand_out, ann, ben):
    store.set_assignment(study.id, AssignmentSettings(overlap=1))
    answered, reserved = four_pairs[0][0], four_pairs[1][0]
    answer(ann.id, answered, Choice.LEFT)
    task = hand_out(ann.id, reserved, reason="front")
    store.pin_pair(study.id, answered)
    store.pin_pair(study.id, reserved)
    assert in_front(store, ben) == []
    assert hand_out(ben.id, answered, reason="front") is None and hand_out(ben.id, reserved, reason="front") is None
    store.skip(task.id, ann.id)
    assert in_front(store, ben) == [reserved]


def test_ending_takes_the_pair_away_and_the_trail_tells_of_both(store, study, four_pairs, olga, ann):
    pair = four_pairs[0][0]
    store.pin_pair(study.id, pair, by=olga.id)
    assert store.unpin_pair(study.id, pair, by=ann.id) and not store.unpin_pair(study.id, pair, by=ann.id)
    assert in_front(store, ann) == [] and store.pinned_pairs(study.id) == []
    trail = [(line.user_id, line.event, line.detail) for line in store.audit(study.id)[:2]]
    assert trail == [(ann.id, "ask ended", {"pair": pair}), (olga.id, "ask", {"pair": pair})]


def test_gold_pairs_and_pairs_of_other_studies_are_refused(store, study, four_pairs, fresh_study):
    pair, first, _ = four_pairs[0]
    with pytest.raises(CoplError, match="no pair with id"):
        store.pin_pair(fresh_study().id, pair)
    store.set_gold(study.id, pair, first)
    with pytest.raises(CoplError, match="for attention checks only"):
        store.pin_pair(study.id, pair)
    assert store.pinned_pairs(study.id) == []


def test_a_pair_that_becomes_gold_leaves_the_front(store, study, four_pairs, ann):
    pair, first, _ = four_pairs[0]
    store.pin_pair(study.id, pair)
    store.set_gold(study.id, pair, first)
    assert in_front(store, ann) == []
