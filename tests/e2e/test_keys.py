"""Every keypress labels the pair that the person saw: real key events, two tabs, a reload."""

from __future__ import annotations

import re
import sqlite3

import pytest

from tests.e2e.conftest import quiet

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


def rows(studio, person: str, query: str) -> list[tuple]:
    """One person's labels in the database, oldest first."""
    with sqlite3.connect(f"file:{studio.home / 'copl.db'}?mode=ro", uri=True) as database:
        return database.execute(query + " WHERE user.name = ? ORDER BY label.id", (person,)).fetchall()


def labels(studio, person: str) -> list[tuple]:
    """(task, choice, strength) of the person's labels that count, oldest first."""
    return [
        row[:3]
        for row in rows(
            studio,
            person,
            "SELECT label.task_id, label.choice, label.strength, label.counts "
            "FROM label JOIN user ON user.id = label.user_id",
        )
        if row[3]
    ]


def opening(page) -> str:
    """The first line of the left answer: code further down is drawn a moment later."""
    return page.locator(".st-key-response-left", has_text=re.compile(r"\w")).inner_text().strip().partition("\n")[0]


@pytest.fixture
def room(app, ready, request):
    """The labelling page of a new person, and their name."""
    person = request.node.name
    page = app.open(owner=False)
    page.get_by_label("Your name or a nickname").fill(person)
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("0 answered").wait_for()
    return ready(page), person


def press(page, key: str) -> None:
    page.keyboard.press(key)
    quiet(page)


def test_each_key_does_what_it_says(room, studio, ready):
    page, person = room
    for n, key in enumerate(("1", "Shift+Digit2", "q", "0", "9"), 1):
        page.keyboard.press(key)
        page.get_by_text(f"{n} answered").wait_for()
        ready(page)
    assert [row[1:] for row in labels(studio, person)] == [
        ("left", 2),
        ("right", 3),
        ("left", 1),
        ("tie", 1),
        ("both_bad", 1),
    ]


def test_a_skip_stores_no_label_and_undo_brings_the_last_pair_back(room, studio):
    page, person = room
    first = opening(page)
    press(page, "1")
    page.get_by_text("1 answered").wait_for()
    press(page, "Backspace")
    page.get_by_text("0 answered").wait_for()
    expect(page.locator(".st-key-response-left")).to_contain_text(first, use_inner_text=True)
    press(page, "s")
    page.get_by_text("Skipped").wait_for()
    expect(page.locator(".st-key-response-left")).not_to_contain_text(first, use_inner_text=True)
    assert labels(studio, person) == []


def test_six_presses_at_sixty_milliseconds_store_each_pair_at_most_once(room, studio):
    page, person = room
    for _ in range(6):
        page.keyboard.press("1", delay=60)
    quiet(page, 1000)
    stored = labels(studio, person)
    assert 1 <= len(stored) <= 6
    assert len({task for task, *_ in stored}) == len(stored)
    page.get_by_text(f"{len(stored)} answered").wait_for()


def test_a_stale_tab_never_votes_on_a_pair_it_does_not_show(room, studio, ready):
    page, person = room
    other = page.context.new_page()
    other.goto(page.url)
    ready(other)
    expect(other.locator(".st-key-response-left")).to_contain_text(opening(page), use_inner_text=True)
    press(page, "1")
    page.get_by_text("1 answered").wait_for()
    press(other, "2")
    other.get_by_text("closed already").wait_for()
    assert [row[1] for row in labels(studio, person)] == ["left"]


def test_keys_rest_while_a_reason_is_typed_and_the_draft_survives_a_reload(room, studio):
    page, person = room
    page.get_by_text("Say why (optional)").click()
    words = page.get_by_role("textbox", name="In your words")
    words.click()
    words.press_sequentially("a 1 and a 2")
    words.blur()
    quiet(page).reload()
    words.wait_for()
    expect(words).to_have_value("a 1 and a 2")
    assert labels(studio, person) == []
    words.click()
    words.press_sequentially("!")
    quiet(page, 800).keyboard.press("Escape")  # after the pause in which the words are sent
    press(page, "1")
    page.get_by_text("1 answered").wait_for()
    assert [row[1] for row in labels(studio, person)] == ["left"]


def test_the_question_stays_in_sight_below_the_bar_of_the_app(room):
    page, _ = room
    page.set_viewport_size({"width": 1440, "height": 500})
    page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 400)")
    quiet(page)
    bar, head = page.get_by_test_id("stHeader").bounding_box(), page.locator(".st-key-head").bounding_box()
    assert page.get_by_test_id("stMain").evaluate("main => main.scrollTop") > 100
    assert bar["y"] + bar["height"] - 1 <= head["y"] < bar["height"] + 10


def test_an_annotator_sees_two_pages_and_no_other_by_address(room, app, settled):
    page, _ = room
    menu = page.locator("[data-testid=stSidebarNavLink]").all_inner_texts()
    assert [entry.split()[-1] for entry in menu] == ["Label", "taste"]
    page.goto(f"{app.url}/people")
    settled(page)
    assert page.get_by_role("heading", name="People").count() == 0
    page.get_by_role("heading", name="Not open to you").wait_for()
    assert page.get_by_text("Page not found").count() == 0


def test_a_click_on_the_menu_that_is_lost_is_made_again_and_no_page_holds_who_moves_on(app, settled):
    """As when a page that reruns by a clock asks for itself once more while the click is on its way."""
    page = app.open("controversy")
    lose_one_click = "addEventListener('click', (event) => { event.preventDefault(); event.stopPropagation(); }, %s)"
    page.evaluate("document." + lose_one_click % "{ capture: true, once: true }")
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Quality").click()
    page.wait_for_url(re.compile("/quality"))
    settled(page).get_by_test_id("stSidebarNavLink").filter(has_text="Training").click()
    page.wait_for_url(re.compile("/training"))
    page.go_back()
    page.wait_for_url(re.compile("/quality"))
    settled(page).wait_for_timeout(1500)  # nothing happens: there is no event to wait for
    assert "/quality" in page.url


def test_nothing_is_wider_than_a_phone(app, settled):
    page = app.open(viewport={"width": 400, "height": 800})
    page.get_by_role("button", name="A is better").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
