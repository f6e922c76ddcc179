"""The verbs of the My taste page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from copl_core.demo.world import demo_rows, load_prompts, tastes, utility
from copl_core.features import FEATURE_NAMES, measure
from copl_core.records import Choice, CoplError, Kind
from copl_core.study import access, contents, labelling, user_profile
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from tests.worlds import SHORT, label_in_camp, open_study, pairs_to_label


@pytest.fixture
def session(tmp_path) -> Session:
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(12))
    labelling.set_assignment(session, AssignmentSettings(order="imported", repeats=0, gold=0))
    return session


def test_a_user_without_labels_gets_an_empty_profile(session):
    view = user_profile.profile(session, access.join(session, "Ann").id)
    assert (view.n_labels, view.leanings, view.position, view.snapshot, view.problem) == (0, (), None, None, "")
    assert view.consistent.n == 0 and user_profile.answer_history(session, access.join(session, "Ann").id) == ()


def test_a_study_without_pairs_is_no_error(tmp_path):
    empty = open_study(tmp_path)
    assert user_profile.profile(empty, access.join(empty, "Ann").id).leanings == ()


def test_statements_from_labels_need_no_snapshot(session):
    ann = access.join(session, "Ann")
    label_in_camp(session, ann.id, SHORT, 12)
    view = user_profile.profile(session, ann.id)
    assert view.n_decided == 12 and view.n_prompts == 12 and view.snapshot is None
    assert view.leanings and {one.source for one in view.leanings} == {"labels"}
    assert "shorter answers" in {word for one in view.leanings for word in (one.words, *one.correlated)}
    assert user_profile.profile(session, ann.id) == view  # the same labels give the same statements


def test_evidence_is_every_decided_label_furthest_ahead_first_with_its_own_texts(session):
    ann = access.join(session, "Ann")
    label_in_camp(session, ann.id, SHORT, 5)
    task = labelling.next_task(session, ann.id)
    labelling.submit(session, task.id, ann.id, Choice.TIE)
    rows = user_profile.evidence(session, ann.id, "length")
    assert len(rows) == 5 and [row.ahead for row in rows] == sorted((row.ahead for row in rows), reverse=True)
    at = FEATURE_NAMES.index("length")
    for row in rows:
        assert row.preferred.id == row.label.preferred_id
        assert {row.preferred.id, row.rejected.id} == {row.label.left_id, row.label.right_id}
        apart = measure(row.preferred.text)[at] - measure(row.rejected.text)[at]
        assert np.sign(apart) == np.sign(row.ahead) == -1
    with pytest.raises(CoplError, match="no feature 'colour'"):
        user_profile.evidence(session, ann.id, "colour")


def test_an_answer_changed_twice_stands_once_with_both_before_it(session):
    ann = access.join(session, "Ann")
    label_in_camp(session, ann.id, SHORT, 2)
    first = labelling.labels_of(session, ann.id)[0]
    second = labelling.edit(session, first.id, ann.id, Choice.TIE)
    third = labelling.edit(session, second.id, ann.id, Choice.BOTH_BAD, reason="Neither.")
    past = {one.label.id: one for one in user_profile.answer_history(session, ann.id)}
    assert len(past) == 2 and [one.id for one in past[third.id].superseded] == [second.id, first.id]
    assert (past[third.id].left.id, past[third.id].right.id) == (first.left_id, first.right_id)
    assert past[third.id].prompt.startswith("What about number")


def test_consistency_counts_pairs_that_came_again_by_response_not_by_side(session, monkeypatch):
    new, one = np.random.default_rng, np.random.default_rng(0)  # a draw without repeats would leave nothing to count
    monkeypatch.setattr("numpy.random.default_rng", lambda *seed: new(*seed) if seed else one)
    labelling.set_assignment(session, AssignmentSettings(order="imported", uniform=0, repeats=0.5, gold=0))
    ann = access.join(session, "Ann")
    seen: dict[int, int] = {}
    same = again = 0
    while task := labelling.next_task(session, ann.id):
        choice = Choice.RIGHT if len(seen) % 3 == 2 else Choice.LEFT
        preferred = (task.left if choice == Choice.LEFT else task.right).id
        again += task.pair_id in seen
        same += seen.get(task.pair_id) == preferred
        seen[task.pair_id] = preferred
        labelling.submit(session, task.id, ann.id, choice)
    found = user_profile.profile(session, ann.id).consistent
    assert again > 0 and (found.hits, found.n) == (same, again)


def test_a_large_study_is_measured_on_a_sample_of_its_pairs(session, monkeypatch):
    monkeypatch.setattr("copl_core.study.user_profile._PAIRS", 5)
    ann = access.join(session, "Ann")
    label_in_camp(session, ann.id, SHORT, 12)
    view = user_profile.profile(session, ann.id)
    assert view.n_pairs == 5 and view.n_decided == 12 and view.leanings


def test_pairs_are_found_by_words_of_the_question_or_of_either_answer(session):
    assert contents.find_pairs(session, "NUMBER 3")[1] == 1
    found, count = contents.find_pairs(session, "good deal", limit=4)
    assert (len(found), count) == (4, 12) and contents.pair(session, found[0].id) == found[0]
    assert contents.find_pairs(session, "zebra") == ([], 0)


def test_statements_about_simulated_users_agree_with_their_true_taste(tmp_path):
    """With seventeen noisy labels each there are few statements, and they point the right way."""
    session = open_study(tmp_path)
    contents.import_rows(session, demo_rows(seed=0))
    styles = {response.text.strip(): response.style for prompt in load_prompts() for response in prompt.responses}
    pairs = contents.find_pairs(session, "", limit=1000)[0]
    apart = np.array([measure(pair.first.text) - measure(pair.second.text) for pair in pairs])
    leans = {}
    for name, taste in tastes().items():
        gap = [
            utility(taste, styles[pair.first.text.strip()]) - utility(taste, styles[pair.second.text.strip()])
            for pair in pairs
        ]
        leans[name] = (np.sign(gap)[:, None] * apart).mean(0)
    stated = right = 0
    for user in [user for user in access.users(session) if user.kind == Kind.SIMULATED][::3]:
        for one in user_profile.profile(session, user.id).leanings:
            stated += 1
            right += np.sign(one.effect) == np.sign(leans[user.true_group][FEATURE_NAMES.index(one.feature)])
    assert stated >= 20 and right >= 0.9 * stated


def test_an_answer_after_a_clock_that_was_ahead_is_the_one_given_again(session, monkeypatch):
    ann = access.join(session, "Ann")
    pair, ahead = session.store.pairs(session.id)[0][0], timedelta(days=365)
    given = []
    for reason, off in (("uniform", ahead), ("repeat", timedelta())):
        monkeypatch.setattr("db.labelling.now", lambda off=off: datetime.now(UTC) + off)
        later = datetime.now(UTC) + ahead + timedelta(hours=1)
        task = session.store.hand_out(ann.id, pair, swap=False, reason=reason, expires_at=later)
        given.append(session.store.submit(task.id, ann.id, Choice.LEFT))
    past = user_profile.answer_history(session, ann.id)
    assert [(one.label.id, one.again) for one in past] == [(given[1].id, True), (given[0].id, False)]
