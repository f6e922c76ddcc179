"""Controversy in a browser: a pinned pair comes first to a new person, its link opens it, the list is exported."""

from __future__ import annotations

import csv
import re

import pytest

from tests.e2e.conftest import quiet

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

PATIENCE = 300_000  # milliseconds for the first snapshot on a busy machine
BOX = {"x": 18, "y": 52}  # of the first row, in the table's canvas


def first_card(page):
    """The card of the first row, opened with a click on the table; and the id of its pair."""
    page.locator("[class*=st-key-list-] canvas").first.wait_for(timeout=PATIENCE)
    quiet(page).locator("[class*=st-key-list-] .dvn-scroller").first.click(position=BOX)
    card = page.locator("[class*=st-key-card-]")
    card.wait_for()
    key = re.search(r"st-key-card-(\d+)", card.get_attribute("class"))[1]
    return page.locator(f".st-key-card-{key}"), int(key)


def test_a_pair_that_is_asked_for_is_the_first_one_a_new_person_gets(app, settled, ready):
    page = app.open("controversy")
    card, _ = first_card(page)
    prompt = card.locator(".question").first.inner_text()
    card.get_by_role("button", name="Ask about this pair").click()
    card.get_by_text("Next pair of everybody who has not answered it").wait_for()
    visitor = app.open(owner=False)
    visitor.get_by_label("Your name or a nickname").fill("Visitor of the pinned pair")
    visitor.get_by_role("button", name="Begin").click()
    ready(visitor)
    visitor.get_by_text(prompt).first.wait_for()
    card.get_by_role("button", name="Stop asking").click()
    card.get_by_role("button", name="Ask about this pair").wait_for()


def test_a_click_on_a_row_brings_its_card_into_sight_and_its_address_opens_it_again(app, settled):
    page = app.open("controversy")
    card, pair = first_card(page)
    prompt = card.locator(".question").first.inner_text()
    page.wait_for_url(f"**pair={pair}**")
    expect(page.get_by_role("heading", name=f"Pair {pair}")).to_be_in_viewport(timeout=PATIENCE)
    again = page.context.new_page()
    again.goto(page.url)
    expect(again.get_by_role("heading", name=f"Pair {pair}")).to_be_in_viewport(timeout=PATIENCE)
    again.locator(f".st-key-card-{pair}").get_by_text(prompt).wait_for()
    again.get_by_role("button", name="Close").click()
    again.get_by_role("heading", name=f"Pair {pair}").wait_for(state="detached")


def test_the_opposite_list_is_exported_as_it_is_shown(app, settled):
    page = app.open("controversy")
    page.locator("[class*=st-key-list-] canvas").first.wait_for(timeout=PATIENCE)
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
