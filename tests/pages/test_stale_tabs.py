"""An open tab acts with the rights of now: a person who has been signed out or has a lower role since changes nothing
there, and reads why.  Every act of every page is tried with a real session of a browser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from copl_core.records import Role, User
from copl_core.study import access, labelling, sign_in
from copl_core.study.session import Session
from tests.pages.acts import ACTS, JOIN, a_study, open_act, ready, rows, sign_in_as, somebody

OF_MEMBERS = [act for act in ACTS if act is not JOIN]
ABOVE = [act for act in OF_MEMBERS if act.needs is not Role.ANNOTATOR]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Session:
    return a_study(tmp_path_factory)


def in_another_tab(session: Session, browser: str, user: User) -> None:
    sign_in.end(session.store, browser)


def everywhere_by_an_owner(session: Session, browser: str, user: User) -> None:
    access.sign_out_everywhere(session, user.id)


def forgotten(session: Session, browser: str, user: User) -> None:
    session.store.forget_user(user.id, fewest={"graph": 10, "full": 40})


def named(way: Callable) -> str:
    return way.__name__


def sentences(page, words: Callable) -> str:
    """What a page says, beside it too; it has not failed."""
    shown = "\n".join([words(page), *(one.value for one in page.toast)])
    assert "This page failed" not in shown and not page.exception, shown
    return shown


@pytest.mark.parametrize("act", OF_MEMBERS, ids=str)
def test_a_tab_of_somebody_who_is_signed_out_changes_nothing(study, open_page, as_served, words, act):
    for end in (in_another_tab, everywhere_by_an_owner, forgotten):
        ready(study)
        user = somebody(study)
        browser = sign_in_as(study, user)
        page = open_act(open_page, act, study, user, browser)
        end(study, browser, user)
        before = rows(study)
        act.do(page)
        assert sign_in.SIGNED_OUT in sentences(page, words), end.__name__
        assert rows(study) == before, end.__name__


@pytest.mark.parametrize("act", ABOVE, ids=str)
def test_a_tab_of_somebody_with_a_lower_role_changes_nothing(study, open_page, as_served, words, act):
    ready(study)
    user = somebody(study)
    page = open_act(open_page, act, study, user, sign_in_as(study, user))
    access.set_role(study, user.id, Role.RESEARCHER if act.needs is Role.OWNER else Role.ANNOTATOR)
    before = rows(study)
    act.do(page)
    shown = sentences(page, words)
    assert "of the study may do this" in shown or "Only an owner of the study may change its settings" in shown, shown
    assert rows(study) == before


@pytest.mark.parametrize("name", ["answer", "change an answer", "undo"])
def test_a_tab_of_somebody_who_is_excluded_teaches_nothing(study, open_page, as_served, words, name):
    ready(study)
    act = next(act for act in ACTS if act.name == name)
    user = somebody(study, Role.ANNOTATOR)
    page = open_act(open_page, act, study, user, sign_in_as(study, user))
    access.exclude(study, user.id, True)
    learned, before = study.store.training_data(study.id), rows(study)
    act.do(page)
    sentences(page, words)
    after = study.store.training_data(study.id)
    assert rows(study) != before, "what they do is stored: they keep their labels"
    assert len(after.labels.user) == len(learned.labels.user)


def test_a_tab_that_asks_for_a_name_lets_nobody_in_after_the_study_is_closed(study, open_page, as_served, words):
    ready(study)
    page = open_act(open_page, JOIN, study, somebody(study), "")
    settings = labelling.assignment_settings(study)
    labelling.set_assignment(study, replace(settings, open=False))
    before = rows(study)
    JOIN.do(page)
    assert "invite" in sentences(page, words) and rows(study) == before
    labelling.set_assignment(study, settings)
