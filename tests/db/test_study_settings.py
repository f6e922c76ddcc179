"""Settings, guidelines and reports of a study."""

from __future__ import annotations

from collections import Counter

import pytest

from copl_core.records import CoplError
from copl_core.study_settings import AssignmentSettings


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
    outsider = store.create_user(store.create_study("Trees").id, "Eve")
    with pytest.raises(CoplError, match="not in this study"):
        store.report(outsider.id, four_pairs[0][1], "It is odd.")
    with pytest.raises(CoplError, match="characters"):
        store.report(ann.id, four_pairs[0][1], "  ")
    with pytest.raises(CoplError, match="in this study"):
        store.resolve(study.id, 99)
