"""Who is signed in where: shared addresses, sign-in links, signing out while other tabs are open."""

from __future__ import annotations

import re
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from urllib.error import HTTPError

import pytest

from copl_core.study.sign_in import hashed

FLOODED = {"X-Forwarded-For": "203.0.113.9"}  # a network from which sign-ins fail; its proxy is this machine
TRIES = 1000  # of a person who does not wait
# Contrast of the text of a popover's button with what is behind it (WCAG 2.2, relative luminance).
CONTRAST = """(button) => {
  const popover = getComputedStyle(button.closest("[data-testid=stPopoverBody]")).backgroundColor;
  const light = (colour) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d");
    for (const layer of [popover, colour]) {
      canvas.fillStyle = layer;
      canvas.fillRect(0, 0, 1, 1);
    }
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((one) => one / 255);
    const [r, g, b] = parts.map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const style = getComputedStyle(button), both = [light(style.color), light(style.backgroundColor)];
  return Math.max(...both) / Math.min(...both);
}"""


@pytest.fixture
def visit(app_alone, browser):
    """Opens a page in a browser profile of its own, or as one more tab of ``beside``."""
    contexts = []

    def open_page(path: str = "", beside=None, **options):
        options = {"viewport": {"width": 1280, "height": 900}} | options
        context = beside.context if beside else browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{app_alone.url}/{path}")
        return page

    yield open_page
    for context in contexts:
        context.close()


def join(page, name: str):
    page.get_by_label("Your name or a nickname").fill(name)
    page.get_by_role("button", name="Begin").click()
    page.get_by_text(f"Signed in as {name}").wait_for()


def n_labels(app_alone, name: str) -> int:
    with sqlite3.connect(app_alone.home / "copl.db") as database:
        query = "SELECT count(*) FROM label JOIN user ON user.id = label.user_id WHERE user.name = ?"
        return database.execute(query, (name,)).fetchone()[0]


def test_no_page_has_the_secret_in_its_address_or_in_a_link(app_alone, visit, settled):
    page = visit(f"people?token={app_alone.token}")
    for name in ("people", "experts", "controversy", "reward", "training", "quality", "taste"):
        page.goto(f"{app_alone.url}/{name}")
        settled(page).get_by_text("Signed in as Rita").wait_for()
        assert "token" not in page.url and "token=" not in page.content()
    assert app_alone.token not in page.evaluate("document.cookie + JSON.stringify([localStorage, sessionStorage])")
    assert "copl_" not in page.evaluate("document.cookie")


def test_a_shared_address_signs_nobody_in_and_is_open_after_signing_in_as_oneself(app_alone, visit, settled):
    rita = visit(f"controversy?token={app_alone.token}&pair=3")
    settled(rita).get_by_text("Signed in as Rita").wait_for()
    shared = rita.url.removeprefix(f"{app_alone.url}/")
    fresh = visit(shared)
    fresh.get_by_text("I have a sign-in link").click()
    assert fresh.get_by_text("Rita").count() == 0 and fresh.get_by_role("button", name="Begin").count() == 1
    fresh.get_by_label("Your sign-in link").fill(f"{app_alone.url}/?token={app_alone.token}")
    fresh.get_by_role("button", name="Sign in").click()
    fresh.get_by_text("Signed in as Rita").wait_for()
    assert fresh.url == f"{app_alone.url}/{shared}" and "pair=3" in fresh.url


def test_a_link_opened_in_the_next_tab_leads_to_the_shared_page(app_alone, visit):
    fresh = visit("controversy?pair=3")
    fresh.wait_for_function("document.cookie.includes('copl_next=%2Fcontroversy')")
    link = visit(f"?token={app_alone.token}", beside=fresh)
    link.get_by_text("Signed in as Rita").wait_for()
    link.wait_for_url(re.compile(rf"{app_alone.url}/controversy\?(study=\d+&)?pair=3\b"))


def test_who_joins_by_name_gets_a_link_of_their_own_that_brings_them_back(app_alone, visit, settled, ready):
    page = visit()
    page.get_by_text("You can join this study: Two camps").wait_for()
    join(page, "Nia")
    ready(page).keyboard.press("1")
    link = page.locator(".st-key-welcome code").inner_text().strip()
    assert "token" not in page.url and "joined" not in settled(page).url and link.startswith(f"{app_alone.url}/?token=")
    page.reload()
    settled(page).get_by_text("Signed in as Nia").wait_for()
    page.get_by_text("Keep your own sign-in link").click()  # until it is kept
    page.locator(".st-key-welcome code").wait_for()
    elsewhere = visit()
    elsewhere.get_by_label("Your name or a nickname").fill("Nia")
    elsewhere.get_by_role("button", name="Begin").click()
    elsewhere.get_by_text("is already in use. If it is yours, open your own sign-in link").wait_for()
    elsewhere.goto(link)
    settled(elsewhere).get_by_text("Signed in as Nia").wait_for()
    assert "token" not in elsewhere.url and elsewhere.locator(".st-key-welcome").count() == 0


def test_the_welcome_goes_when_the_link_is_kept_and_labelling_goes_on(visit, ready):
    page = visit()
    join(page, "Noor")
    ready(page).keyboard.press("1")
    page.get_by_text("1 answered").first.wait_for()
    page.get_by_role("button", name="I have kept it").click()
    page.locator(".st-key-welcome").wait_for(state="detached")
    page.reload()
    ready(page).keyboard.press("1")
    page.get_by_text("2 answered").first.wait_for()
    assert page.locator(".st-key-welcome").count() == 0


def test_an_annotator_at_the_address_of_the_labelling_page_sees_it_marked_in_the_menu(app_alone, visit, ready):
    page = visit()
    join(page, "Nils")
    shared = visit("label", beside=page)
    ready(shared).locator("[data-testid=stSidebarNavLink][aria-current=page]", has_text="Label").wait_for()


def test_a_link_for_somebody_else_waits_for_a_click(app_alone, visit):
    page = visit()
    join(page, "Nele")
    page.goto(f"{app_alone.url}/taste?token={app_alone.token}")
    page.get_by_text("This browser is signed in as Nele").wait_for()
    page.wait_for_url(f"{app_alone.url}/taste")  # without the secret
    page.get_by_role("link", name="Stay signed in as Nele").click()
    page.get_by_text("Signed in as Nele").wait_for()
    page.goto(f"{app_alone.url}/taste?token={app_alone.token}")
    page.get_by_role("button", name="Sign in as Rita").click()
    page.get_by_text("Signed in as Rita").wait_for()
    assert "token" not in page.url


def test_a_bad_link_says_so(visit):
    page = visit("?token=nonsense")
    page.get_by_text("This sign-in link does not work").wait_for()
    assert "nonsense" not in page.url


def test_an_expired_link_says_so_by_address_and_by_field(app_alone, visit):
    with sqlite3.connect(app_alone.home / "copl.db") as database:
        session = "INSERT INTO token (user_id, hash, created_at) SELECT min(id), ?, '2026-01-01' FROM user"
        database.execute(session, (hashed("of last year"),))
    page = visit("?token=of+last+year")
    page.get_by_text("This sign-in link has expired").wait_for()
    page = visit()
    page.get_by_text("I have a sign-in link").click()
    page.get_by_label("Your sign-in link").fill(f"{app_alone.url}/?token=of+last+year")
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_text("This sign-in link has expired").wait_for()


def test_a_tab_that_is_signed_out_elsewhere_stores_nothing_and_says_so(app_alone, visit, settled):
    page = visit()
    join(page, "Una")
    tab = visit(beside=page)
    tab.get_by_text("Signed in as Una").wait_for()
    tab.get_by_role("button", name="Tie").wait_for()
    settled(page).get_by_role("button", name="Account").click()
    page.get_by_text("Sign out", exact=True).click()
    page.get_by_role("button", name="Sign out without it").click()
    page.get_by_role("button", name="Begin").wait_for()
    settled(tab).get_by_role("button", name="Tie").click()
    tab.get_by_text("You are signed out, so nothing was saved").wait_for()
    assert n_labels(app_alone, "Una") == 0


def open_account(page):
    page.get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Create a sign-in link").wait_for()


def test_a_person_signs_out_of_another_browser_whose_open_tab_acts_no_more(app_alone, visit, ready):
    mine = visit("label")
    join(mine, "Lou")
    ready(mine)
    open_account(mine)
    mine.get_by_role("button", name="Create a sign-in link").click()
    link = mine.get_by_text("/?token=").inner_text().strip()
    lost = visit(f"label?token={link.partition('token=')[2]}")
    ready(lost).get_by_text("Signed in as Lou").wait_for()

    mine.emulate_media(color_scheme="dark")
    mine.reload()
    ready(mine)
    open_account(mine)
    mine.get_by_text("Your browsers").click()
    there = mine.get_by_role("button", name="Sign out there")
    there.hover()
    mine.wait_for_timeout(500)  # the colour changes in a moment
    assert there.count() == 1 and there.evaluate(CONTRAST) > 4.5
    there.click()
    there.wait_for(state="detached")

    lost.get_by_role("button", name="A is better").first.click()
    lost.get_by_text("You are signed out, so nothing was saved").first.wait_for()
    assert n_labels(app_alone, "Lou") == 0
    ready(mine).get_by_text("Signed in as Lou").wait_for()


@pytest.mark.parametrize("size", [(420, 800), (420, 560), (800, 420)])
def test_on_a_small_screen_all_of_the_account_is_within_reach(visit, ready, size):
    width, height = size
    page = visit("label", viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    page.get_by_label("Your name or a nickname").fill(f"Lea {width} by {height}")
    page.get_by_role("button", name="Begin").click()
    if (menu := ready(page).get_by_test_id("stExpandSidebarButton")).count():
        menu.click()
    open_account(page)
    page.get_by_text("Your browsers").click()
    page.get_by_text("This browser").wait_for()
    page.get_by_role("button", name="Create a sign-in link").click()
    page.get_by_text("/?token=").wait_for()
    for part in (
        page.get_by_text("Sign out", exact=True),
        page.get_by_role("button", name="Create a sign-in link"),
        page.get_by_text("/?token="),
        page.get_by_text("This browser"),
    ):
        part.scroll_into_view_if_needed()
        box = part.bounding_box()
        assert 0 <= box["x"] and box["x"] + box["width"] <= width
        assert 0 <= box["y"] and box["y"] + box["height"] <= height
    copies = page.locator(".st-key-link-own .stCode > div:last-child")
    assert copies.evaluate("(button) => getComputedStyle(button).opacity") == "1", "no mouse shows it"


# ---- a network from which too many sign-ins have failed


@contextmanager
def flooded(address: str) -> Iterator[None]:
    """While it lasts, sign-ins of one network fail all the time, so that the next ones wait."""
    headers, waits, ends = FLOODED | {"X-CoPL-Sign-In": "1"}, Event(), Event()

    def flood() -> None:
        while not ends.is_set():
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/", b"nonsense", headers, method="POST"))
            except HTTPError as refused:
                if refused.code == 429:
                    waits.set()

    thread = Thread(target=flood)
    thread.start()
    try:
        assert waits.wait(60)
        yield
    finally:
        ends.set()
        thread.join()


def test_who_joins_while_sign_ins_wait_reads_why_and_is_signed_in_by_itself(app_alone, visit, settled):
    page = visit(extra_http_headers=FLOODED)
    page.get_by_label("Your name or a nickname").fill("Nora")
    with flooded(app_alone.url):
        page.get_by_role("button", name="Begin").click()
        page.get_by_text("Too many sign-ins from your network have failed, so yours has to wait").wait_for()
    settled(page).get_by_text("Signed in as Nora").wait_for()
    assert "link=" not in page.url


def test_who_opens_a_link_while_sign_ins_wait_reads_why_and_tries_again(app_alone, visit):
    page = visit(extra_http_headers=FLOODED)
    with flooded(app_alone.url):
        waits = page.get_by_text("have failed, so this one was not looked at and your link stays as it is")
        for _ in range(TRIES):  # one that comes right after the limit lets a try pass is looked at
            page.goto(f"{app_alone.url}/people?token={app_alone.token}")
            if waits.count():
                break
        waits.wait_for()
    again = page.get_by_role("link", name="Try again")
    for _ in range(TRIES):
        if again.count():
            again.click()
            page.wait_for_load_state()
    page.get_by_text("Signed in as Rita").wait_for()
    assert "token" not in page.url


def test_who_changes_to_another_person_while_sign_ins_wait_reads_why_and_presses_again(app_alone, visit):
    page = visit(extra_http_headers=FLOODED)
    join(page, "Nell")
    page.goto(f"{app_alone.url}/taste?token={app_alone.token}")
    change = page.get_by_role("button", name="Sign in as Rita")
    with flooded(app_alone.url):
        change.click()
        page.get_by_text("have failed, so this one was not looked at").wait_for()
    for _ in range(TRIES):
        if change.count():
            with suppress(Exception):  # the page has changed meanwhile
                change.click(timeout=1000)
    page.get_by_text("Signed in as Rita").wait_for()
