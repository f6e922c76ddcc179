"""The people page in a browser: selecting people on the map, the file of their labels, the slider, comparing."""

from __future__ import annotations

import csv
import re

import pytest

from tests.e2e.conftest import choose


@pytest.fixture
def page(app_alone, browser, settled):
    page = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True).new_page()
    page.goto(f"{app_alone.url}/people?token={app_alone.token}")
    page.get_by_text("2 groups of people who answer alike").wait_for()
    page.locator(".st-key-map-0 .nsewdrag").first.wait_for()
    yield settled(page)
    page.context.close()


def draw_around(page, left: float, right: float) -> None:
    """Draw a line with the mouse around a part of the map, from one share of its width to another."""
    area = page.locator(".st-key-map-0 .nsewdrag").first
    area.hover()  # which waits until the map stands still: it is drawn after the script has ended
    box = area.bounding_box()
    corners = [(left, 0.01), (right, 0.01), (right, 0.99), (left, 0.99), (left, 0.02)]
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=8)
    page.mouse.up()


def test_people_that_are_drawn_around_are_listed_and_their_labels_are_a_file(page, settled, tmp_path):
    draw_around(page, 0.01, 0.99)
    heading = page.get_by_role("heading", name=re.compile(r"\d+ people selected"))
    heading.wait_for()
    count = int(heading.inner_text().split()[0])
    assert count >= 16
    settled(page)
    title = page.get_by_text(re.compile(r"Their \d+ labels")).first.inner_text()
    for form in ("CSV", "Parquet"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Their labels as {form}").click()
        waiting.value.save_as(tmp_path / form)
    with (tmp_path / "CSV").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = {row["annotator"] for row in rows}  # tests before this one may have brought people of their own
    assert len(rows) == int(re.search(r"\d+", title)[0]) and {f"user {n:02}" for n in range(16)} <= names
    assert len(names) <= count
    assert (tmp_path / "Parquet").read_bytes()[:4] == b"PAR1"
    page.wait_for_url("**people=**")


def test_a_part_of_the_map_selects_a_part_of_the_people_and_the_link_keeps_them(page):
    draw_around(page, 0.01, 0.5)
    heading = page.get_by_role("heading", name=re.compile(r"\d+ (people|person) selected"))
    heading.wait_for()
    title = heading.inner_text()
    assert 0 < int(title.split()[0]) < 17
    page.wait_for_url(re.compile("people="))
    again = page.context.new_page()
    again.goto(page.url)
    again.get_by_role("heading", name=title).wait_for()
    again.get_by_role("button", name="Clear the selection").click()
    again.get_by_role("heading", name=title).wait_for(state="detached")


def test_the_slider_shows_an_earlier_snapshot_and_play_moves_people_in_the_browser(page, settled):
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("The earlier snapshot v0001 has 2 groups").wait_for()
    page.wait_for_url("**snapshot=v0001**")
    settled(page).get_by_role("button", name="Play").click()
    page.locator(".st-key-film .slider-group").wait_for()
    page.wait_for_function(  # it plays without a further click, to the newest snapshot
        "document.querySelector('.st-key-film .js-plotly-plot')?.layout.sliders[0].active === 1"
    )
    page.get_by_role("button", name="Stop").click()
    page.locator(".st-key-map-0 .nsewdrag").first.wait_for()


def test_two_people_are_compared_in_actual_texts(page, settled):
    for label, name in (("Find a person", "user 02"), ("Compare with", "user 05")):
        choose(settled(page), label, name)
    page.get_by_text("They would disagree most here").wait_for()
    for words in ("Yes, number", "There is a good deal to say"):
        page.get_by_text(words).nth(4).wait_for()  # five of each, at least
    page.wait_for_url(re.compile("person=.*with=|with=.*person="))


def test_an_owner_names_a_group_and_enter_closes_the_field(app, settled):
    page = app.open("people")
    rename = settled(page).get_by_role("button", name="Rename")
    rename.first.wait_for()
    settled(page)
    rename.first.click()
    field = page.get_by_role("textbox", name="Name of the group")
    field.wait_for()
    before = field.input_value()
    try:
        settled(page)
        field.fill("Warm words")
        field.press("Enter")
        page.get_by_text(re.compile("Warm words")).first.wait_for()
        field.wait_for(state="detached")
    finally:
        settled(page)
        rename.first.click()
        field.fill("")
        field.press("Enter")
        field.wait_for(state="detached")
        page.get_by_text(before).first.wait_for()
