"""Leaving by a page: nothing happens without the right name, and afterwards nobody is there."""

from __future__ import annotations

import json

import pytest

from copl_core.records import Choice, Role
from copl_core.study import access, forget, labelling
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
    assert page.session_state[LEFT] == ["Deleted for good: your 3 answers, your name and all your ways to sign in."]


def test_the_same_answers_are_counted_before_and_after_and_the_person_reads_no_jargon(camps, open_page, words, label):
    session, ann = camps, access.join(camps, "Ann")
    access.join(session, "Olga", Role.OWNER)
    label(session, ann, 3)
    labelling.undo(session, ann.id)
    labelling.edit(session, labelling.history(session, ann.id)[0].id, ann.id, Choice.TIE)
    page = open_page("taste", session, ann, **{"delete-me": True})
    before = words(page)
    assert "2 answers. These go for good" in before and "the model goes on without you" in before.lower()
    page.text_input(key=f"leaving-name-{ann.id}").set_value("Ann")
    page.button(key=f"leave-{ann.id}").click().run()
    (sentence,) = page.session_state[LEFT]
    assert sentence.startswith("Deleted for good: your 2 answers, your name and")
    assert not {"Run", "Snapshot", "snapshot", "labels", "v0001"} & set(sentence.split())


def test_an_owner_reads_what_went_and_what_is_left_to_do(camps, label):
    ann = access.join(camps, "Ann")
    label(camps, ann, 3)
    labelling.undo(camps, ann.id)
    done = " ".join(forget.in_words(forget.forget(camps, ann.id)))
    assert "Deleted for good: 2 answers, 3 labels in all, with changed and undone answers and checks, name" in done
    assert "trains from scratch without them" in done or "Too few labels" in done


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
