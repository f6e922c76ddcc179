"""The verbs of "Would you look at this again?": own labels for their person, all labels for a researcher."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from copl_core.insight.suspects import FEWEST_LABELS
from copl_core.insight.suspects import suspects as found_suspects
from copl_core.records import Choice, CoplError, Kind, Role
from copl_core.study import access, label_quality, labelling, suspects
from copl_core.study_settings import SelectionReason
from tests.worlds import LONG, SHORT, label_in_camp


def with_an_unexpected_label(session, name: str = "Ann", count: int = 11):
    """Somebody who likes short answers and once took the long one; and that label."""
    ann = access.join(session, name)
    label_in_camp(session, ann.id, SHORT, count)
    label_in_camp(session, ann.id, LONG, 1)
    return ann, session.store.labels(session.id, user_id=ann.id)[-1]


def test_before_a_snapshot_there_is_nothing_to_say(untrained):
    ann, _ = with_an_unexpected_label(untrained)
    assert suspects.suspect_labels(untrained) is None and suspects.own_suspects(untrained, ann.id) == ()


def test_a_label_against_the_others_of_its_person_is_asked_about_with_what_the_model_expects(trained):
    ann, label = with_an_unexpected_label(trained)
    (one,) = suspects.own_suspects(trained, ann.id)
    assert one.label == label and one.user == ann
    assert one.preferred.id == label.preferred_id and one.other.id != label.preferred_id
    assert one.other.prompt_id == label.prompt_id and one.expected > 0.8


def test_a_changed_answer_is_not_asked_about_again(trained):
    ann, label = with_an_unexpected_label(trained)
    labelling.edit(trained, label.id, ann.id, label.choice, strength=3, reason="I mean it", tags=())
    assert suspects.own_suspects(trained, ann.id) == ()
    assert ann.id not in {one.user.id for one in suspects.suspect_labels(trained).items}


def test_a_confirmed_label_is_not_asked_about_again_by_anybody_until_the_person_changes_it(trained):
    ann, label = with_an_unexpected_label(trained)
    before, revision = suspects.suspect_labels(trained), trained.store.revision(trained.id)
    with pytest.raises(CoplError, match="belongs to somebody else"):
        suspects.confirm(trained.acting(access.join(trained, "Olga", Role.OWNER).id), label.id, ann.id)
    assert suspects.suspect_labels(trained) == before
    suspects.confirm(trained.acting(ann.id), label.id, ann.id)
    assert suspects.own_suspects(trained, ann.id) == ()
    view = suspects.suspect_labels(trained)
    assert view.n_suspect == before.n_suspect - 1 and label.id not in {one.label.id for one in view.items}
    assert trained.store.revision(trained.id) == revision, "no label has changed, so nothing is fitted again"
    labelling.edit(trained, label.id, ann.id, label.choice, strength=3, reason="", tags=())
    newest = max(trained.store.labels(trained.id, user_id=ann.id), key=lambda one: one.id)
    assert newest.pair_id == label.pair_id and newest.confirmed_at is None


def test_a_repeat_of_a_confirmed_answer_is_not_asked_about_either(trained, monkeypatch):
    """The repeat shows the same pair, with the sides swapped."""
    # Two unexpected answers of twelve make each other less suspect: all that are expected otherwise count as suspect.
    monkeypatch.setattr(suspects, "suspects", lambda strengths: found_suspects(strengths, threshold=0.0))
    ann, label = with_an_unexpected_label(trained)
    while labelling.next_task(trained, ann.id) is not None:  # an open task would be handed out again
        label_in_camp(trained, ann.id, SHORT, 1)
    later = datetime.now(UTC) + timedelta(hours=1)
    first = trained.store.pair(label.pair_id).first.id
    task = trained.store.hand_out(
        ann.id, label.pair_id, swap=label.left_id == first, reason=SelectionReason.REPEAT, expires_at=later
    )
    same = Choice.LEFT if task.left.id == label.preferred_id else Choice.RIGHT
    again = labelling.submit(trained, task.id, ann.id, same).label
    assert again.preferred_id == label.preferred_id
    assert {one.label.id for one in suspects.own_suspects(trained, ann.id)} == {label.id, again.id}
    suspects.confirm(trained, again.id, ann.id)
    assert suspects.own_suspects(trained, ann.id) == ()
    assert ann.id not in {one.user.id for one in suspects.suspect_labels(trained).items}


def test_somebody_with_few_labels_or_no_clear_taste_is_asked_nothing(trained):
    few, _ = with_an_unexpected_label(trained, "Few", FEWEST_LABELS - 2)
    assert suspects.own_suspects(trained, few.id) == ()
    random = access.join(trained, "Random")
    for camp in (SHORT, LONG) * 6:
        label_in_camp(trained, random.id, camp, 1)
    assert suspects.own_suspects(trained, random.id) == ()


def test_a_researcher_sees_the_most_suspect_labels_of_the_study_and_an_annotator_does_not(trained):
    ann, label = with_an_unexpected_label(trained)
    view = suspects.suspect_labels(trained)
    assert label.id in {one.label.id for one in view.items} and view.snapshot == "v0001"
    assert len(view.items) <= suspects.MOST and view.n_suspect >= len(view.items) and view.n_users <= 17
    expected = [one.expected for one in view.items]
    assert expected == sorted(expected, reverse=True) and expected[-1] > 0.8
    assert suspects.suspect_labels(trained) is view  # nothing changed in between
    with pytest.raises(CoplError, match="only a researcher or an owner"):
        suspects.suspect_labels(trained.acting(ann.id))
    bob = access.join(trained, "Bob", Role.RESEARCHER)
    with pytest.raises(CoplError, match="belongs to somebody else"):
        suspects.own_suspects(trained.acting(bob.id), ann.id)


def test_an_excluded_person_is_not_on_the_list(trained):
    ann, _ = with_an_unexpected_label(trained)
    access.exclude(trained, ann.id, True)
    assert ann.id not in {one.user.id for one in suspects.suspect_labels(trained).items}


def test_a_taken_back_label_is_not_on_the_list(trained):
    ann, label = with_an_unexpected_label(trained)
    labelling.edit(trained, label.id, ann.id, Choice.TIE, strength=1, reason="", tags=())
    assert label.id not in {one.label.id for one in suspects.suspect_labels(trained).items}


def test_the_labels_looked_at_are_those_that_train_the_model(trained):
    """With a person who is excluded, a language model and an answer to a gold pair, which train nothing."""
    ann, _ = with_an_unexpected_label(trained)
    bob, model = access.join(trained, "Bob"), trained.store.create_user(trained.id, "Model", kind=Kind.MODEL)
    for user in (bob, model):
        label_in_camp(trained, user.id, SHORT, 3)
    access.exclude(trained, bob.id, True)
    cem = access.join(trained, "Cem")
    task = labelling.next_task(trained, cem.id)
    labelling.submit(trained, task.id, cem.id, Choice.LEFT, strength=3)
    gold, first, _ = next(pair for pair in trained.store.pairs(trained.id) if pair[0] != task.pair_id)
    labelling.set_gold(trained, gold, first)
    later = datetime.now(UTC) + timedelta(hours=1)
    dan = access.join(trained, "Dan")
    check = trained.store.hand_out(dan.id, gold, swap=False, reason=SelectionReason.GOLD, expires_at=later)
    assert check.reason == SelectionReason.GOLD
    labelling.submit(trained, check.id, dan.id, Choice.LEFT)

    def found() -> list[tuple]:
        answers = label_quality.preferences(trained)
        columns = (answers.user, answers.left, answers.right, answers.choice, answers.strength, answers.position_known)
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    def learned() -> list[tuple]:
        data = trained.store.training_data(trained.id)
        labels = data.labels
        choice = np.where(labels.both_bad, 3, np.select([labels.outcome == 1, labels.outcome == 0], [0, 1], 2))
        columns = (
            data.user_ids[labels.user],
            data.response_ids[labels.left],
            data.response_ids[labels.right],
            choice,
            labels.strength.astype(int),
            labels.position_known,
        )
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    assert found() == learned() and len(found()) < len(trained.store.answers(trained.id))
    assert not {bob.id, model.id} & {user for user, *_ in found()}
    access.include_models(trained, True)
    assert found() == learned() and model.id in {user for user, *_ in found()}
    access.exclude(trained, bob.id, False)
    assert found() == learned() and bob.id in {user for user, *_ in found()}
