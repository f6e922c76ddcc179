"""Controversy in a browser: a pinned pair comes first to a new person, its link opens it, the list is exported."""

from __future__ import annotations

import csv
import re

PATIENCE = 300_000  # milliseconds for the first snapshot on a busy machine
CARDS = "[class*=st-key-card-list-]"


def first_card(page):
    """The first card of the list, by its key: the next snapshot may change the order of the list."""
    page.locator(CARDS).first.wait_for(timeout=PATIENCE)
    key = re.search(r"st-key-card-list-\d+", page.locator(CARDS).first.get_attribute("class"))[0]
    return page.locator(f".{key}"), int(key.rpartition("-")[2])


def test_a_pair_that_is_asked_for_is_the_first_one_a_new_person_gets(app, settled, ready):
    page = app.open("controversy")
    card, _ = first_card(page)
    prompt = card.locator("strong").first.inner_text()
    card.get_by_role("button", name="Ask about this pair").click()
    card.get_by_text("Next pair of everybody who has not answered it").wait_for()
    visitor = app.open(owner=False)
    visitor.get_by_label("Your name or a nickname").fill("Visitor of the pinned pair")
    visitor.get_by_role("button", name="Begin").click()
    ready(visitor)
    visitor.get_by_text(prompt).first.wait_for()
    card.get_by_role("button", name="Stop asking").click()
    card.get_by_role("button", name="Ask about this pair").wait_for()


def test_the_link_of_a_pair_opens_it_above_the_list(app, settled):
    page = app.open("controversy")
    card, pair = first_card(page)
    prompt = card.locator("strong").first.inner_text()
    card.get_by_role("button", name="Link to this pair").click()
    page.get_by_role("heading", name=f"Pair {pair}").wait_for()
    page.wait_for_url(f"**pair={pair}**")
    again = page.context.new_page()
    again.goto(page.url)
    again.get_by_role("heading", name=f"Pair {pair}").wait_for()
    again.locator(f".st-key-card-chosen-{pair}").get_by_text(prompt).wait_for()
    again.get_by_role("button", name="Show only the list").click()
    again.get_by_role("heading", name=f"Pair {pair}").wait_for(state="detached")


def test_the_opposite_list_is_exported_as_it_is_shown(app, settled):
    page = app.open("controversy")
    first_card(page)
    page.get_by_role("radio", name="Agreed").or_(page.get_by_role("button", name="Agreed")).first.click()
    page.get_by_text("agree with the most certainty").wait_for()
    settled(page)
    page.wait_for_url("**order=Agreed**")
    with page.expect_download() as file:
        page.get_by_text("Download all as CSV").click()
    with open(file.value.path(), newline="") as stream:
        rows = list(csv.DictReader(stream))
    _, pair = first_card(page)
    assert int(rows[0]["pair"]) == pair and rows[0]["snapshot"].startswith("v") and len(rows) > 100
