"""Gold pairs and practice: attention checks that are no preferences."""

from __future__ import annotations

import pytest

from copl_core.records import Choice, CoplError, Progress
from copl_core.study_settings import AssignmentSettings


def test_a_gold_pair_is_offered_for_attention_only(store, gold, hand_out, four_pairs, ann):
    available = store.available_pairs(ann.id)
    assert (available.pairs, available.gold) == (four_pairs[1:], [gold])
    assert store.progress(ann.id).left == 3
    assert hand_out(ann.id, gold[0]) is None and hand_out(ann.id, four_pairs[1][0], reason="gold") is None
    assert hand_out(ann.id, gold[0], reason="gold").pair_id == gold[0]


@pytest.mark.parametrize("reason", ["gold", "practice"])
def test_answers_for_attention_are_no_preferences(store, study, gold, answer, four_pairs, ann, reason):
    label = answer(ann.id, gold[0], Choice.LEFT, reason=reason)
    assert label.selection_reason == reason
    assert store.labels(study.id) == store.labels(study.id, user_id=ann.id) == store.history(ann.id) == []
    assert store.label_count(study.id) == store.revision(study.id) == len(store.training_data(study.id).labels) == 0
    assert list(store.export(study.id)) == [] and store.votes(gold[0], excluding=0) == (0, 0)
    assert store.available_pairs(ann.id).gold == []  # nobody gets it twice
    assert store.answers(study.id).gold.tolist() == [gold[1]]
    with pytest.raises(CoplError, match="not one of your answers"):
        store.edit(label.id, ann.id, Choice.RIGHT)


def test_gold_pairs_count_as_done_and_practice_does_not(store, study, gold, answer, four_pairs, ann):
    store.set_gold(study.id, four_pairs[1][0], four_pairs[1][2])
    answer(ann.id, gold[0], Choice.LEFT, reason="gold")
    answer(ann.id, four_pairs[1][0], Choice.LEFT, reason="practice")
    assert store.progress(ann.id) == Progress(done=1, left=2, today=1)
    store.set_assignment(study.id, AssignmentSettings(practice=3))
    assert (store.available_pairs(ann.id).n_practice, store.available_pairs(ann.id).newcomer) == (1, False)


def test_an_answer_for_attention_can_be_taken_back(store, study, gold, answer, ann):
    answer(ann.id, gold[0], Choice.LEFT, reason="gold")
    again = store.undo(ann.id)
    assert (again.pair_id, again.reason) == (gold[0], "gold")
    assert store.submit(again.id, ann.id, Choice.RIGHT) is not None
    assert len(store.answers(study.id)) == 1 and store.revision(study.id) == 0


def test_a_gold_answer_is_one_of_the_pairs_responses_and_can_be_taken_away(store, study, gold, four_pairs):
    with pytest.raises(CoplError, match="not in pair"):
        store.set_gold(study.id, gold[0], four_pairs[1][1])
    with pytest.raises(CoplError, match="in this study"):
        store.set_gold(store.create_study("Trees").id, gold[0], gold[1])
    assert [(one.pair_id, one.preferred_id) for one in store.gold(study.id)] == [(gold[0], gold[1])]
    store.set_gold(study.id, gold[0], None)
    assert store.gold(study.id) == [] and store.gold_of(gold[0]) is None
    assert [entry.detail["after"] for entry in store.audit(study.id)[:2]] == [None, gold[1]]
