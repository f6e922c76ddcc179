"""The reward page with its language model, and an older champion, in a real browser."""

from __future__ import annotations

import re
import sqlite3
import time

import pytest

from tests.e2e.conftest import choose

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

PATIENCE = 600  # seconds for a snapshot, and for a language model that is opened for the first time
WAIT = PATIENCE * 1000


@pytest.fixture(scope="module")
def mapped(studio):
    """The shared studio, which has a champion from the start."""
    return wait_for(studio, "SELECT champion FROM study WHERE champion IS NOT NULL")


def wait_for(studio, query: str):
    end = time.monotonic() + PATIENCE
    while not value_of(studio, query):
        assert time.monotonic() < end, f"nothing within {PATIENCE} s: {query}\n{studio.logs()}"
        time.sleep(0.5)
    return studio


def value_of(studio, query: str) -> object:
    with sqlite3.connect(studio.home / "copl.db") as database:
        row = database.execute(query).fetchone()
    return row and row[0]


def champion(studio) -> str:
    return value_of(studio, "SELECT champion FROM study ORDER BY opened DESC")


def ask_for_answers(page, settled, tokens: int) -> None:
    """Open the writer's controls and press its button."""
    field = page.get_by_label("Longest answer, in tokens (about ¾ of a word each)")
    if not field.is_visible():
        page.get_by_text("Let a language model write answers").click()
    field.wait_for()
    field.fill(str(tokens))
    field.blur()
    settled(page).get_by_role("button", name="Write answers").click()


def written(page, settled) -> list[str]:
    """The texts in the answer fields once the writing has ended."""
    page.get_by_role("button", name="Stop writing").wait_for(state="hidden", timeout=WAIT)
    settled(page).get_by_label("Answer A", exact=True).wait_for()
    fields = page.get_by_role("textbox", name=re.compile("^Answer [A-F]$"))
    return [fields.nth(i).input_value() for i in range(fields.count())]


def test_a_language_model_writes_candidates_and_they_are_compared(mapped, smollm2, app, settled):
    page = app.open("reward")
    page.get_by_label("Question", exact=True).fill("What should I cook for six friends on a Tuesday?")
    page.get_by_label("Question", exact=True).blur()
    ask_for_answers(settled(page), settled, tokens=10)
    page.get_by_role("button", name="Stop writing").wait_for(timeout=WAIT)
    answers = written(page, settled)
    assert len(answers) == 3 and all(answers) and len(set(answers)) == 3
    assert page.get_by_label("Question", exact=True).input_value() == "What should I cook for six friends on a Tuesday?"
    page.get_by_text("Answer C", exact=True).first.wait_for()  # a column of the figure, or a field
    page.get_by_text(re.compile(r"Snapshot v\d{4}")).first.wait_for()


def test_writing_is_stopped_and_what_was_written_stays(mapped, smollm2, app, settled):
    page = app.open("reward")
    ask_for_answers(page, settled, tokens=400)
    stop = page.get_by_role("button", name="Stop writing")
    stop.wait_for(timeout=WAIT)
    page.locator(".st-key-draft-0", has_text=re.compile(r"\w+ \w+ \w+")).wait_for(timeout=WAIT)
    stop.click()
    answers = written(page, settled)
    assert any(answers) and sum(len(text.split()) for text in answers) < 600  # three whole ones would be about 900


def test_the_prediction_comes_into_sight_and_five_answers_of_ones_own_are_a_button(app_alone, browser, settled):
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"{app_alone.url}/reward?token={app_alone.token}")
    page.get_by_role("button", name="Predict", exact=True).click()
    expect(page.get_by_role("heading", name="Who would prefer which")).to_be_in_viewport(timeout=WAIT)
    page.get_by_role("button", name="Try it as yourself: five answers").click()
    for n in range(1, 6):
        page.get_by_text(f"Pair {n} of 5").wait_for()
        expect(page.get_by_label("Question", exact=True)).to_be_hidden(timeout=WAIT)
        settled(page).get_by_role("button", name="I prefer A").click()
    expect(page.get_by_text("You by these 5 answers: ").first).to_be_in_viewport(timeout=WAIT)
    expect(page.get_by_label("Question", exact=True)).to_be_visible(timeout=WAIT)
    page.context.close()


def refit_automatically(page, settled, wanted: bool) -> None:
    save = page.get_by_role("button", name="Save the schedule")
    if not save.is_visible():
        page.get_by_text("Schedule of automatic runs").click()
        save.wait_for()
    if page.get_by_role("checkbox", name="Refit automatically").is_checked() != wanted:
        page.get_by_text("Refit automatically").first.click()
    save.click()
    page.get_by_text("Saved. The trainer reads").wait_for()
    settled(page)


def test_the_champion_is_rolled_back_in_the_browser(mapped, app, settled):
    page = app.open("training")
    before = champion(mapped)
    refit_automatically(page, settled, False)
    try:
        page.get_by_role("button", name="Refit the graph now").click()
        newer = value_of(
            wait_for(mapped, f"SELECT champion FROM study WHERE champion <> '{before}'"),
            "SELECT max(version) FROM snapshot",
        )
        page.get_by_role("button", name=f"Make {newer} the champion", disabled=True).wait_for()
        choose(page, re.compile("Champion: "), before)
        settled(page).get_by_role("button", name=f"Make {before} the champion").click()
        page.get_by_text("The champion is not the newest snapshot").or_(
            page.get_by_role("button", name=f"Make {before} the champion", disabled=True)
        ).first.wait_for()
        assert champion(mapped) == before
        people = app.open("people")
        people.get_by_text(re.compile(f"[Ss]napshot {before}")).first.wait_for()
    finally:
        refit_automatically(page, settled, True)
