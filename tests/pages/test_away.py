"""Pages of a machine that does not have the champion: they say so, labelling goes on, and then they show it."""

from __future__ import annotations

from shutil import move

import pytest

from copl_core.records import Choice, Role
from copl_core.study import access, labelling, runs
from copl_core.study.session import Session
from tests.worlds import trained, two_camps

NEEDED = ("overview", "people", "experts", "controversy", "reward")


@pytest.fixture
def away(tmp_path, tmp_path_factory) -> Session:
    """Two camps in an installation with a storage that lacks the champion, as this machine does."""
    made = trained(two_camps, tmp_path_factory, tmp_path / "camps", storage=str(tmp_path / "storage"))
    move(made.snapshot_root / "v0001", tmp_path / "v0001")
    return Session(made.store, made.settings, made.id, patience=0.0)


@pytest.mark.parametrize("name", NEEDED)
def test_a_page_says_why_the_champion_cannot_be_shown(away, open_page, words, name):
    olga = access.join(away, "Olga", Role.OWNER)
    assert runs.champion_away(away, 60.0).failed
    shown = words(open_page(name, away, olga))
    assert "Snapshot v0001 cannot be fetched from" in shown and "It is tried again every" in shown


def test_labelling_goes_on_without_the_model_and_says_so(away, open_page, words):
    ann = access.join(away, "Ann")
    assert runs.champion_away(away, 60.0).failed
    page = open_page("label", away, ann)
    assert "The model cannot be read at present: pairs are chosen without it until then" in words(page)
    task = labelling.next_task(away, ann.id)
    assert task.reason == "uniform" and labelling.submit(away, task.id, ann.id, Choice.LEFT).label


def test_a_page_shows_the_champion_once_it_is_here(away, open_page, words, tmp_path):
    olga = access.join(away, "Olga", Role.OWNER)
    page = open_page("people", away, olga)
    assert "Snapshot v0001 " in words(page) and len(page.get("plotly_chart")) == 0
    move(tmp_path / "v0001", away.snapshot_root / "v0001")
    page.run()
    assert not page.exception and "cannot be fetched" not in words(page) and len(page.get("plotly_chart")) > 0
