"""Counts that everybody sees: what My taste shows of them, and their settings on Study, Privacy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from copl_core.records import Role
from copl_core.study import access, labelling, shared
from copl_core.study_settings import SharedDay

TODAY = datetime.now(UTC).date()


@pytest.fixture
def ann(session, label):
    ann = access.join(session, "Ann")
    label(session, ann, 2)
    return ann


def sharing(session, days: int) -> None:
    shared.share(session, 1.0, 5.0)
    settings = labelling.assignment_settings(session)
    since = (TODAY - timedelta(days)).isoformat()
    labelling.set_assignment(session, replace(settings, shared_since=since))


def test_nothing_is_shown_before_an_owner_shares_counts(session, ann, open_page, words):
    assert "What everybody prefers" not in words(open_page("taste", session, ann))


def test_counts_are_shown_with_their_noise_and_are_the_same_at_every_visit(session, ann, open_page, words):
    sharing(session, 2)
    days = [SharedDay(TODAY - timedelta(n), 1.0, 400, {"m": (300, 100), "n": (100, 300)}) for n in (2, 1)]
    session.store.keep_shared(session.id, days)
    page = open_page("taste", session, ann)
    shown = words(page)
    assert "people gave **about 800 answers**, give or take" in shown and "**The numbers have noise**" in shown
    assert "noise of ε = 1, and is the same however often it is read" in shown and "up to ε = 5 over all days" in shown
    (table,) = [one.value for one in page.dataframe if "source" in one.value.columns]
    assert table["source"].tolist() == ["m", "n"] and table["answers for it"].tolist() == [600, 200]
    assert table["preferred"].str.match(r"(75|25)% ± \d+ points").all()
    assert words(open_page("taste", session, ann)) == shown


def test_the_first_day_has_no_counts_yet(session, ann, open_page, words):
    sharing(session, 0)
    assert "The first counts appear once a day is over" in words(open_page("taste", session, ann))


def test_an_owner_switches_them_on_and_off_and_saving_the_assignment_keeps_them(session, open_page, words):
    olga = access.join(session, "Olga", Role.OWNER)
    page = open_page("settings", session, olga, **{"settings-part": "Privacy"})
    page.toggle(key="shared-on").set_value(True)
    page.number_input(key="shared-epsilon").set_value(0.5)
    page.number_input(key="shared-total").set_value(3.0)
    page.button(key="shared-save").click().run()
    assert "Saved. Counts are released at the end of each day (UTC)." in words(page)
    on = labelling.assignment_settings(session)
    assert (on.shared_epsilon, on.shared_total, on.shared_since) == (0.5, 3.0, TODAY.isoformat())
    assignment = open_page("settings", session, olga, **{"settings-part": "Assignment"})
    assignment.button(key="assignment-save").click().run()
    assert labelling.assignment_settings(session) == on
    page.toggle(key="shared-on").set_value(False)
    page.button(key="shared-save").click().run()
    assert "Saved. Nobody sees counts now." in words(page) and shared.counts(session) is None


def test_a_total_below_a_day_is_a_sentence_and_changes_nothing(session, open_page, words):
    olga = access.join(session, "Olga", Role.OWNER)
    page = open_page("settings", session, olga, **{"settings-part": "Privacy"})
    page.toggle(key="shared-on").set_value(True)
    page.number_input(key="shared-total").set_value(0.5)
    page.button(key="shared-save").click().run()
    assert "give at least that of a day (1)" in words(page)
    assert not labelling.assignment_settings(session).shared_epsilon
