"""A second study comes into a running studio while an owner and an annotator label: neither is thrown out."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pytest

from copl_core.records import Role
from copl_core.study import access
from tests.e2e.conftest import ROOT, quiet, ready, settled
from tests.e2e.conftest import choose as choose_option
from tests.worlds import open_study

ROWS = [
    {"prompt": f"Question {n}?", "response_a": f"Short {n}.", "response_b": f"Longer than {n}.", "annotator": who}
    | {"choice": "a", "left": "a"}
    for n in range(3)
    for who in ("Ines", "Joao")
]


@pytest.fixture
def tabs(app_alone, browser, request):
    """An owner and an annotator of the study of two camps, each on the labelling page in a browser of their own."""
    session = open_study(app_alone.home)
    owner = access.owner(session)
    _, kim = access.accept_invite(session, access.invite(session)[1], f"Kim, {request.node.name[:60]}")
    found = SimpleNamespace(session=session, owner_id=owner.id, kim_id=access.sign_in(session, kim).id)
    pages = []
    for name, token in (("owner", access.sign_in_token(session, owner.id)), ("annotator", kim)):
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(f"{app_alone.url}/label?token={token}")
        pages.append(ready(page))
        setattr(found, name, page)
    yield found
    session.store.engine.dispose()
    for page in pages:
        page.context.close()


def n_labels(app_alone, user_id: int) -> int:
    with sqlite3.connect(app_alone.home / "copl.db") as database:
        return database.execute("SELECT count(*) FROM label WHERE user_id = ?", (user_id,)).fetchone()[0]


def label_one(page) -> None:
    """Answer the pair on screen, and wait until the next one is there."""
    done = int(re.search(r"(\d+) answered", page.get_by_text(re.compile(r"\d+ answered")).first.inner_text())[1])
    page.keyboard.press("1")
    page.get_by_text(f"{done + 1} answered").first.wait_for()
    ready(page)


def both_go_on(app_alone, tabs) -> None:
    """Each tab labels its own study, as the same person."""
    for page, user_id in ((tabs.owner, tabs.owner_id), (tabs.annotator, tabs.kim_id)):
        before = n_labels(app_alone, user_id)
        page.bring_to_front()
        label_one(page)
        assert n_labels(app_alone, user_id) == before + 1
        assert (
            page.get_by_text("Two camps").first.is_visible() and page.get_by_role("button", name="Begin").count() == 0
        )
        assert page.get_by_text(re.compile("Question [012]\\?")).count() == 0


def write_rows(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_an_import_in_a_terminal_leaves_both_tabs_in_their_study(app_alone, tabs, tmp_path):
    both_go_on(app_alone, tabs)
    done = subprocess.run(
        [sys.executable, "-m", "copl_core", "import", write_rows(tmp_path / "rows.jsonl", ROWS), "--study", "Terminal"],
        cwd=ROOT,
        env=os.environ | {"COPL_HOME": str(app_alone.home)},
        text=True,
        capture_output=True,
        check=True,
    )
    assert "6 new labels" in done.stdout and "3 new pairs, 2 new users" in done.stdout
    both_go_on(app_alone, tabs)
    tabs.annotator.reload()  # and a page that is loaded again is that of the same person
    ready(tabs.annotator).get_by_text("Signed in as Kim").wait_for()
    both_go_on(app_alone, tabs)


def test_an_upload_says_what_it_brought_or_why_not_and_an_export_brings_nothing_new(app_alone, tabs, tmp_path):
    page = tabs.owner.context.new_page()
    page.goto(f"{app_alone.url}/settings")
    settled(page).get_by_text("Studies", exact=True).click()
    page.get_by_role("heading", name="A new study").wait_for()

    def choose(path: str) -> None:
        page.locator(".st-key-import-file input[type=file]").set_input_files(path)
        page.get_by_text(path.rpartition("/")[2]).first.wait_for()
        quiet(page)  # the uploader shows the name before the page has read the file

    def upload(path: str, name: str) -> None:
        choose(path)
        field = page.get_by_label("Name of the study made from it")
        field.fill(name)
        field.press("Enter")
        quiet(page)
        page.get_by_role("button", name="Import", exact=True).click()

    page.get_by_role("button", name="Prepare the file").click()
    with page.expect_download() as file:
        page.get_by_role("button", name="Download", exact=True).click()
    file.value.save_as(tmp_path / "labels.jsonl.gz")
    choose(str(tmp_path / "labels.jsonl.gz"))
    page.get_by_text("Into Two camps", exact=True).click()
    quiet(page)
    page.get_by_role("button", name="Import", exact=True).click()
    page.get_by_text(re.compile("nothing new. [0-9]{2,} labels were there already.")).wait_for()
    page.get_by_text("Into a new study", exact=True).click()

    both_go_on(app_alone, tabs)
    choose(write_rows(tmp_path / "other.jsonl", [{"question": "Why?", "answers": ["A", "B"]}]))
    page.get_by_text("other.jsonl has no two answers to compare: its fields are question, answers").wait_for()
    unnamed = [{"question": "Why?", "one": "So.", "two": "Because.", "choice": "a", "annotator": "Ines"}]
    choose(write_rows(tmp_path / "unnamed.jsonl", unnamed))
    for title, column in (("Answer A", "one"), ("Answer B", "two")):  # the form to map columns is open by itself
        choose_option(page, title, column)
        quiet(page)
    page.get_by_text("1 label of 1 person on 1 pair").wait_for()
    upload(write_rows(tmp_path / "good.jsonl", ROWS), "Two camps")
    page.get_by_text(re.compile("Two camps.* already")).wait_for()
    assert [study.name for study in tabs.session.store.studies()].count("Two camps") == 1
    upload(write_rows(tmp_path / "half.jsonl", [*ROWS, {"prompt": "No answers?"}]), "Uploaded")
    page.get_by_text("Uploaded has 6 labels, 3 pairs and 2 people.").wait_for()
    page.get_by_text("1 line was skipped; all other lines were imported.").wait_for()
    page.get_by_role("combobox", name="Study").wait_for()  # the menu knows the new study at once
    both_go_on(app_alone, tabs)
    tabs.owner.get_by_role("combobox", name="Study").wait_for()  # and so does the owner's other tab
    settled(page).get_by_role("button", name="Open Uploaded").click()
    page.wait_for_url(re.compile("study="))
    page.get_by_text("Uploaded", exact=True).first.wait_for()
    both_go_on(app_alone, tabs)
    made = next(study for study in tabs.session.store.studies() if study.name == "Uploaded")
    assert ("Owner", Role.OWNER) in [(user.name, user.role) for user in tabs.session.store.users(made.id)]
