"""Small storms; ``python -m benchmarks.labelling_storm`` and ``cluster_storm`` are the full ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import cluster_storm
from benchmarks.labelling_storm import storm
from copl_core.config import Settings
from tests.databases import NoPostgres, private_server


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, tmp_path) -> Iterator[Settings]:
    """Of an installation on each of the two databases."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path)
        return
    try:
        with private_server() as url:
            yield Settings(home=tmp_path, database_url=url)
    except NoPostgres as missing:
        pytest.skip(str(missing))


@pytest.mark.slow
def test_killed_processes_lose_no_label_double_none_and_leave_no_pair_behind(settings):
    outcome = storm(settings, processes=3, labels=25, kills=2, seed=1)
    assert outcome.acknowledged >= 3 * 25 - outcome.kills and outcome.kills > 0
    assert (outcome.lost, outcome.double, outcome.over, outcome.unacknowledged, outcome.stuck, outcome.broken) == (
        0,
    ) * 6


@pytest.mark.slow
def test_apps_a_trainer_and_the_database_are_killed_while_people_label_and_everything_holds(minilm):
    plan = cluster_storm.Plan(labellers=3, seconds=10.0, think=0.5, every=1.5, seed=1, kinds="graph", trainers=1)
    try:
        outcome = cluster_storm.storm(plan)
    except NoPostgres as missing:
        pytest.skip(str(missing))
    assert outcome.broken == []
    assert outcome.rows["labels acknowledged"] > 0 and outcome.rows["runs, graph, done"] > 0
    assert sum(outcome.rows[f"killed: {kind}"] for kind in cluster_storm.KINDS) > 1
