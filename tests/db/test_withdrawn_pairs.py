"""Withdrawn pairs, as the store keeps them: nobody is handed one, whatever it was handed out for."""

from __future__ import annotations

from threading import Thread

import pytest

from copl_core.records import Choice, CoplError
from copl_core.study_settings import AssignmentSettings, Draft


def offered(store, user) -> set[int]:
    found = store.available_pairs(user.id)
    return {pair[0] for pair in (*found.pairs, *found.gold, *found.pinned)}


def test_a_withdrawn_pair_is_handed_to_nobody_until_it_is_handed_out_again(store, study, four_pairs, hand_out, ann):
    pair, other = four_pairs[0][0], four_pairs[1][0]
    left = store.progress(ann.id).left
    assert store.withdraw_pairs(study.id, [pair, other]) == 2 and store.withdraw_pairs(study.id, [pair]) == 0
    assert hand_out(ann.id, pair) is None and not offered(store, ann) & {pair, other}
    assert store.progress(ann.id).left == left - 2
    assert {one.pair_id for one in store.withdrawn_pairs(study.id)} == {pair, other}
    assert store.hand_out_again(study.id, [pair]) == 1 and store.hand_out_again(study.id, [pair]) == 0
    assert pair in offered(store, ann) and hand_out(ann.id, pair).pair_id == pair
    assert [entry.event for entry in store.audit(study.id)].count("withdrawn") == 2


def test_it_is_no_gold_pair_no_repeat_and_not_in_front(store, study, four_pairs, gold, answer, hand_out, ann, ben):
    answered, pinned = four_pairs[1][0], four_pairs[2][0]
    answer(ann.id, answered, Choice.LEFT)
    store.pin_pair(study.id, pinned)
    store.withdraw_pairs(study.id, [gold[0], answered, pinned])
    assert not offered(store, ben) & {gold[0], answered, pinned} and store.pinned_pairs(study.id) == []
    assert answered in store.available_pairs(ann.id).skipped, "no repeat is drawn from it"
    assert hand_out(ann.id, answered, reason="repeat") is None and hand_out(ben.id, gold[0], reason="gold") is None
    with pytest.raises(CoplError, match=f"Pair {pinned} is withdrawn"):
        store.pin_pair(study.id, pinned)


def test_an_open_task_on_it_ends_and_a_late_answer_stores_nothing(store, study, four_pairs, hand_out, ann, ben):
    task, other = hand_out(ann.id, four_pairs[0][0]), hand_out(ben.id, four_pairs[1][0])
    store.draft(task.id, ann.id, Draft("half a rea"))
    store.withdraw_pairs(study.id, [four_pairs[0][0]])
    assert store.open_task(ann.id) is None and store.open_task(ben.id) == other
    assert store.submit(task.id, ann.id, Choice.LEFT) is None and store.draft_of(task.id, ann.id) == Draft()
    assert store.label_count(study.id) == 0


def test_labels_stay_and_no_step_back_opens_it(store, study, four_pairs, answer, hand_out, ann):
    first, second, skipped = (pair[0] for pair in four_pairs[:3])
    answer(ann.id, first, Choice.LEFT)
    answer(ann.id, second, Choice.RIGHT)
    store.skip(hand_out(ann.id, skipped).id, ann.id)
    before = store.revision(study.id)
    store.withdraw_pairs(study.id, [second, skipped])
    assert store.label_count(study.id) == 2 and store.revision(study.id) == before
    assert store.undo(ann.id).pair_id == first and store.undo(ann.id) is None
    assert [label.pair_id for label in store.labels(study.id)] == [second]


def test_a_pair_of_another_study_is_left_alone_and_so_are_the_others(store, study, four_pairs, fresh_study):
    with pytest.raises(CoplError, match="in this study"):
        store.withdraw_pairs(fresh_study().id, [four_pairs[0][0]])
    with pytest.raises(CoplError, match="in this study"):
        store.withdraw_pairs(study.id, [four_pairs[0][0], 10_000])
    assert store.withdrawn_pairs(study.id) == []


def test_the_pairs_of_an_answer_are_found(store, study, four_pairs):
    pair, first, second = four_pairs[0]
    assert store.pairs_with(study.id, first) == store.pairs_with(study.id, second) == [pair]
    assert store.pairs_with(study.id, 10_000) == []


def test_nobody_has_it_on_the_screen_after_it_is_withdrawn_while_others_are_handed_pairs(
    store, study, four_pairs, hand_out
):
    store.set_assignment(study.id, AssignmentSettings(overlap=3))
    people = [store.create_user(study.id, f"person {n}") for n in range(8)]
    pair = four_pairs[0][0]
    threads = [Thread(target=hand_out, args=(user.id, pair)) for user in people]
    threads.insert(4, Thread(target=store.withdraw_pairs, args=(study.id, [pair])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.open_task(user.id) for user in people] == [None] * 8
