"""Leaving by a page: nothing happens without the right name, and afterwards nobody is there."""

from __future__ import annotations

import json

import pytest

from copl_core.records import Role
from copl_core.study import access, forget
from pages.leaving import LEFT


def test_a_person_deletes_themselves_by_typing_their_name(session, owner, open_page, words, label):
    ann = access.join(session, "Ann *Star*")
    label(session, ann, 3, reason="because")
    page = open_page("taste", session, ann, **{"delete-me": True})
    assert "3 answers. These go for good: answers, reasons, tags" in words(page)
    page.text_input(key=f"leaving-name-{ann.id}").set_value("Ann")
    page.button(key=f"leave-{ann.id}").click().run()
    assert "Nothing is deleted: the name to type is" in words(page)
    assert len(session.store.labels(session.id, user_id=ann.id)) == 3
    page.text_input(key=f"leaving-name-{ann.id}").set_value("Ann *Star*")
    page.button(key=f"leave-{ann.id}").click().run()
    assert not page.exception and session.store.member(session.id, ann.id) is None
    assert page.session_state[LEFT][0] == "Deleted for good: 3 labels, 3 reasons, name and all ways to sign in."


def test_the_only_owner_is_told_why_they_cannot_leave(session, owner, open_page, words):
    page = open_page("taste", session, owner, **{"delete-me": True})
    page.text_input(key=f"leaving-name-{owner.id}").set_value("Olga")
    page.button(key=f"leave-{owner.id}").click().run()
    assert "Olga is the only owner of the study" in words(page)


def test_an_owner_deletes_somebody_on_the_study_page(session, owner, open_page, words):
    ann = access.join(session, "Ann")
    page = open_page("settings", session, owner, **{"members-person": ann.id, f"delete-{ann.id}": True})
    page.text_input(key=f"leaving-name-{ann.id}").set_value("Ann")
    page.button(key=f"leave-{ann.id}").click().run()
    assert not page.exception and "Deleted for good: name and all ways to sign in" in words(page)
    assert session.store.user_named(session.id, "Ann") is None


def test_the_file_of_the_download_button_is_the_persons_data(session, open_page, label):
    from pages.leaving import _file

    ann = access.join(session, "Ann")
    label(session, ann, 2)
    open_page("taste", session, ann)
    data = json.loads(_file(session.acting(ann.id), ann))
    assert data["person"]["name"] == "Ann" and len(data["labels"]) == 2


@pytest.mark.parametrize(
    "name",
    ["overview", "label", "taste", "people", "controversy", "experts", "reward", "training", "quality", "settings"],
)
def test_every_page_opens_after_somebody_has_left(camps, open_page, name):
    olga, ann = access.join(camps, "Olga", Role.OWNER), access.join(camps, "Ann")
    forget.forget(camps, ann.id)
    forget.forget(camps, next(user.id for user in camps.store.users(camps.id) if user.id not in (olga.id, ann.id)))
    open_page(name, camps, olga)
