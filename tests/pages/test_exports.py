"""The part of the settings page that exports labels: what is chosen is counted before a file is downloaded."""

from __future__ import annotations

import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
import streamlit as st

from copl_core.records import Choice, CoplError, ImportRow, Role
from copl_core.study import access, contents, exports, group_names, sign_in
from tests.worlds import open_study


@pytest.fixture
def mixed(tmp_path):
    """A pair with a strong label, a weak one and a tie."""
    session = open_study(tmp_path)
    given = (("Ann", Choice.LEFT, 3), ("Ben", Choice.RIGHT, 1), ("Cem", Choice.TIE, 1))
    rows = [
        ImportRow(line, "Name a bird", "Robin", "Wren", choice=choice, annotator=name, strength=strength)
        for line, (name, choice, strength) in enumerate(given)
    ]
    contents.import_rows(session, rows)
    return session


@pytest.fixture
def page(open_page):
    def opened(session, owner, **state):
        return open_page("settings", session, owner, **{"settings-part": "Studies"}, **state)

    return opened


def offered(page) -> bool:
    return any("export" in one.proto.id.split("-")[-1:] for one in page.get("download_button"))


def prepared(page, session) -> bytes:
    """Press the button; what the download would send."""
    page.button(key="export-prepare").click().run()
    assert not page.exception and offered(page)
    return exports.prepared_bytes(session, page.session_state["exported"][1])


def test_what_is_left_out_is_counted_before_the_download(mixed, page, words):
    opened = page(mixed, access.join(mixed, "Olga", Role.OWNER))
    assert not offered(opened)
    opened.selectbox(key="export-format").set_value("trl").run()
    opened.selectbox(key="export-margin").set_value(3).run()
    opened.selectbox(key="export-ties").set_value("split").run()
    content = prepared(opened, mixed)
    rows = [json.loads(line) for line in content.splitlines()]
    assert [row["weight"] for row in rows] == [1]
    assert "**1 row** of 3 labels." in words(opened) and "1 below the margin: left out" in words(opened)
    assert "1 ties, which have no margin: left out" in words(opened)
    opened.selectbox(key="export-margin").set_value(1).run()
    assert not offered(opened), "the file is another one now"


def test_chosen_people_under_numbers_are_written_as_a_table(mixed, page, words):
    opened = page(mixed, access.join(mixed, "Olga", Role.OWNER))
    opened.selectbox(key="export-format").set_value("csv").run()
    opened.selectbox(key="export-whose").set_value("Chosen people").run()
    assert "Choose one person or more." in words(opened)
    opened.multiselect(key="export-users").set_value(["Ann", "Cem"]).run()
    opened.toggle(key="export-pseudonyms").set_value(True).run()
    rows = list(csv.DictReader(StringIO(prepared(opened, mixed).decode())))
    known = {user.name: user.id for user in mixed.store.users(mixed.id)}
    assert [row["annotator"] for row in rows] == [f"person-{known['Ann']}", f"person-{known['Cem']}"]


def test_a_tab_that_was_signed_out_downloads_nothing(mixed, page, monkeypatch):
    owner = access.join(mixed, "Olga", Role.OWNER)
    browser = sign_in.begin(mixed.store, access.sign_in_token(mixed, owner.id))
    sent = {}
    monkeypatch.setattr(st, "download_button", lambda label, data, **_: sent.update({label: data}))
    opened = page(mixed, owner, again=lambda: sign_in.signed_in(mixed.store, browser, mixed.id))
    opened.button(key="export-prepare").click().run()
    with ThreadPoolExecutor(1) as server:  # which makes the file outside of the page's run
        assert len(server.submit(sent["Download"]).result()) > 0
        assert server.submit(sent["Download this study"]).result().startswith(b"PK")
        sign_in.end(mixed.store, browser)
        for data in sent.values():
            with pytest.raises(CoplError, match=re.escape(sign_in.SIGNED_OUT)):
                server.submit(data).result()


def test_shares_are_offered_where_a_format_has_them(mixed, page, words):
    opened = page(mixed, access.join(mixed, "Olga", Role.OWNER))
    assert not [one for one in opened.toggle if one.key == "export-shares"]  # our own rows are labels
    opened.selectbox(key="export-format").set_value("csv").run()
    opened.toggle(key="export-shares").set_value(True).run()
    (row,) = csv.DictReader(StringIO(prepared(opened, mixed).decode()))
    assert float(row["share_a"]) == 0.5 and row["people"] == "3" and "**1 row** of 3 labels" in words(opened)


def test_a_group_of_the_map_is_chosen_by_its_name(camps, page, words):
    opened = page(camps, access.join(camps, "Olga", Role.OWNER))
    opened.selectbox(key="export-whose").set_value("A group").run()
    names = list(group_names.present(camps).values())
    opened.selectbox(key="export-group").set_value(names[1]).run()
    prepared(opened, camps)
    assert opened.session_state["exported"][1].report.n_written == 80  # half of the sixteen, ten labels each
