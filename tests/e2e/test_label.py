"""The labelling page in a browser: what is shown is what was written, in sight, on a phone too, and drafts stay."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from copl_core.records import Choice, ImportRow, Role
from copl_core.study import access, contents, labelling
from copl_core.study_settings import AssignmentSettings
from tests.e2e.conftest import TwoCampsApp, quiet, ready, settled
from tests.worlds import open_study

LONG = "A paragraph that is long enough to fill a line of a wide page, and then some more of it.\n\n" * 40
# (question, two answers); each is shown exactly as it stands here.
WRITTEN = [
    (
        "How?\nIn bash:",
        "Type echo $HOME and see <- here, x >= 3, a -- b.",
        ":smile: :red[alert] \\(a_1\\) 2*3*4 __init__",
    ),
    (
        "Rain, please.",
        "Rain falls,\n  and again,\n    and again.",
        "<b>3</b><br>done &amp; <img src=x onerror=alert(1)>",
    ),
    ("כמה?", "العيد، ثم (Eid).", "Soup is $5, stew is $10."),
]
PICTURE = ("Which?", "![a pixel](http://127.0.0.1:9/pixel.png)", "```bash\necho $HOME\n```")
FORMULA = ("Integrate.", "It is \\(\\frac{1}{3}\\).", "$$\nx^2\n$$")
TALL = ("What about this? " * 60, LONG, LONG + "The end.")


class Room:
    """The app on a study whose next pairs, for a new person each time, are chosen by the test."""

    def __init__(self, app: TwoCampsApp, browser) -> None:
        self.app, self.browser, self.session, self.contexts = app, browser, open_study(app.home), []

    def pages_of(self, *texts: tuple[str, str, str], **context: object):
        """A page whose next pairs are these, in this order, for a person who has labelled nothing."""
        for pin in labelling.pinned_pairs(self.session):
            labelling.unpin_pair(self.session, pin.pair_id)
        contents.import_rows(self.session, [ImportRow(n + 1, *one) for n, one in enumerate(texts)])
        for prompt, *_ in reversed(texts):
            (found,) = contents.find_pairs(self.session, " ".join(prompt.split()[:3]))[0][-1:]
            labelling.pin_pair(self.session, found.id)
        person = access.join(self.session, f"Ann {len(access.users(self.session))}", Role.RESEARCHER)
        made = self.browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | context))
        self.contexts.append(made)
        page, requested = made.new_page(), []
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{self.app.url}/label?token={access.sign_in_token(self.session, person.id)}")
        ready(page)
        return page, person, requested


@pytest.fixture(scope="module")
def two_camps_app(tmp_path_factory) -> Iterator[TwoCampsApp]:
    app = TwoCampsApp(tmp_path_factory, tmp_path_factory.mktemp("app") / "label")
    try:
        yield app.wait()
    finally:
        app.stop()


@pytest.fixture
def room(two_camps_app, browser) -> Iterator[Room]:
    made = Room(two_camps_app, browser)
    yield made
    for context in made.contexts:
        context.close()


def inner(page, key: str) -> str:
    return page.locator(f".st-key-{key} .copl-text").inner_text().strip()


def in_sight(page, locator) -> bool:
    box, height = locator.bounding_box(), page.viewport_size["height"]
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= height


def scrolled(page) -> float:
    return page.get_by_test_id("stMain").evaluate("main => main.scrollTop")


def test_what_is_shown_is_what_was_written(room):
    page, _, _ = room.pages_of(*WRITTEN)
    for prompt, *both in WRITTEN:
        quiet(page)
        assert inner(page, "question") == prompt
        assert sorted((inner(page, "response-left"), inner(page, "response-right"))) == sorted(both)
        direction = page.locator(".st-key-question p").evaluate("one => getComputedStyle(one).direction")
        assert direction == ("rtl" if prompt == "כמה?" else "ltr")
        page.keyboard.press("0")


def test_pictures_are_not_loaded_and_code_keeps_its_signs(room):
    page, _, requested = room.pages_of(PICTURE)
    texts = {inner(quiet(page), "response-left"), inner(page, "response-right")}
    assert texts == {"[picture: a pixel]", "echo $HOME"}
    assert not [one for one in requested if "pixel" in one]


def test_a_picture_of_a_host_that_the_study_names_is_loaded_and_no_other(room):
    pair = (
        "Which picture?",
        "![a cat](https://pictures.example.org/cat.png)",
        "![a dog](https://elsewhere.example/dog.png)",
    )
    labelling.set_assignment(room.session, AssignmentSettings(picture_hosts=("pictures.example.org",)))
    try:
        page, _, requested = room.pages_of(pair)
        picture = page.get_by_alt_text("a cat")
        picture.wait_for(state="attached")
        page.wait_for_function("performance.getEntriesByType('resource').some((one) => one.name.includes('cat.png'))")
        assert page.get_by_text("[picture: a dog]").count() == 1
        assert "https://pictures.example.org/cat.png" in requested
        assert not [one for one in requested if "elsewhere" in one]
    finally:
        labelling.set_assignment(room.session, AssignmentSettings())


def test_formulas_are_set_where_the_study_says_so(room):
    labelling.set_assignment(room.session, AssignmentSettings(text_format="formulas"))
    try:
        page, _, _ = room.pages_of(FORMULA)
        page.locator(".st-key-response-left math").wait_for()
        page.locator(".st-key-response-right math").wait_for()
        assert page.locator("mfrac").count() == 1 and page.locator("msup").count() == 1
    finally:
        labelling.set_assignment(room.session, AssignmentSettings())


def test_question_and_buttons_stay_in_sight_and_the_next_pair_begins_at_its_top(room):
    page, _, _ = room.pages_of(TALL, ("And this one?", LONG, LONG + "Over."))
    page.mouse.move(640, 700)
    page.mouse.wheel(0, 3000)
    page.wait_for_function("document.querySelector('[data-testid=stMain]').scrollTop > 500")
    assert in_sight(page, page.locator(".st-key-question"))
    assert in_sight(page, page.get_by_role("button", name="A is better"))
    page.keyboard.press("1")
    page.get_by_text("1 answered").wait_for()
    quiet(page)
    assert scrolled(page) == 0 and inner(page, "question") == "And this one?"


def test_the_words_of_a_reason_are_kept_while_they_are_typed(room):
    page, person, _ = room.pages_of(("Why?", "One.", "Two."))
    page.get_by_text("Say why (optional)").click()
    words = page.get_by_role("textbox", name="In your words")
    words.press_sequentially("plain words", delay=30)
    quiet(page)
    assert words.evaluate("field => document.activeElement === field"), "typing goes on"
    words.press_sequentially(", and more", delay=30)
    task = labelling.next_task(room.session, person.id)
    quiet(page)
    assert labelling.draft(room.session, task.id, person.id).text == "plain words, and more"
    page.reload()
    ready(page)
    assert page.get_by_role("textbox", name="In your words").input_value() == "plain words, and more"


def test_words_are_kept_in_the_middle_of_typing_without_a_pause(room):
    page, person, _ = room.pages_of(("How?", "Five.", "Six."))
    page.get_by_text("Say why (optional)").click()
    words = page.get_by_role("textbox", name="In your words")
    typed = "one word after another, and no pause between any two of them for a while"
    words.press_sequentially(typed, delay=100)
    assert words.input_value() == typed, "what is kept meanwhile changes nothing in the field"
    task = labelling.next_task(room.session, person.id)
    kept = labelling.draft(room.session, task.id, person.id).text
    assert kept and typed.startswith(kept), kept


@pytest.mark.parametrize("key", ["Escape", "Control+Enter"])
def test_a_key_leaves_the_field_and_the_next_one_answers(room, key):
    page, person, _ = room.pages_of(("Why not?", "Three.", "Four."))
    page.get_by_text("Say why (optional)").click()
    words = page.get_by_role("textbox", name="In your words")
    words.press_sequentially("because")
    words.press(key)
    page.wait_for_function("document.activeElement.tagName !== 'TEXTAREA'")
    quiet(page)
    page.keyboard.press("2")
    page.get_by_text("1 answered").wait_for()
    assert [(one.choice, one.reason) for one in labelling.history(room.session, person.id)] == [("right", "because")]


def test_each_answer_moves_the_star_on_the_small_map(room):
    page, _, _ = room.pages_of(("Where am I?", "Here.", "There."))
    assert page.locator(".copl-strip .star").count() == 0
    for number in range(1, 4):
        quiet(page).keyboard.press("1")
        page.get_by_text(f"{number} of 10").wait_for()
    page.locator(".copl-strip .star").wait_for()


# ---- on a phone

PHONE = {"viewport": {"width": 420, "height": 800}, "has_touch": True, "is_mobile": True}


def test_on_a_phone_the_buttons_stand_at_the_bottom_and_name_no_keys(room):
    page, _, _ = room.pages_of(TALL, **PHONE)
    vote = page.get_by_role("button", name="A is better")
    assert in_sight(page, vote) and vote.bounding_box()["y"] > 560
    page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 1500)")
    assert in_sight(page, vote) and in_sight(page, page.get_by_role("button", name="Both bad"))
    shown = page.locator(".st-key-bar").inner_text()
    assert not re.search(r"\d|⇧|Shift|\b[QW]\b", shown), shown
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    vote.tap()
    page.get_by_text("1 answered").wait_for()
    assert scrolled(quiet(page)) == 0


def test_on_a_phone_the_menu_closes_once_a_page_is_chosen(room):
    page, _, _ = room.pages_of(("A menu?", "Yes.", "No."), **PHONE)
    page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name="My taste").click()
    settled(page).get_by_role("heading", level=1).wait_for()
    page.wait_for_function(
        "document.querySelector('[data-testid=stSidebar]')?.getAttribute('aria-expanded') !== 'true'"
    )


def test_an_answer_waits_for_a_busy_database_and_is_stored_once(room):
    page, person, _ = room.pages_of(*WRITTEN)
    home = room.app.home / "copl.db"
    with closing(sqlite3.connect(home, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        page.keyboard.press("1")
        page.keyboard.press("s")  # the old pair stays on the screen for a moment
        page.keyboard.press("2")
        page.get_by_text("Not saved yet, trying again").wait_for()
        assert page.get_by_text("The database was busy for too long.", exact=True).count() == 1
        assert page.get_by_text("Nothing was saved").count() == 0
        other.execute("ROLLBACK")
    page.get_by_text("Your answer is saved now").or_(page.get_by_text("1 answered")).first.wait_for()
    ready(page)
    labels = labelling.history(room.session, person.id)
    assert len(labels) == 1 and labels[0].choice is Choice.LEFT and labels[0].milliseconds is not None
    page.keyboard.press("2")  # and labelling goes on
    page.get_by_text("2 answered").first.wait_for()
