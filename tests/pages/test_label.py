"""The labelling page: what it says on the way, and what it keeps."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from copl_core.records import Choice, CoplError, ImportRow, Role, StoreUnavailable, User
from copl_core.study import access, contents, labelling, sign_in, small_map
from copl_core.study_settings import AssignmentSettings
from pages.common import count_people
from tests.worlds import LONG, SHORT, label_in_camp, open_study


@pytest.fixture
def ann(camps):
    return access.join(camps, "Ann")


ON_THE_WAY = re.compile("So far, among 16 simulated people, |Nearest among 16 simulated people, so far: ")


def html(page) -> str:
    return "\n".join(one.proto.body for one in page.get("html"))


def press(page, words: str):
    return next(button for button in page.button if button.label == words).click().run()


def test_a_first_visit_says_why_and_the_way_to_ten_is_counted(camps, ann, open_page, words):
    page = open_page("label", camps, ann)
    assert "shows you who answers like you" in words(page) and "0 of 10" in html(page)
    press(page, "A is better")
    assert "shows you who answers like you" not in words(page) and "1 of 10" in html(page)
    assert "1 answered" in words(page) and 'class="star"' in html(page)


def test_ones_own_link_comes_after_the_first_answer_and_is_one_line_after_the_second(camps, ann, open_page, words):
    page = open_page("label", camps, ann, joined=True)
    assert not page.code
    press(page, "A is better")
    assert len(page.code) == 1 and "your own sign-in link" in words(page)
    assert "“Create a sign-in link” under “Account” in the menu makes another" in words(page)
    link = page.code[0].value
    press(page, "A is better")
    (closed,) = (one for one in page.expander if one.label == "Keep your own sign-in link")
    assert not closed.proto.expanded and not page.code, "the secret is not on the screen"
    page.session_state["welcome-link"] = True
    page.run()
    assert [one.value for one in page.code] == [link]
    press(page, "I have kept it")
    assert not page.code


def test_ten_answers_lead_on_and_the_last_one_says_all_done(camps, ann, open_page, label, words):
    label(camps, ann, 10)
    page = open_page("label", camps, ann)
    assert "10 answers " in words(page) and ON_THE_WAY.search(words(page))
    labelling.set_assignment(camps, AssignmentSettings(repeats=0.0))
    while (task := labelling.next_task(camps, ann.id)) is not None:
        labelling.submit(camps, task.id, ann.id, Choice.RIGHT)
    page.run()
    assert [one.value for one in page.title] == ["All done"] and ON_THE_WAY.search(words(page))


@pytest.mark.parametrize(
    ("camps_answered", "strip", "card", "taste"),
    [
        ((SHORT,), "you answer most like", "10 answers show where you stand", "you answer most like"),
        (
            (SHORT, LONG),
            "no group is clear yet",
            "10 answers give a first, rough picture",
            "**A first picture, still rough.**",
        ),
    ],
)
def test_strip_and_card_at_ten_answers_claim_what_my_taste_shows(
    camps, ann, open_page, words, camps_answered, strip, card, taste
):
    for n in range(10):
        label_in_camp(camps, ann.id, camps_answered[n % len(camps_answered)], 1)
    page = open_page("label", camps, ann)
    assert card in words(page) and strip in html(page)
    assert taste in words(open_page("taste", camps, ann))


def test_the_texts_are_set_as_the_study_says(session, owner, open_page):
    for text_format, plain in (("plain", True), ("markdown", False)):
        labelling.set_assignment(session, AssignmentSettings(text_format=text_format))
        assert ('class="copl-text plain' in html(open_page("label", session, owner))) == plain


def test_guidelines_are_open_until_an_answer_is_given_under_them(session, owner, open_page):
    labelling.write_guidelines(session, "Be fair.", by=owner.id)
    page = open_page("label", session, owner)

    def opened() -> list[bool]:
        return [one.proto.expanded for one in page.expander if one.label.startswith("Guidelines")]

    assert opened() == [True]
    press(page, "B is better")
    assert opened() == []
    labelling.write_guidelines(session, "Be quick.", by=owner.id)
    page.run()
    assert opened() == [True]
    assert not [one for one in open_page("label", session, owner).expander if "version 1" in one.label]


def test_a_draft_is_in_the_fields_again_and_typing_never_closes_them(session, owner, open_page):
    page = open_page("label", session, owner)
    task = labelling.next_task(session, owner.id)
    page.text_area(key=f"reason-{task.id}").set_value("plain words").run()
    assert labelling.draft(session, task.id, owner.id).text == "plain words"
    again = open_page("label", session, owner)
    assert again.text_area(key=f"reason-{task.id}").value == "plain words"
    again.text_area(key=f"reason-{task.id}").set_value("").run()
    assert next(one for one in again.expander if one.label.startswith("Say why")).proto.expanded
    press(again, "A is better")
    assert labelling.history(session, owner.id)[0].reason == ""


def test_an_act_that_fails_says_why_and_stores_nothing(session, owner, open_page, monkeypatch):
    page = open_page("label", session, owner)

    def busy(*_, **__):
        raise CoplError("The database was busy for 5 seconds; try again. Nothing was saved.")

    with monkeypatch.context() as broken:
        broken.setattr(labelling, "submit", busy)
        press(page, "A is better")
    assert not page.exception and "try again" in page.toast[0].value
    press(page, "A is better")
    assert labelling.progress(session, owner.id).done == 1


@pytest.mark.parametrize("problem", [sign_in.SIGNED_OUT, "The database is away; nothing was saved."])
def test_what_ends_the_page_too_is_shown_once(session, owner, open_page, problem):
    def gone() -> User:
        raise CoplError(problem)

    page = open_page("label", session, owner, again=lambda: owner)
    page.session_state["again"] = gone
    press(page, "A is better")
    assert [one.value for one in page.error] == [problem] and not page.toast
    page.session_state["again"] = lambda: owner
    page.run()
    assert not page.error and not page.toast, "it is not shown later"


@pytest.mark.parametrize("back", [False, True])
def test_what_only_a_callback_met_is_shown_beside_the_page_that_follows(session, owner, back):
    def page() -> None:
        import streamlit as st

        from pages.common import current, set_current

        session, user = st.session_state["session"], st.session_state["user"]
        set_current(session, user, lambda: user)
        if user is not None:
            current()

    shown = AppTest.from_function(page)
    shown.session_state["session"], shown.session_state["user"] = session, owner if back else None
    shown.session_state["callback problem"] = sign_in.SIGNED_OUT
    shown.run()
    assert [one.value for one in shown.toast] == [sign_in.SIGNED_OUT] and not shown.error
    assert not shown.run().toast


@pytest.mark.parametrize(
    ("n", "simulated", "words"),
    [
        (1200, 0, "1,200 people"),
        (150, 150, "150 simulated people"),
        (20, 5, "20 people (5 of them simulated)"),
        (0, 0, "0 people"),
    ],
)
def test_a_number_of_people_says_how_many_are_simulated(n, simulated, words):
    assert count_people(n, simulated) == words


@pytest.fixture
def away(monkeypatch):
    """Makes the database unavailable for a number of tries, and then stores."""
    stored = labelling.submit

    def for_tries(n: int, first_stores: bool = False) -> list[int]:
        tries = []

        def submit(*given, **named):
            tries.append(1)
            if len(tries) > n:
                return stored(*given, **named)
            if first_stores and len(tries) == 1:
                stored(*given, **named)
            raise StoreUnavailable(
                "The disk of the database is full; free some space and try again. Nothing was saved."
            )

        monkeypatch.setattr(labelling, "submit", submit)
        return tries

    return for_tries


@pytest.mark.parametrize("first_stores", [False, True])
def test_an_answer_that_is_not_stored_is_kept_and_sent_again(session, owner, open_page, words, away, first_stores):
    page, tries = open_page("label", session, owner), away(3, first_stores)
    task = labelling.next_task(session, owner.id)
    page.text_area(key=f"reason-{task.id}").set_value("plain words").run()
    press(page, "A is better")
    assert "Not saved yet, trying again" in words(page) and "disk of the database is full" in words(page)
    assert not [button for button in page.button if button.label == "B is better"]
    while len(tries) < 3:
        page.run()
        assert "Not saved yet" in words(page)
    page.run()
    page.run()
    assert "Not saved yet" not in words(page) and "1 answered" in words(page)
    (label,) = labelling.history(session, owner.id)
    assert (label.task_id, label.choice, label.reason) == (task.id, Choice.LEFT, "plain words")


def test_an_answer_is_kept_where_the_database_is_away_already_as_its_person_is_looked_up(
    session, owner, open_page, words, monkeypatch
):
    page, is_away, known = open_page("label", session, owner), True, access.user
    task = labelling.next_task(session, owner.id)

    def user(*arguments):
        if is_away:
            raise StoreUnavailable("The database server does not answer, so nothing was saved; try again.")
        return known(*arguments)

    monkeypatch.setattr(access, "user", user)
    press(page, "A is better")
    for _ in range(3):
        assert "Not saved yet, trying again" in words(page) and "does not answer" in words(page)
        assert "nothing was saved" not in words(page) and not page.exception
        page.run()
    is_away = False
    page.run()
    page.run()
    assert "does not answer" not in words(page) and "1 answered" in words(page)
    (label,) = labelling.history(session, owner.id)
    assert (label.task_id, label.choice) == (task.id, Choice.LEFT)


def test_an_answer_that_is_refused_at_last_says_why_and_labelling_goes_on(session, owner, open_page, words, away):
    page, tries = open_page("label", session, owner), away(1)
    task = labelling.next_task(session, owner.id)
    press(page, "A is better")
    labelling.skip(session, task.id, owner.id)
    page.run()
    assert "closed meanwhile, so your answer was not stored" in words(page)
    assert [button for button in page.button if button.label == "B is better"] and tries
    assert labelling.history(session, owner.id) == []


def test_a_report_names_the_answer_that_the_person_has_chosen_and_no_other(session, owner, open_page, words):
    page = open_page("label", session, owner)
    (side,) = (one for one in page.radio if one.key.startswith("report-side-"))
    assert side.value is None
    next(one for one in page.text_area if one.key.startswith("report-")).set_value("It breaks off.")
    press(page, "Send to the study's owner")
    assert "choose the answer that the problem is with" in words(page) and labelling.reports(session) == []
    task = labelling.next_task(session, owner.id)
    next(one for one in page.radio if one.key.startswith("report-side-")).set_value("B")
    press(page, "Send to the study's owner")
    assert [one.response_id for one in labelling.reports(session)] == [task.right.id]


def placed(camps, n: int, xy: tuple[float, float] | None, group: int | None = None):
    """A small map of so many people, and a person on it who has answered."""
    ann = access.join(camps, f"Ann {n}")
    found, position = small_map.small_map(camps, ann.id)
    return replace(found, n_placed=n), replace(position, n_labels=12, xy=xy, group=group)


def test_the_small_map_is_shown_once_three_people_are_on_it(camps, ann, open_page, monkeypatch):
    for n in (2, 3):
        found = placed(camps, n, None)
        with monkeypatch.context() as few:
            few.setattr(small_map, "small_map", lambda *_, found=found: found)
            page = open_page("label", camps, ann)
        assert ('class="map"' in html(page)) == (n == 3)
        assert ("The map appears once 3 people have a place on it" in html(page)) == (n == 2)
        assert "Nobody else has answered these pairs yet" in html(page)


def test_the_star_stays_inside_the_small_map(camps, ann, open_page, monkeypatch):
    for corner in ((-1e3, -1e3), (1e3, 1e3)):
        found = placed(camps, 16, corner, 0)
        with monkeypatch.context() as one:
            one.setattr(small_map, "small_map", lambda *_, found=found: found)
            page = open_page("label", camps, ann)
        left, top = map(float, re.search(r"left:([\d.]+)px;top:([\d.]+)px", html(page)).groups())
        assert 10 <= left <= 140 and 11 <= top <= 45


def heights(block) -> list[int]:
    """The heights in px of the boxes of a page that have one."""
    block = getattr(block, "_tree", block)
    own = getattr(getattr(block, "proto", None), "height_config", None)
    found = [own.pixel_height] if own is not None and own.pixel_height else []
    return found + [one for child in getattr(block, "children", {}).values() for one in heights(child)]


def test_a_long_answer_is_folded_on_a_phone_until_it_is_wanted_whole(tmp_path, open_page, monkeypatch):
    session = open_study(tmp_path)
    owner = access.join(session, "Olga", Role.OWNER)
    contents.import_rows(session, [ImportRow(1, "Why?", "word " * 6000, "Because.")])
    for touch in (False, True):
        monkeypatch.setattr("pages.common.on_touch", lambda touch=touch: touch)
        page = open_page("label", session, owner)
        assert len([one for one in page.toggle if one.label.startswith("Show all of ")]) == touch
    assert heights(page) == [420]
    page.toggle[0].set_value(True).run()
    assert heights(page) == []
