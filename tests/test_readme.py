"""The README says what is true of this commit."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_pinned_package_has_a_line_that_says_what_it_saves():
    lists = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-tests.txt"))
    pinned = re.findall(r"^([a-z0-9-]+)(?:\[[a-z0-9,]+\])?==", lists, re.MULTILINE)
    made_of = README.partition("## What it is made of")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z][a-z0-9, -]+) \| ", made_of, re.MULTILINE)
    assert set(pinned) == {name for row in rows for name in row.split(", ")} - {"package"}


def test_every_page_of_the_tour_is_a_page():
    tour = README.partition("## A tour")[2].partition("\n## ")[0]
    titles = re.findall(r"^### (.+)$", tour, re.MULTILINE)
    named = re.findall(r'title="([^"]+)"', (ROOT / "streamlit_app.py").read_text())
    assert titles and set(titles) <= set(named)
