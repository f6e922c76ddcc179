"""When a refit is due: the truth table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from copl_core.config import Settings
from copl_core.trainer.schedule import FEWEST, Situation, due

NOW = datetime(2025, 5, 1, tzinfo=UTC)
SETTINGS = Settings(refit_labels=8, refit_seconds=15, reward_labels=40, reward_seconds=120)
SETTLED = Situation(
    n_labels=200,
    since_graph=0,
    since_reward=0,
    has_snapshot=True,
    has_reward=True,
    last_graph=NOW - timedelta(hours=1),
    last_reward=NOW - timedelta(hours=1),
)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        # nothing has changed, or not enough has
        ({}, None),
        ({"since_graph": 7}, None),
        ({"since_graph": 8}, "graph"),
        ({"since_graph": 8, "last_graph": ago(14)}, None),
        ({"since_graph": 8, "last_graph": ago(15)}, "graph"),
        # the reward model follows less often, and never before the graph
        ({"since_graph": 40, "since_reward": 39}, "graph"),
        ({"since_graph": 40, "since_reward": 40}, "graph full"),
        ({"since_graph": 0, "since_reward": 40}, "full"),
        ({"since_graph": 40, "since_reward": 40, "last_reward": ago(119)}, "graph"),
        ({"since_graph": 40, "since_reward": 40, "last_reward": ago(120)}, "graph full"),
        # the first of each
        ({"has_snapshot": False, "has_reward": False, "last_graph": None, "last_reward": None}, "graph"),
        ({"has_snapshot": False, "has_reward": False, "n_labels": 9, "last_graph": None, "last_reward": None}, None),
        (
            {"has_snapshot": False, "has_reward": False, "n_labels": 10, "last_graph": None, "last_reward": None},
            "graph",
        ),
        ({"has_reward": False, "last_reward": None}, "full"),
        ({"has_reward": False, "last_reward": None, "n_labels": FEWEST["full"] - 1}, None),
        ({"has_reward": False, "last_reward": None, "n_labels": FEWEST["full"]}, "full"),
        ({"has_reward": False, "last_reward": ago(60)}, None),  # a full run that failed rests as well
        # labels that were taken back count as changes, but a study that has too few left is left alone
        ({"n_labels": 9, "since_graph": 50, "since_reward": 50}, None),
    ],
)
def test_what_is_due(change, kinds):
    found = due(replace(SETTLED, **change), SETTINGS, NOW)
    assert list(found) == (kinds.split() if kinds else [])
    assert all(found.values())  # each with a reason in words


@pytest.mark.parametrize("failed", [0, 1, 3, 8])
def test_each_failure_in_a_row_doubles_the_wait(failed):
    wait = SETTINGS.refit_seconds * 2**failed
    situation = replace(SETTLED, since_graph=8, failed_graph=failed)
    assert due(replace(situation, last_graph=ago(wait - 1)), SETTINGS, NOW) == {}
    assert "graph" in due(replace(situation, last_graph=ago(wait)), SETTINGS, NOW)


def test_a_reward_model_that_cannot_be_fitted_does_not_keep_the_graph_from_following():
    situation = replace(SETTLED, has_reward=False, since_graph=8, last_reward=ago(130), failed_reward=2)
    assert list(due(situation, SETTINGS, NOW)) == ["graph"]


def test_failures_wait_even_without_a_pause_and_not_for_ever():
    eager = Settings(refit_seconds=0, reward_seconds=0)
    assert due(replace(SETTLED, since_graph=8, last_graph=ago(1), failed_graph=1), eager, NOW) == {}
    assert due(replace(SETTLED, since_graph=8, last_graph=ago(3600), failed_graph=10_000), eager, NOW)
