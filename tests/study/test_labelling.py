"""The verbs of labelling: which pair a user gets, undo and edits, predictions and quality."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic, sleep

import numpy as np
import pytest

from copl_core.records import Choice, CoplError, Role, SnapshotRecord
from copl_core.snapshots.snapshot import write_snapshot
from copl_core.study import access, contents, label_quality, labelling
from copl_core.study.assignment import SelectionMix, choose
from copl_core.study.placement import adapted, preferences
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings, Draft, Guidelines, SelectionReason
from tests.worlds import graph_state, label, layout_of, open_study, pairs_to_label


@pytest.fixture
def session(tmp_path) -> Session:
    """Twelve pairs and nobody's label."""
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(12))
    return session


def settle(session: Session, **settings) -> None:
    labelling.set_assignment(session, AssignmentSettings(**settings))


def make_gold(session: Session, count: int) -> dict[int, int]:
    """The first pairs become gold pairs with their first response as the known answer."""
    known = {pair_id: first for pair_id, first, _ in session.store.pairs(session.id)[:count]}
    for pair_id, first in known.items():
        labelling.set_gold(session, pair_id, first)
    return known


def answer_all(session: Session, user_id: int, choice: Choice = Choice.LEFT, limit: int = 200) -> list:
    tasks = []
    while (task := labelling.next_task(session, user_id)) and len(tasks) < limit:
        tasks.append(task)
        labelling.submit(session, task.id, user_id, choice)
    return tasks


def publish(session: Session, version: str = "v0001", seed: int = 0) -> None:
    """A champion made by hand: random vectors for this study's responses."""
    ids = np.array([pair[1:] for pair in session.store.pairs(session.id)], np.int64).ravel()
    state = graph_state(n_responses=len(ids), seed=seed)
    state = replace(state, response_ids=np.sort(ids), response_vectors=state.response_vectors * 3)
    write_snapshot(
        session.snapshot_root, version, graph=state, layout=layout_of(state), manifest={"watermark": 0, "reward": None}
    )
    record = SnapshotRecord(version, None, 0, 0, {}, datetime.now(UTC))
    session.store.publish(session.id, record, run_id=None)


# ---- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 0}, "number of people per pair"),
        ({"overlap": 2.5}, "whole number"),
        ({"order": "best"}, "order"),
        ({"uniform": -0.1}, "share of uniform"),
        ({"repeats": 1.1}, "share of repeats"),
        ({"daily_goal": 0}, "daily goal"),
        ({"repeats": 0.6, "gold": 0.4, "uniform": 0}, "leave nothing"),
        ({"uniform": 0.95}, "more than 100%"),
        ({"practice": -1}, "practice"),
        ({"reserve_minutes": 0}, "reserved"),
        ({"overlap": True}, "whole number"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(CoplError, match=message):
        AssignmentSettings(**settings)


def test_settings_survive_saving_and_a_field_of_a_newer_version_is_ignored():
    settings = AssignmentSettings(overlap=3, open=False, order="imported", gold=0, practice=2, reserve_minutes=2.5)
    assert AssignmentSettings.of(settings.saved()) == settings
    assert (
        AssignmentSettings.of(settings.saved() | {"music": "loud"}) == settings
        and AssignmentSettings.of(None) == AssignmentSettings()
    )


def test_only_an_owner_changes_settings(session):
    owner, ann = access.join(session, "Olga", Role.OWNER), access.join(session, "Ann")
    pair_id, first, _ = session.store.pairs(session.id)[0]
    reported = labelling.report(session, ann.id, first, "It is odd.")
    for change in (
        lambda by: labelling.set_assignment(session, AssignmentSettings(overlap=2), by=by),
        lambda by: labelling.write_guidelines(session, "Be fair.", by=by),
        lambda by: labelling.set_gold(session, pair_id, first, by=by),
        lambda by: labelling.resolve(session, reported.id, by=by),
    ):
        with pytest.raises(CoplError, match="Ann is annotator here; only an owner"):
            change(ann.id)
        change(owner.id)
    assert (labelling.assignment_settings(session).overlap, labelling.guidelines(session).text) == (2, "Be fair.")
    assert [entry.user_id for entry in access.audit(session)] == [owner.id] * 4 + [None]  # and the import before


def test_guidelines_begin_empty_and_the_newest_is_shown(session):
    assert labelling.guidelines(session) == Guidelines(0, "")
    labelling.write_guidelines(session, "One.")
    labelling.write_guidelines(session, "Two.")
    assert (labelling.guidelines(session).version, labelling.guidelines(session).text) == (2, "Two.")
    assert [one.text for one in labelling.guidelines_history(session)] == ["Two.", "One."]


# ---- who gets which pair


def test_the_mix_follows_the_settings():
    assert SelectionMix.of(AssignmentSettings()) == SelectionMix(pytest.approx(0.65), 0.2, 0.1, 0.05)
    assert SelectionMix.of(AssignmentSettings(), any_gold=False) == SelectionMix(pytest.approx(0.7), 0.2, 0.1)
    assert SelectionMix.of(AssignmentSettings(order="random", repeats=0, gold=0)) == SelectionMix(0, 1, 0)
    assert SelectionMix.of(AssignmentSettings(order="imported", repeats=0.5, gold=0)) == SelectionMix(0, 0, 0.5, 0, 0.5)


def test_pairs_come_in_the_order_of_the_file_where_the_settings_say_so(session):
    settle(session, order="imported", repeats=0, gold=0)
    tasks = answer_all(session, access.join(session, "Ann").id)
    assert [task.pair_id for task in tasks] == [pair[0] for pair in session.store.pairs(session.id)]
    assert {task.reason for task in tasks} == {"imported"}


def test_with_an_overlap_everybody_is_done_when_every_pair_has_its_people(session):
    settle(session, overlap=2, repeats=0)
    given = {name: [task.pair_id for task in answer_all(session, access.join(session, name).id)] for name in "ABC"}
    assert (len(given["A"]), len(given["B"]), given["C"]) == (12, 12, [])
    assert labelling.progress(session, access.join(session, "C").id).left == 0
    users = session.store.answers(session.id)
    assert set(Counter(users.pair.tolist()).values()) == {2}


def test_a_pair_that_another_user_reserved_is_skipped(session):
    settle(session, overlap=1, order="imported", repeats=0)
    ann, ben = access.join(session, "Ann"), access.join(session, "Ben")
    first = labelling.next_task(session, ann.id)
    assert labelling.next_task(session, ben.id).pair_id == first.pair_id + 1
    labelling.submit(session, first.id, ann.id, Choice.LEFT)
    assert labelling.next_task(session, ann.id).pair_id == first.pair_id + 2


def test_a_reservation_lasts_as_long_as_the_settings_say(session):
    settle(session, overlap=1, reserve_minutes=0.001)
    ann, ben = access.join(session, "Ann"), access.join(session, "Ben")
    held = labelling.next_task(session, ann.id)
    assert sum(labelling.next_task(session, ben.id) is not None for _ in range(3)) == 3
    deadline = monotonic() + 10
    while held.pair_id not in [pair[0] for pair in session.store.available_pairs(ben.id).pairs]:
        assert monotonic() < deadline, "the reservation did not end"
        sleep(0.01)


def test_a_newcomer_practises_with_feedback_before_the_first_real_pair(session):
    known = make_gold(session, 4)
    settle(session, practice=2, gold=0, repeats=0)
    ann = access.join(session, "Ann")
    for right in (True, False):
        task = labelling.next_task(session, ann.id)
        assert task.reason == "practice" and task.pair_id in known
        good = Choice.LEFT if task.left.id == known[task.pair_id] else Choice.RIGHT
        bad = Choice.TIE
        receipt = labelling.submit(session, task.id, ann.id, good if right else bad)
        assert (receipt.feedback.right, receipt.feedback.preferred_id) == (right, known[task.pair_id])
    real = answer_all(session, ann.id)
    assert Counter(task.reason for task in real) == {"uniform": 8}
    assert labelling.submit(session, labelling.undo(session, ann.id).id, ann.id, Choice.LEFT).feedback is None
    assert labelling.progress(session, ann.id).done == 8 and len(labelling.labels_of(session, ann.id)) == 8


def test_users_with_labels_need_no_practice(session):
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT)
    make_gold(session, 3)
    settle(session, practice=3, gold=0)
    task = labelling.next_task(session, ann.id)
    if task.pair_id <= 3:  # it was on the screen before it became gold
        labelling.submit(session, task.id, ann.id, Choice.LEFT)
        task = labelling.next_task(session, ann.id)
    assert task.reason in ("uniform", "repeat")


def test_gold_pairs_are_mixed_in_once_each(session):
    known = make_gold(session, 5)
    settle(session, gold=0.9, uniform=0.1, repeats=0)
    tasks = answer_all(session, access.join(session, "Ann").id)
    gold = Counter(task.pair_id for task in tasks if task.reason == "gold")
    assert gold and set(gold) <= set(known) and max(gold.values()) == 1
    assert len([task for task in tasks if task.reason == "uniform"]) == 7
    assert len(session.store.training_data(session.id).labels) == 7


def test_a_skipped_pair_comes_last_and_is_not_repeated(session):
    ann = access.join(session, "Ann")
    skipped = labelling.next_task(session, ann.id)
    receipt = labelling.skip(session, skipped.id, ann.id)
    assert receipt.label is None and receipt.next_task.pair_id != skipped.pair_id
    assert labelling.skip(session, skipped.id, ann.id).next_task == receipt.next_task  # a second press finds it closed
    tasks = answer_all(session, ann.id)
    assert skipped.pair_id == tasks[-1].pair_id and skipped.pair_id not in [task.pair_id for task in tasks[:-1]]


def test_a_repeat_that_was_skipped_is_not_offered_again():
    rng = np.random.default_rng(0)
    labels = [label(2 * n, 2 * n + 1, pair_id=n, number=n) for n in range(10)]
    only_repeats = SelectionMix(0, 0, 1)
    assert {choose([(99, 1, 2)], labels, None, None, rng, only_repeats, skipped={0}).pair_id for _ in range(30)} == {1}


# ---- drafts and edits


def test_a_draft_survives_a_reload_and_becomes_the_reason(session):
    ann = access.join(session, "Ann")
    task = labelling.next_task(session, ann.id)
    assert labelling.save_draft(session, task.id, ann.id, "It is shorter", ["brief"])
    assert labelling.draft(session, task.id, ann.id) == Draft("It is shorter", ("brief",))
    labelling.submit(session, task.id, ann.id, Choice.LEFT, reason="It is shorter", tags=["brief"], strength=3)
    (label,) = labelling.labels_of(session, ann.id)
    assert (label.reason, label.tags, label.strength) == ("It is shorter", ("brief",), 3)
    assert labelling.draft(session, labelling.undo(session, ann.id).id, ann.id) == Draft("It is shorter", ("brief",))


def test_an_edit_is_seen_by_training_and_the_old_answer_stays_in_the_history(session):
    ann = access.join(session, "Ann")
    labelling.submit(session, labelling.next_task(session, ann.id).id, ann.id, Choice.LEFT)
    (old,) = labelling.labels_of(session, ann.id)
    new = labelling.edit(session, old.id, ann.id, Choice.RIGHT, strength=2)
    assert session.store.training_data(session.id).labels.outcome.tolist() == [0]
    assert [(one.id, one.successor_id) for one in labelling.history(session, ann.id)] == [
        (new.id, None),
        (old.id, new.id),
    ]


# ---- predictions


def test_a_prediction_holds_the_probability_of_the_user_and_of_the_crowd(session):
    settle(session, order="random", repeats=0)
    ann = access.join(session, "Ann")
    for name in ("Ben", "Cem", "Dan"):  # the crowd takes the shorter response
        user = access.join(session, name)
        while task := labelling.next_task(session, user.id):
            labelling.submit(
                session, task.id, user.id, Choice.LEFT if len(task.left.text) < len(task.right.text) else Choice.RIGHT
            )
    assert label_quality.prequential(session, ann.id).model.n == 0
    publish(session)
    for _ in range(6):
        labels = labelling.labels_of(session, ann.id)
        task = labelling.next_task(session, ann.id)
        labelling.submit(session, task.id, ann.id, Choice.LEFT)
        found = label_quality.prequential(session, ann.id).rows[-1]
        state = session.snapshot().graph
        rows = np.searchsorted(state.response_ids, [[task.left.id, task.right.id]])
        expected = preferences(state, np.stack([adapted(state, labels).vector, state.population]), rows)[:, 0]
        votes = 3 * (len(task.left.text) < len(task.right.text))
        assert found.prediction.left == pytest.approx(expected[0], abs=1e-5)
        assert found.prediction.crowd == pytest.approx((votes + 2 * expected[1]) / 5, abs=1e-5)
        assert found.left and found.prediction.snapshot == "v0001"


def test_prequential_accuracy_counts_the_last_unbiased_labels(session):
    settle(session, repeats=0)
    publish(session)
    ann = access.join(session, "Ann")
    tasks = answer_all(session, ann.id)
    unbiased = [task for task in tasks if task.reason == "uniform"]
    found = label_quality.prequential(session, ann.id)
    assert found.model.n == found.crowd.n == len(found.rows) == len(unbiased) < len(tasks)
    assert found.model.hits == sum(row.prediction.left > 0.5 for row in found.rows)  # left was the answer to all
    few = label_quality.prequential(session, ann.id, last=2)
    assert few.rows == found.rows[-2:] and few.model.n == min(2, len(unbiased))
    assert found.snapshots == (("v0001",) if unbiased else ())
    assert label_quality.prequential(session, access.join(session, "Ben").id).model.n == 0


def test_a_pair_chosen_by_the_model_never_counts_for_accuracy(session):
    settle(session, repeats=0, uniform=0)
    publish(session)
    ann = access.join(session, "Ann")
    assert {task.reason for task in answer_all(session, ann.id)} == {"informative"}
    assert label_quality.prequential(session, ann.id).rows == ()


def test_responses_newer_than_the_snapshot_have_no_prediction(session):
    publish(session)
    contents.import_rows(session, pairs_to_label(1, start=50))
    settle(session, order="imported", repeats=0)
    ann = access.join(session, "Ann")
    assert len(answer_all(session, ann.id)) == 13
    assert label_quality.prequential(session, ann.id).model.n == 12


# ---- quality


def test_quality_lists_everybody_who_answered(session):
    make_gold(session, 2)
    settle(session, gold=0.5, repeats=0.3)
    for name in ("Ann", "Ben", "Cem"):
        user = access.join(session, name)
        while task := labelling.next_task(session, user.id):
            short_left = len(task.left.text) < len(task.right.text)
            labelling.submit(session, task.id, user.id, Choice.LEFT if short_left else Choice.RIGHT, milliseconds=4000)
    access.join(session, "Dan")
    view = label_quality.quality(session)
    assert [row.user.name for row in view.people] == ["Ann", "Ben", "Cem"]
    assert view.agreement.alpha == 1 and view.agreement.n_pairs == 10
    for row in view.people:
        assert row.figures.n >= 10 and row.figures.median_seconds == 4 and row.skill is None
        assert row.figures.consistent.hits == row.figures.consistent.n == row.figures.n - 10
        assert row.figures.flags == ()
    ann = view.people[0].user
    access.exclude(session, ann.id, True)
    again = label_quality.quality(session)
    assert again.people[0].user.excluded and again.people[0].figures == view.people[0].figures
    assert again.agreement.n_labels == 20 and view.agreement.n_labels == 30


def test_quality_is_computed_again_only_after_something_of_it_changed(session):
    known = make_gold(session, 1)
    settle(session, gold=0.9, repeats=0.0, uniform=0.0)
    ann = access.join(session, "Ann")
    before = label_quality.quality(session)
    assert label_quality.quality(session) is before
    while (task := labelling.next_task(session, ann.id)).pair_id not in known:
        labelling.submit(session, task.id, ann.id, Choice.LEFT)
    revision = session.store.revision(session.id)
    label_quality.quality(session)
    labelling.submit(session, task.id, ann.id, Choice.LEFT)
    right = label_quality.quality(session).people[0].figures.gold
    assert right.n == 1 and session.store.revision(session.id) == revision  # a gold pair raises no revision
    (pair,) = session.store.gold(session.id)
    labelling.set_gold(session, pair.pair_id, pair.second_id if pair.preferred_id == pair.first_id else pair.first_id)
    assert label_quality.quality(session).people[0].figures.gold.hits == 1 - right.hits


def test_skill_is_fitted_on_request(session):
    settle(session, repeats=0)
    for name in ("Ann", "Ben", "Cem"):
        answer_all(session, access.join(session, name).id)
    skills = [row.skill for row in label_quality.quality(session, skill=True).people]
    assert len(skills) == 3 and all(0 <= skill <= 1 for skill in skills)


def test_every_reason_has_a_name_that_the_store_takes():
    assert [reason.value for reason in SelectionReason] == [
        "informative",
        "uniform",
        "imported",
        "repeat",
        "gold",
        "practice",
        "front",
    ]


# ---- one task after another


def test_the_same_task_is_shown_until_it_is_answered(untrained):
    ann = access.join(untrained, "Ann")
    task = labelling.next_task(untrained, ann.id)
    assert [labelling.next_task(untrained, ann.id) for _ in range(3)] == [task] * 3
    receipt = labelling.submit(untrained, task.id, ann.id, Choice.TIE)
    assert receipt.label.pair_id == task.pair_id and receipt.label.choice == Choice.TIE
    assert receipt.next_task.id != task.id and receipt.next_task.pair_id != task.pair_id
    assert labelling.next_task(untrained, ann.id) == receipt.next_task


def test_a_stale_answer_changes_nothing_and_the_pair_on_offer_comes_back(untrained):
    ann, ben = access.join(untrained, "Ann"), access.join(untrained, "Ben")
    first = labelling.next_task(untrained, ann.id)
    offered = labelling.submit(untrained, first.id, ann.id, Choice.LEFT).next_task
    revision = untrained.record.revision
    for task_id, user in ((first.id, ann), (offered.id, ben), (10**9, ann)):
        receipt = labelling.submit(untrained, task_id, user.id, Choice.RIGHT)
        assert receipt.label is None
        assert receipt.next_task == labelling.next_task(untrained, user.id)
    assert [one.choice for one in labelling.labels_of(untrained, ann.id)] == [Choice.LEFT]
    assert labelling.labels_of(untrained, ben.id) == [] and untrained.record.revision == revision


def test_everybody_sees_every_pair_and_repeats_come_with_their_sides_swapped(untrained):
    repeats = 0
    for name in ("Ann", "Ben", "Cem", "Dan", "Eva", "Fay", "Gus", "Hal"):
        user = access.join(untrained, name)
        tasks = answer_all(untrained, user.id)
        pairs = Counter(task.pair_id for task in tasks)
        assert len(pairs) == 12 and max(pairs.values()) <= 2
        assert labelling.next_task(untrained, user.id) is None and labelling.progress(untrained, user.id).left == 0
        assert labelling.progress(untrained, user.id).done == len(tasks)
        shown: dict[int, list] = {}
        for task in tasks:
            if task.reason == "repeat":
                repeats += 1
                assert [task.left.id, task.right.id] == shown[task.pair_id][::-1]
            shown[task.pair_id] = [task.left.id, task.right.id]
    lefts = Counter(len(task.left.text) < len(task.right.text) for task in tasks)
    assert len(lefts) == 2  # both sides have shown both kinds of answer


def test_done_stays_done(untrained):
    ann = access.join(untrained, "Ann")
    answer_all(untrained, ann.id)
    assert [labelling.next_task(untrained, ann.id) for _ in range(40)] == [None] * 40


def test_undo_brings_the_pair_back_with_the_same_sides_and_the_label_is_gone(untrained):
    ann = access.join(untrained, "Ann")
    task = labelling.next_task(untrained, ann.id)
    labelling.submit(untrained, task.id, ann.id, Choice.LEFT)
    again = labelling.undo(untrained, ann.id)
    assert (again.pair_id, again.left.id, again.right.id) == (task.pair_id, task.left.id, task.right.id)
    assert labelling.labels_of(untrained, ann.id) == [] and labelling.next_task(untrained, ann.id) == again
    assert labelling.submit(untrained, task.id, ann.id, Choice.RIGHT).label is None  # the old screen is stale
    assert labelling.submit(untrained, again.id, ann.id, Choice.RIGHT).label.choice == Choice.RIGHT
    assert labelling.undo(untrained, access.join(untrained, "Ben").id) is None


@pytest.mark.parametrize("name", ["Ann", "Ben", "Cem"])
def test_clicks_and_undos_in_several_windows_leave_one_answer_per_pair(untrained, name):
    user = access.join(untrained, name)

    def click(n: int) -> None:
        if n % 4 == 3:
            labelling.undo(untrained, user.id)
        elif task := labelling.next_task(untrained, user.id):
            labelling.submit(untrained, task.id, user.id, Choice.LEFT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(click, range(11)))  # too few answers for a pair to be repeated on purpose
    answered = Counter(label.pair_id for label in labelling.labels_of(untrained, user.id))
    assert answered and all(count == 1 for count in answered.values())
    assert labelling.progress(untrained, user.id).done == len(answered)


def test_most_pairs_are_informative_and_a_part_stays_uniform(trained):
    reasons = Counter()
    for n in range(6):
        user = access.join(trained, f"new {n}")
        reasons.update(task.reason for task in answer_all(trained, user.id))
    assert reasons["informative"] > reasons["uniform"] > 0
