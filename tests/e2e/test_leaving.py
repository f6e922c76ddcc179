"""Somebody joins, downloads their data, and deletes themselves.

They answer nothing: the shared studio would train again without them while other tests use it.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

NAME = "Zyxwvut Qponmlk"


def test_a_person_downloads_their_data_and_leaves(app, settled):
    page = app.open(owner=False)
    page.get_by_label("Your name or a nickname").fill(NAME)
    page.get_by_role("button", name="Begin").click()
    page.locator(".st-key-response-left").wait_for()
    page.get_by_role("link", name="My taste").click()
    with page.expect_download() as download:
        settled(page).get_by_role("button", name="Download my data").click()
    data = json.loads(Path(download.value.path()).read_text())
    assert data["person"]["name"] == NAME and data["labels"] == []

    page.get_by_text("Delete me").click()
    page.get_by_label("Type your name to delete all of it").fill("Somebody")
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_text("Nothing is deleted: the name to type is").wait_for()
    page.get_by_label("Type your name to delete all of it").fill(NAME)
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_text("Deleted for good: your name").wait_for()
    page.get_by_role("button", name="Begin").wait_for()  # they are nobody here any more
    with sqlite3.connect(app.home / "copl.db") as database:
        assert database.execute("select count(*) from user where name = ?", (NAME,)).fetchone() == (0,)
