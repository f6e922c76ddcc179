"""The first start, the second start, Ctrl-C, and the app without a trainer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT, RIGHT = re.compile("^A is better"), re.compile("^B is better")
# Keeps every text that the page has ever had, from its first element on, and every entry of a menu.
RECORD = """
  window.texts = new Set(), window.entries = new Set();
  const read = () => {
    if (document.body) window.texts.add(document.body.innerText);
    for (const link of document.querySelectorAll("[data-testid=stSidebarNavLink]")) {
      window.entries.add(link.innerText.split("\\n").at(-1));  // after the name of its icon
    }
  };
  new MutationObserver(read).observe(document, {childList: true, subtree: true, characterData: true});
"""
FILES = {path.stem.replace("_", " ") for path in (ROOT / "pages").glob("*.py") if "_" in path.stem} | {"streamlit app"}


def test_the_app_answers_on_its_health_address(studio):
    with urllib.request.urlopen(f"{studio.url}/_stcore/health", timeout=10) as answer:
        assert answer.status == 200


def test_the_owners_link_opens_the_overview_and_from_there_a_pair_to_label(app, ready, settled):
    page = app.open("/")
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    page.get_by_role("button", name="Invite people").wait_for()
    page.get_by_role("button", name="Label pairs").click()
    page.wait_for_url(re.compile(r"/label\b"))
    ready(page)
    assert page.get_by_role("button", name=LEFT).is_visible()
    assert page.get_by_role("button", name=RIGHT).is_visible()
    texts = [
        page.locator(f".st-key-response-{side}", has_text=re.compile(r"\w")).inner_text().strip()
        for side in ("left", "right")
    ]
    assert texts[0] != texts[1]


def test_a_new_visitor_gives_a_name_and_then_sees_a_pair(app, settled):
    page = app.open(owner=False)
    assert page.get_by_role("button", name=LEFT).count() == 0
    page.get_by_label("Your name or a nickname").fill("Ada")
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("button", name=LEFT).wait_for()
    assert settled(page).url == f"{app.url}/"


@pytest.fixture(scope="module")
def stopped(start_studio, browser, tmp_path_factory) -> SimpleNamespace:
    """A studio that was stopped with Ctrl-C while a page was open, and what remained of it."""
    studio = start_studio(tmp_path_factory.mktemp("stopped"))
    page = recorded(browser)
    page.goto(studio.owner_url)
    page.get_by_role("button", name="Label pairs").wait_for()
    texts, entries = page.evaluate("[[...window.texts], [...window.entries]]")
    page.get_by_role("button", name="Label pairs").click()
    page.get_by_role("button", name=LEFT).wait_for()
    children = psutil.Process(studio.process.pid).children(recursive=True)
    code = studio.stop(signal.SIGINT)
    alive = psutil.wait_procs(children, timeout=5)[1]
    page.close()
    return SimpleNamespace(
        studio=studio, n_children=len(children), code=code, alive=alive, texts=texts, entries=set(entries)
    )


def recorded(browser):
    """A page that keeps all it has ever shown."""
    page = browser.new_page()
    page.add_init_script(RECORD)
    return page


def files_in(texts: list[str]) -> set[str]:
    """Names of source files, as streamlit's menu of a folder writes them."""
    return {name for name in FILES for text in texts if re.search(rf"\b{name}\b", text, re.IGNORECASE)}


def test_the_first_browser_at_a_new_studio_never_sees_a_menu_of_source_files(stopped):
    assert len(stopped.texts) > 1 and {"people selection", "label strip"} < FILES
    assert files_in(stopped.texts) == set()
    assert {"Overview", "People", "Study"} <= stopped.entries <= {
        "Overview", "Label", "My taste", "People", "Experts", "Controversy", "Reward", "Training", "Quality", "Study"
    }  # fmt: skip


def test_ctrl_c_stops_the_app_and_the_trainer_while_a_page_is_open(stopped):
    assert stopped.n_children >= 3  # app, trainer, guard
    assert stopped.code == 0 and not stopped.alive
    assert "Traceback" not in stopped.studio.log.read_text()


def test_a_second_start_keeps_the_owner_and_shows_a_newcomer_no_menu(stopped, start_studio, browser):
    first, second = stopped.studio, start_studio(stopped.studio.home)
    assert second.owner_url.startswith(second.url) and second.url != first.url
    visitor = recorded(browser)  # the first one after this start, who has no link
    visitor.goto(second.url)
    visitor.get_by_role("button", name="Begin").wait_for()
    texts, entries = visitor.evaluate("[[...window.texts], [...window.entries]]")
    assert len(texts) > 1 and files_in(texts) == set() and entries == []
    visitor.close()
    page = browser.new_page()
    page.goto(first.label_url.replace(first.url, second.url))  # the old link still signs the owner in
    page.get_by_role("button", name=LEFT).wait_for()
    page.close()
    assert second.stop() == 0


def test_the_app_alone_works_and_says_that_no_trainer_runs(app_alone, browser, settled):
    link = subprocess.run(
        [sys.executable, "-m", "copl_core", "link"],
        cwd=ROOT,
        env=os.environ | {"COPL_HOME": str(app_alone.home)},
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()
    token = link.partition("?")[2]
    page = browser.new_page()
    page.goto(f"{app_alone.url}/label?{token}")
    page.get_by_role("button", name=LEFT).wait_for()
    settled(page).goto(f"{app_alone.url}/training?{token}")
    page.get_by_text("python -m copl_core worker").first.wait_for()
    page.close()


def test_a_taken_port_is_reported_in_one_sentence(studio, tmp_path):
    environment = studio.environment | {"COPL_HOME": str(tmp_path)}
    done = subprocess.run(studio.process.args, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "COPL_PORT" in done.stdout and len(done.stdout.splitlines()) == 1 and not done.stderr
