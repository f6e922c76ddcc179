"""A study of very many people: pages show some of them, count all, and find the others by name."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.records import Role
from copl_core.study import access, controversy, drawn, group_profiles, label_quality, user_map, voters
from tests.worlds import SHORT, label_in_camp


@pytest.fixture
def large(camps, monkeypatch):
    """The two camps of sixteen people, which are very many here, with their owner Olga, who has labelled."""
    olga = access.join(camps, "Olga", Role.OWNER)
    label_in_camp(camps, olga.id, SHORT, 6)
    whole = user_map.map_of_users(camps, olga.id), label_quality.quality(camps)
    for module, name, value in (
        (access, "MOST_LISTED", 3),
        (drawn, "MOST_DRAWN", 10),
        (drawn, "DRAWN", 4),
        (label_quality, "MOST_READ", 120),
    ):
        monkeypatch.setattr(module, name, value)
    camps._once.clear()
    return camps, olga, *whole


def test_a_map_of_some_people_counts_all_and_places_each_as_the_map_of_all_does(large):
    session, olga, whole, _ = large
    last = int(whole.ids[-2])
    view = user_map.map_of_users(session, olga.id, also=[last])
    assert view.is_sample and not whole.is_sample
    assert 4 < len(view.ids) <= 6 and {last, olga.id} <= set(view.ids.tolist()) <= set(whole.ids.tolist())
    rows = whole.rows(view.ids.tolist())
    for column in ("xy", "xyz", "group", "n_labels", "names"):
        assert np.array_equal(getattr(view, column), getattr(whole, column)[rows], equal_nan=column[0] == "x"), column
    assert (view.n_users, view.n_placed) == (16, (16, 16, 0))
    assert view.sizes == whole.sizes == {group: int((whole.group == group).sum()) for group in (0, 1)}
    access.include_simulated(session, False)
    assert user_map.map_of_users(session, olga.id).n_placed == (0, 0, 0)


def test_figures_of_some_people_are_their_own_and_counts_are_those_of_all(large):
    session, olga, _, whole = large
    assert (whole.drawn, whole.n_users, whole.n_answers) == (None, 17, 166) and len(whole.people) == 17
    left_out = whole.people[3].user.id
    access.exclude(session, left_out, True)
    view = label_quality.quality(session, also=(olga.id,))
    assert (view.n_users, view.n_answers) == (17, 166) and 0 < view.drawn < len(view.people) < 17
    assert {left_out, olga.id} <= {person.user.id for person in view.people}
    own = {person.user.id: person.figures for person in whole.people}
    for person in view.people:
        theirs = own[person.user.id]
        for name in ("n", "left", "consistent", "gold", "fast"):
            assert getattr(person.figures, name) == getattr(theirs, name), name
    assert 0 < view.agreement.n_pairs < whole.agreement.n_pairs


def test_people_are_counted_by_pair_in_the_snapshot_as_in_the_database(camps, monkeypatch):
    query = controversy.Query()
    now = controversy.list_rows(camps, query, 100)
    monkeypatch.setattr(voters, "MOST_COUNTED", 0)
    rows = controversy.list_rows(camps, query, 100)
    assert rows.of_snapshot and not now.of_snapshot
    assert rows.voters.tolist() == now.voters.tolist() and rows.voters.min() > 0


def test_a_selection_of_people_is_described_alike_whoever_stands_for_the_others(camps, monkeypatch):
    ids = camps.snapshot().graph.user_ids
    whole = group_profiles.preferences_of(camps, ids[:8].tolist())
    monkeypatch.setattr(group_profiles, "_MOST_USERS", 6)
    camps._once.clear()
    found = group_profiles.preferences_of(camps, ids[:8].tolist())
    assert (found.people, found.others, found.n_labels) == (whole.people, whole.others, whole.n_labels)
    assert {one.feature for one in found.label_statements} <= {one.feature for one in whole.label_statements}


def test_pages_find_people_by_name(large, open_page, words):
    session, olga, _, whole = large
    wanted = whole.people[11].user
    page = open_page("people", session, olga)
    assert "of the 16 people are drawn, evenly chosen" in words(page)
    page.text_input(key="found-search").set_value(wanted.name).run()
    assert wanted.name in page.selectbox(key="found").options[0]
    page.selectbox(key="found").set_value(wanted.id).run()
    assert not page.exception and f"**{wanted.name} \\(simulated\\)** answers most like" in words(page)
    for name, search in (("settings", "members-find"), ("reward", "people-find"), ("quality", "quality-find")):
        page = open_page(name, session, olga)
        page.text_input(key=search).set_value(wanted.name).run()
        assert not page.exception, name
        if name == "quality":
            assert "17 people have given 166 answers. These are too many to read for one page" in words(page)
            page.multiselect(key="quality-also").set_value([wanted.id]).run()
            page.toggle(key="quality-simulated").set_value(True).run()
            assert f"{wanted.name} (simulated)" in page.dataframe[0].value["person"].tolist()
        if name == "reward":
            assert f"{wanted.name} (simulated)" in page.multiselect(key="people").options
