"""The overview: what this is, the small map, what personalisation gains in honest words, and the ways."""

from __future__ import annotations

import json

import pytest

from copl_core.records import Role
from copl_core.study import access, controversy
from tests.pages.test_training import GAIN, with_gain
from tests.worlds import SHORT, fit_graph_now, label_in_camp

WAYS = ["Label pairs", "Ask for rewards", "See people"]


@pytest.fixture
def olga(camps):
    return access.join(camps, "Olga", Role.OWNER)


def ways(page) -> list[str]:
    return [one.label for one in page.button]


def test_before_the_first_snapshot_the_doors_are_open_and_nothing_is_claimed(session, owner, open_page, words):
    page = open_page("overview", session, owner)
    shown = words(page)
    assert "The map of people comes from a snapshot, and there is none yet" in shown
    assert "## Not measured yet" in shown and "pleases" not in shown
    assert ways(page) == [*WAYS, "Invite people"]


def test_a_researcher_invites_nobody(camps, open_page):
    rosa = access.join(camps, "Rosa", Role.RESEARCHER)
    assert ways(open_page("overview", camps, rosa)) == WAYS


@pytest.mark.parametrize(
    ("change", "headline"),
    [
        ({}, "## +8.8 points"),
        ({"accuracy": 0.01, "accuracy_interval": [-0.02, 0.04]}, "## No certain gain yet"),
        ({"accuracy": -0.05, "accuracy_interval": [-0.09, -0.01]}, "## No gain here"),
    ],
)
def test_the_gain_is_a_number_with_its_interval_where_there_is_one(camps, olga, open_page, words, change, headline):
    with_gain(camps, GAIN | change, files_of="v0001")
    shown = words(open_page("overview", camps, olga))
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in (GAIN | change)["accuracy_interval"])
    assert headline in shown and f"95% interval {low} to {high}" in shown and "261 held-out answers" in shown


def test_the_map_and_the_worth_of_answers_by_group_stand_with_n_and_snapshot(camps, olga, open_page, words):
    shown = words(open_page("overview", camps, olga))
    value = controversy.group_value(camps)
    assert value.for_groups > value.for_all + 0.2 and (value.n_pairs, value.n_users) == (12, 16)
    assert f"one answer for all pleases {value.for_all:.0%}" in shown
    assert f"each group its own {value.for_groups:.0%}" in shown and "over 12 pairs" in shown
    assert "16 simulated people in 2 groups" in shown and "Snapshot v0001" in shown


def test_the_map_draws_simulated_people_as_the_large_map_does(camps, olga, open_page, words):
    ann = access.join(camps, "Ann")
    label_in_camp(camps, ann.id, SHORT, 10)
    fit_graph_now(camps)
    page = open_page("overview", camps, olga)
    traces = json.loads(page.get("plotly_chart")[0].proto.spec)["data"]
    symbols = [trace["marker"]["symbol"] for trace in traces]
    assert symbols.count("circle") == 1 and set(symbols) == {"circle", "circle-open"}
    in_legend = [trace for trace in traces if trace.get("showlegend", True)]
    names = [trace["name"] for trace in in_legend]
    assert {trace["marker"]["symbol"] for trace in in_legend} == {"circle-open"}, "as most points of each group are"
    assert len(names) == len(set(names)), "one entry of the legend for each group"
    assert "open points are simulated people" in words(page)


@pytest.mark.parametrize("name", ["overview", "people", "controversy", "experts", "reward", "training", "quality"])
def test_every_page_that_counts_simulated_people_says_so_and_none_says_it_without_them(
    camps, olga, open_page, words, name
):
    assert "16 of the 17 people of this study are **simulated**" in words(open_page(name, camps, olga))
    access.include_simulated(camps, False)
    assert "**simulated**" not in words(open_page(name, camps, olga))


def test_a_damaged_snapshot_is_reported_and_the_doors_stay(camps, olga, open_page, words):
    (camps.snapshot_root / "v0001" / "graph" / "graph.json").unlink()
    page = open_page("overview", camps, olga)
    assert "Snapshot v0001 is damaged" in words(page) and ways(page) == [*WAYS, "Invite people"]
