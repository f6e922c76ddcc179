"""Lists and columns of labels: exclusion, votes, answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from copl_core.records import Choice, ImportRow
from copl_core.study_settings import Prediction


def test_an_excluded_user_trains_nothing_and_votes_nowhere_but_keeps_their_own_list(
    store, study, answer, four_pairs, ann, ben
):
    mine, theirs = (answer(user.id, four_pairs[0][0], Choice.LEFT) for user in (ann, ben))
    assert store.exclude(ben.id, True, by=ann.id).excluded
    assert store.exclude(ben.id, True).excluded and store.revision(study.id) == 3
    assert store.labels(study.id) == store.labels(study.id, pair_id=four_pairs[0][0]) == [mine]
    assert store.labels(study.id, user_id=ben.id) == [theirs] and store.progress(ben.id).done == 1
    data = store.training_data(study.id)
    assert (len(data.labels), data.user_ids.tolist()) == (1, [ann.id, ben.id])
    assert store.label_count(study.id) == 1 and store.votes(four_pairs[0][0], excluding=0) == (1, 0)
    assert [row["excluded"] for row in store.export(study.id)] == [False, True]
    assert not store.exclude(ben.id, False).excluded
    assert store.labels(study.id) == [mine, theirs] and store.revision(study.id) == 4
    assert [entry.event for entry in store.audit(study.id)[:2]] == ["exclude", "exclude"]


def test_votes_are_those_of_others_by_response(store, answer, four_pairs, ann, ben, cem):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    answer(ben.id, four_pairs[0][0], Choice.LEFT, swap=True)
    answer(cem.id, four_pairs[0][0], Choice.BOTH_BAD)
    assert store.votes(four_pairs[0][0], excluding=0) == (1, 1)
    assert store.votes(four_pairs[0][0], excluding=ann.id) == (0, 1)


def test_answers_are_columns_of_every_counting_answer(store, study, gold, answer, hand_out, four_pairs, ann, ben):
    answer(ann.id, gold[0], Choice.LEFT, reason="gold")
    task = hand_out(ann.id, four_pairs[1][0], swap=True)
    store.submit(task.id, ann.id, Choice.BOTH_BAD, milliseconds=800)
    answer(ben.id, four_pairs[1][0], Choice.LEFT)
    store.undo(ben.id)
    table = store.answers(study.id)
    assert table.user.tolist() == [ann.id, ann.id] and table.pair.tolist() == [gold[0], four_pairs[1][0]]
    assert table.choice.tolist() == [0, 3] and table.milliseconds.tolist() == [-1, 800]
    assert table.selection_reason.tolist() == [4, 1] and table.gold.tolist() == [gold[1], -1]
    assert table.characters.tolist() == [len("answer 0other answer 0"), len("answer 1other answer 1")]
    assert table.left.tolist()[1] == task.left.id and table.strength.tolist() == [1, 1]
    assert store.answer_counts(study.id) == (len(set(table.user.tolist())), len(table))
    trees = store.create_study("Trees").id
    assert len(store.answers(trees)) == 0 and store.answer_counts(trees) == (0, 0)


def test_a_prediction_is_compared_with_the_first_answer_whatever_it_is_changed_to(store, study, ann, hand_out):
    rows = [ImportRow(n, "prompt", f"answer {n}", f"other answer {n}") for n in range(10)]
    store.import_rows(study.id, rows)
    for pair_id, _, _ in store.pairs(study.id):
        task = store.hand_out(
            ann.id,
            pair_id,
            swap=False,
            reason="uniform",
            expires_at=datetime.now(UTC) + timedelta(minutes=15),
            prediction=Prediction(0.9, 0.5, "v1"),
        )
        store.submit(task.id, ann.id, Choice.RIGHT)
    assert store.prediction_counts(study.id) == [(ann.id, 0, 10)]
    for label in store.labels(study.id, user_id=ann.id):
        tie = store.edit(label.id, ann.id, Choice.TIE)
        store.edit(tie.id, ann.id, Choice.LEFT)
    assert store.prediction_counts(study.id) == [(ann.id, 0, 10)]
    assert [record.left for record in store.prediction_records(ann.id, last=50)] == [False] * 10
    store.undo(ann.id)
    assert store.prediction_counts(study.id) == [(ann.id, 0, 9)]


def test_a_tie_that_becomes_a_preference_was_still_not_predicted(store, study, ann, four_pairs):
    for (pair_id, _, _), choice in zip(four_pairs, (Choice.TIE, Choice.LEFT), strict=False):
        task = store.hand_out(
            ann.id,
            pair_id,
            swap=False,
            reason="uniform",
            expires_at=datetime.now(UTC) + timedelta(minutes=15),
            prediction=Prediction(0.9, 0.5, "v1"),
        )
        label = store.submit(task.id, ann.id, choice)
        store.edit(label.id, ann.id, Choice.LEFT if choice == Choice.TIE else Choice.TIE)
    assert store.prediction_counts(study.id) == [(ann.id, 1, 1)]
