"""The pictures of the README: ``make screenshots``, or ``python -m tests.e2e.screenshots SIGN-IN-LINK``.

They tell the story of a first visit to the demo, in order: what this is, the first answers, the tenth answer, what the
studio has learned about the visitor, and where the visitor stands among people.  Without a link, the script starts a
studio of its own; the visitor answers as somebody would who likes warm and thorough answers.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from copl_core.config import Settings
from copl_core.demo.world import held_back, tastes
from tests.e2e.conftest import FLAGS, Studio, quiet, ready, settled
from tests.e2e.test_taste import best_and_worst, label_by_keys

SCREENS = Path(__file__).parent / "screens"
PAGES = ("taste", "people", "controversy", "experts", "training", "quality", "settings")
TASTE = tastes()["warm and thorough"]
FEW, ENOUGH = 7, 10  # answers in the pictures of the labelling page


def main(link: str | None = None) -> None:
    if link:
        shoot_all(link)
        return
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder) / "home", Settings.from_environment().weights)
        try:
            shoot_all(studio.wait().owner_url)
        finally:
            studio.stop()


def shoot_all(link: str) -> None:
    root, _, token = link.partition("/?")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_context(viewport={"width": 1440, "height": 800}).new_page()
        page.goto(link)
        page.get_by_role("heading").first.wait_for()
        shoot(page, "overview")
        page.goto(f"{root}/label?{token}")
        page.get_by_role("button", name="A is better").first.wait_for()
        new = page.get_by_text("0 answered", exact=False).count() > 0
        for name, count, done in (("label", FEW, 0), ("label-ten", ENOUGH, FEW)):
            if new:
                label_by_keys(page, TASTE, count, settled, ready, done)
            shoot(page, name)
        for name in PAGES:
            page.goto(f"{root}/{name}?{token}")
            page.get_by_role("heading").first.wait_for()
            shoot(page, name)
        reward(page, f"{root}/reward?{token}")
        for name, scheme, width in (
            ("label-dark", "dark", 1440),
            ("label-phone", "light", 420),
            ("label-phone-dark", "dark", 420),
        ):
            other = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
            other.goto(f"{root}/label?{token}")
            other.get_by_role("button", name="A is better").first.wait_for()
            shoot(other, name)
        browser.close()


def reward(page, address: str) -> None:
    """A question that the model has never seen, with the answers that the group likes most and least."""
    page.goto(address)
    page.get_by_text("Who would prefer which").wait_for()
    prompt = held_back()[0]
    best, worst = best_and_worst(prompt, TASTE)
    for label, text in (("Question", prompt.prompt), ("Answer A", worst), ("Answer B", best)):
        page.get_by_label(label, exact=True).fill(text)
        page.get_by_label(label, exact=True).blur()
        settled(page)
    page.get_by_role("button", name="Predict", exact=True).click()
    settled(page)
    page.set_viewport_size({"width": 1440, "height": 1150})
    page.get_by_test_id("stMain").evaluate("main => main.scrollTo(0, 0)")  # clicking Predict has scrolled down to it
    shoot(page, "reward")


def shoot(page, name: str) -> None:
    quiet(page, 1500)  # figures are drawn after the script has ended
    page.screenshot(path=SCREENS / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:2])
