"""Places, skips, edits, drafts, guidelines, gold pairs and reports, as the store keeps them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from copl_core.formats.own import read_rows, write_jsonl
from copl_core.records import Choice, CoplError, ImportRow, Kind, Progress
from copl_core.study_settings import AssignmentSettings, Draft, Prediction
from db.engine import reading
from db.models import LabelRow, PairRow
from db.overlap import _PEOPLE
from db.transactions import study_row


@pytest.fixture
def cem(store, study):
    return store.create_user(study.id, "Cem")


@pytest.fixture
def overlap(store, study):
    """Settles how many people label a pair."""
    return lambda n: store.set_assignment(study.id, AssignmentSettings(overlap=n))


def ids(pairs) -> list[int]:
    return [pair[0] for pair in pairs]


def assert_counters_are_right(store, study) -> None:
    """What is kept beside each pair is what counting anew would find."""
    with reading(store.engine) as connection:
        assert study_row(connection, study.id).assignment["overlap"] is not None
        kept = dict(
            connection.execute(select(PairRow.id, PairRow.n_annotators).where(PairRow.study_id == study.id)).all()
        )
        counted = _PEOPLE.with_only_columns(LabelRow.pair_id, func.count(LabelRow.user_id.distinct())).group_by(
            LabelRow.pair_id
        )
        assert {pair: n for pair, n in kept.items() if n} == dict(connection.execute(counted).all())


# ---- places


def test_no_more_people_than_the_overlap_are_handed_a_pair(
    store, study, overlap, hand_out, answer, four_pairs, ann, ben, cem
):
    overlap(2)
    pair = four_pairs[0][0]
    answer(ann.id, pair, Choice.LEFT)
    task = hand_out(ben.id, pair)
    assert pair not in ids(store.available_pairs(cem.id).pairs)  # one label and one reservation
    assert hand_out(cem.id, pair) is None and store.open_task(cem.id) is None
    store.submit(task.id, ben.id, Choice.LEFT)
    assert hand_out(cem.id, pair) is None
    assert store.progress(cem.id).left == 3 and store.progress(ann.id).left == 3
    assert_counters_are_right(store, study)


def test_an_expired_reservation_gives_its_place_back(store, overlap, hand_out, four_pairs, ann, ben):
    overlap(1)
    hand_out(ann.id, four_pairs[0][0], minutes=-1)
    assert four_pairs[0] in store.available_pairs(ben.id).pairs
    assert hand_out(ben.id, four_pairs[0][0]) is not None
    assert four_pairs[0] not in store.available_pairs(ann.id).pairs


def test_a_late_answer_counts_while_there_is_room(store, study, overlap, hand_out, answer, four_pairs, ann, ben, cem):
    overlap(2)
    late = hand_out(ann.id, four_pairs[0][0], minutes=-1)
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    assert store.submit(late.id, ann.id, Choice.LEFT) is not None
    late = hand_out(ann.id, four_pairs[1][0], minutes=-1)
    answer(ben.id, four_pairs[1][0], Choice.LEFT)
    answer(cem.id, four_pairs[1][0], Choice.LEFT)
    assert store.submit(late.id, ann.id, Choice.LEFT) is None
    assert_counters_are_right(store, study)


def test_a_label_taken_back_keeps_its_place_for_its_user_until_it_expires(
    store, overlap, hand_out, answer, four_pairs, ann, ben
):
    overlap(1)
    label = answer(ann.id, four_pairs[0][0], Choice.LEFT, minutes=15)
    again = store.undo(ann.id)
    assert hand_out(ben.id, four_pairs[0][0]) is None
    assert store.submit(again.id, ann.id, Choice.RIGHT).pair_id == label.pair_id


def test_repeats_and_simulated_people_take_no_place(store, study, overlap, answer, hand_out, four_pairs, ann, ben):
    overlap(2)
    robot = store.create_user(study.id, "Robot", kind=Kind.SIMULATED)
    pair = four_pairs[0][0]
    answer(robot.id, pair, Choice.LEFT)
    answer(ann.id, pair, Choice.LEFT)
    answer(ann.id, pair, Choice.LEFT, reason="repeat")
    assert pair in ids(store.available_pairs(ben.id).pairs) and hand_out(ben.id, pair) is not None
    assert hand_out(ann.id, pair, reason="repeat") is not None  # a full pair may still be repeated
    assert_counters_are_right(store, study)


def test_labels_of_a_file_take_places_and_those_of_an_excluded_user_give_them_back(
    store, study, overlap, four_pairs, ann, hand_out
):
    overlap(1)
    pair = store.pair(four_pairs[0][0])
    store.import_rows(
        study.id, [ImportRow(1, pair.prompt, pair.first.text, pair.second.text, Choice.LEFT, "Zoe", key="z")]
    )
    assert hand_out(ann.id, pair.id) is None
    assert_counters_are_right(store, study)
    zoe = next(user for user in store.users(study.id) if user.name == "Zoe")
    store.exclude(zoe.id, True)
    assert_counters_are_right(store, study)
    assert hand_out(ann.id, pair.id) is not None


def test_turning_the_overlap_on_counts_what_is_there(store, study, overlap, answer, four_pairs, ann, ben):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    answer(ann.id, four_pairs[1][0], Choice.LEFT)
    store.undo(ann.id)
    overlap(1)
    assert_counters_are_right(store, study)
    assert ids(store.available_pairs(ben.id).pairs) == ids(four_pairs)[2:]  # one labelled, one on a screen
    store.set_assignment(study.id, AssignmentSettings())
    assert ids(store.available_pairs(ben.id).pairs) == ids(four_pairs)


def test_people_who_ask_at_once_share_the_places_out(store, study, overlap, four_pairs):
    overlap(3)
    users = [store.create_user(study.id, f"user {n}") for n in range(12)]
    soon = datetime.now(UTC) + timedelta(minutes=5)
    with ThreadPoolExecutor(6) as pool:
        tasks = list(
            pool.map(
                lambda user: store.hand_out(user.id, four_pairs[0][0], swap=False, reason="uniform", expires_at=soon),
                users,
            )
        )
    assert sum(task is not None for task in tasks) == 3


# ---- skipping


def test_a_skipped_pair_comes_again_when_nothing_else_is_left(store, study, hand_out, answer, four_pairs, ann, ben):
    for pair_id in ids(four_pairs[:2]):
        assert store.skip(hand_out(ann.id, pair_id).id, ann.id)
    assert store.open_task(ann.id) is None and store.label_count(study.id) == store.revision(study.id) == 0
    assert store.available_pairs(ann.id).pairs == four_pairs[2:] and store.available_pairs(ben.id).pairs == four_pairs
    assert store.progress(ann.id) == Progress(done=0, left=4, today=0, skipped=2)
    for pair_id in ids(four_pairs[2:]):
        answer(ann.id, pair_id, Choice.LEFT)
    assert store.available_pairs(ann.id).pairs == four_pairs[:1]  # the one put off longest ago
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


# ---- what a label carries


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
    bad.write_text((tmp_path / "labels.jsonl").read_text().replace('["warmer", "clearer"]', '"warmer"'))
    assert list(read_rows(bad, problems)) == [] and problems == [(1, "tags is not a list")]


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"strength": 4}, "strength"),
        ({"strength": 0}, "strength"),
        ({"reason": "x" * 10_001}, "characters"),
        ({"tags": ["x" * 61]}, "tags"),
        ({"tags": [str(n) for n in range(21)]}, "tags"),
    ],
)
def test_what_cannot_be_kept_is_told_and_the_task_stays_open(store, study, hand_out, four_pairs, ann, extra, told):
    task = hand_out(ann.id, four_pairs[0][0])
    with pytest.raises(CoplError, match=told):
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


# ---- drafts


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


# ---- gold pairs and practice


@pytest.fixture
def gold(store, study, four_pairs):
    """The first pair is a gold pair: its first response is known to be better."""
    pair_id, better, _ = four_pairs[0]
    store.set_gold(study.id, pair_id, better)
    return four_pairs[0]


def test_a_gold_pair_is_offered_for_attention_only(store, gold, hand_out, four_pairs, ann):
    offer = store.available_pairs(ann.id)
    assert (offer.pairs, offer.gold) == (four_pairs[1:], [gold])
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
    assert store.available_pairs(ann.id).gold == []  # nobody is asked twice
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


# ---- exclusion


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


# ---- forecasts


def test_a_forecast_is_kept_with_its_task_and_outlives_an_undo(store, hand_out, four_pairs, ann):
    soon = datetime.now(UTC) + timedelta(minutes=5)

    def given(pair_id, choice, reason="uniform", prediction=Prediction(0.9, 0.4, "v1")):  # noqa: B008 (it is frozen)
        task = store.hand_out(ann.id, pair_id, swap=False, reason=reason, expires_at=soon, prediction=prediction)
        return store.submit(task.id, ann.id, choice)

    given(four_pairs[0][0], Choice.RIGHT)
    again = store.undo(ann.id)
    first = store.submit(again.id, ann.id, Choice.LEFT)
    given(four_pairs[1][0], Choice.TIE)
    given(four_pairs[2][0], Choice.RIGHT, reason="informative")
    last = given(four_pairs[3][0], Choice.RIGHT, prediction=Prediction(0.2, 0.7, "v2"))
    found = store.prediction_records(ann.id, last=50)
    assert [(one.label_id, one.left, one.prediction) for one in found] == [
        (first.id, True, Prediction(0.9, 0.4, "v1")),
        (last.id, False, Prediction(0.2, 0.7, "v2")),
    ]
    assert store.prediction_records(ann.id, last=1) == found[1:]


def test_votes_are_those_of_others_by_response(store, answer, four_pairs, ann, ben, cem):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    answer(ben.id, four_pairs[0][0], Choice.LEFT, swap=True)
    answer(cem.id, four_pairs[0][0], Choice.BOTH_BAD)
    assert store.votes(four_pairs[0][0], excluding=0) == (1, 1)
    assert store.votes(four_pairs[0][0], excluding=ann.id) == (0, 1)


# ---- settings, guidelines, reports


def test_settings_are_kept_and_each_change_leaves_a_trail(store, study, ann):
    assert store.assignment_settings(study.id) == AssignmentSettings()
    settled = AssignmentSettings(overlap=3, open=False, order="random", practice=2, daily_goal=40)
    store.set_assignment(study.id, settled, by=ann.id)
    store.set_assignment(study.id, settled, by=ann.id)
    assert store.assignment_settings(study.id) == settled
    (entry,) = store.audit(study.id)
    assert (entry.event, entry.user_id, entry.detail["overlap"], entry.detail["open"]) == (
        "room",
        ann.id,
        [None, 3],
        [True, False],
    )


def test_guidelines_have_versions_and_none_is_lost(store, study, ann):
    assert store.guidelines(study.id) == [] and store.write_guidelines(study.id, "") == 0
    assert [store.write_guidelines(study.id, text, by=ann.id) for text in ("One.", "One.", "Two.", "One.")] == [
        1,
        1,
        2,
        3,
    ]
    assert [(one.version, one.text, one.by) for one in store.guidelines(study.id)] == [
        (3, "One.", ann.id),
        (2, "Two.", ann.id),
        (1, "One.", ann.id),
    ]
    assert Counter(entry.event for entry in store.audit(study.id)) == {"guidelines": 3}


def test_a_reported_problem_waits_until_it_is_resolved(store, study, four_pairs, ann, ben):
    first = store.report(ann.id, four_pairs[0][1], " It leaks a phone number. ")
    second = store.report(ben.id, four_pairs[0][2], "It is cut off.")
    assert first.text == "It leaks a phone number."
    assert store.reports(study.id) == [second, first]
    done = store.resolve(study.id, first.id, by=ben.id)
    assert done.resolved_by == ben.id and done.resolved_at is not None
    assert store.resolve(study.id, first.id, by=ann.id) == done  # the first to settle it did
    assert store.reports(study.id) == [second] and store.reports(study.id, resolved=True) == [second, done]


def test_a_report_is_about_a_response_of_the_study_and_says_something(store, study, four_pairs, ann):
    stranger = store.create_user(store.create_study("Trees").id, "Eve")
    with pytest.raises(CoplError, match="not in this study"):
        store.report(stranger.id, four_pairs[0][1], "It is odd.")
    with pytest.raises(CoplError, match="characters"):
        store.report(ann.id, four_pairs[0][1], "  ")
    with pytest.raises(CoplError, match="in this study"):
        store.resolve(study.id, 99)


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
    assert table.left.tolist()[1] == task.left.id
    assert store.answer_counts(study.id) == (len(set(table.user.tolist())), len(table))
    trees = store.create_study("Trees").id
    assert len(store.answers(trees)) == 0 and store.answer_counts(trees) == (0, 0)
