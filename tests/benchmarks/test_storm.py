"""Small storms; ``python -m benchmarks.labelling_storm`` and ``cluster_storm`` are the full ones."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from sqlalchemy import text

from benchmarks import cluster_checks, cluster_storm, rolling_restart
from benchmarks.balancer import NoBalancer
from benchmarks.labelling_storm import storm
from benchmarks.web_visitors import Visitor
from copl_core.config import Settings
from copl_core.records import Choice, RunState
from copl_core.study import labelling
from copl_core.study.session import Session
from tests.databases import postgres_or_skip, private_server


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request, tmp_path) -> Iterator[Settings]:
    """Of an installation on each of the two databases."""
    if request.param == "sqlite":
        yield Settings(home=tmp_path)
        return
    with postgres_or_skip(), private_server() as url:
        yield Settings(home=tmp_path, database_url=url)


@pytest.mark.slow
def test_killed_processes_lose_no_label_double_none_and_leave_no_pair_behind(settings):
    outcome = storm(settings, processes=3, labels=25, kills=2, seed=1)
    assert outcome.acknowledged >= 3 * 25 - outcome.kills and outcome.kills > 0
    assert (outcome.lost, outcome.double, outcome.over, outcome.unacknowledged, outcome.stuck, outcome.broken) == (
        0,
    ) * 6


def test_the_checks_after_a_storm_see_a_lost_an_unknown_a_second_and_a_surplus_label(tmp_path):
    session = cluster_storm.prepare(Settings(home=tmp_path), pairs=3)
    people = cluster_storm.invite(session, ["http://127.0.0.1:1"], cluster_checks.OVERLAP + 1, Random(0))
    ids = {user.name: user.id for user in session.store.users(session.id)}
    for one in people[:-1]:
        while task := labelling.next_task(session, ids[one.name]):
            labelling.submit(session, task.id, ids[one.name], Choice.LEFT)
            one.acknowledged.add(task.id)
    assert broken_labels(session, people) == []
    people[0].acknowledged.add(99)
    people[1].acknowledged.pop()
    first, second, third, fourth = (ids[one.name] for one in people)
    with session.store.engine.begin() as connection:
        pair, other = connection.execute(text("select distinct pair_id from label order by 1 limit 2")).scalars()
        move = "update label set user_id = {}, pair_id = {} where user_id = {} and pair_id = {}"
        connection.execute(text(move.format(fourth, pair, first, other)))
        connection.execute(text(move.format(third, other, second, other)))
    words = "not stored|not acknowledged|second one|more than 3 people".split("|")
    found = broken_labels(session, people)
    assert len(found) == len(words) and all(word in line for word, line in zip(words, found, strict=True))


def test_the_checks_after_a_storm_see_a_run_that_nobody_ends_and_one_that_nobody_takes_over(tmp_path):
    session = cluster_storm.prepare(Settings(home=tmp_path), pairs=1)
    store, (one, two, three) = session.store, (session.store.add_run(session.id, "graph", "") for _ in range(3))
    store.finish_run(one.id, RunState.DONE)
    store.finish_run(two.id, RunState.INTERRUPTED)
    outcome = cluster_checks.Outcome()
    cluster_checks.check_runs(store.runs(session.id), outcome)
    assert [line.split(" (")[0] for line in sorted(outcome.broken)] == [f"run {two.id}", f"run {three.id}"]


def broken_labels(session: Session, people: list[Visitor]) -> list[str]:
    outcome = cluster_checks.Outcome()
    cluster_checks.check_labels(session, people, outcome)
    return outcome.broken


@pytest.mark.slow
def test_two_apps_two_trainers_and_the_database_are_killed_while_people_label_and_everything_holds(minilm):
    """In four homes."""
    plan = cluster_storm.Plan(labellers=3, think=0.3, seed=1, kinds="graph", labels=20)
    with postgres_or_skip():
        outcome = cluster_storm.storm(plan)
    assert outcome.broken == []
    assert outcome.rows["labels acknowledged"] >= plan.labels and outcome.rows["runs, graph, done"] > 0
    assert sum(outcome.rows[f"killed: {kind}"] for kind in cluster_storm.KINDS) > 1


@pytest.mark.slow
def test_two_apps_behind_a_balancer_are_restarted_one_after_the_other_and_no_answer_no_draft_and_nobody_is_lost():
    plan = rolling_restart.Plan(labellers=3, browsers=0, rounds=1, think=0.5, drafts=1.0, pause=1.0, look="200ms")
    with postgres_or_skip():
        try:
            outcome = rolling_restart.restart_all(plan)
        except NoBalancer as missing:
            pytest.skip(str(missing))
    assert outcome.broken == []
    assert outcome.rows["restarts"] == 2 and outcome.rows["labels acknowledged"] > 0
