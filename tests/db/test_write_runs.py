"""The queue of answers that trainers write: each by one trainer, as long as a page wants them, and then gone."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import text

from copl_core.records import RunState
from db.engine import writing
from db.write_runs import MOST_CLAIMS

REQUEST = {"prompt": "Why?", "styles": [], "model": "smollm2", "max_tokens": 8, "seed": 0}
LONG = 600.0  # seconds


@pytest.fixture
def run_id(store, study, ann) -> int:
    return store.add_write_run(study.id, ann.id, REQUEST, LONG)


def let_pass(store, column: str) -> None:
    """The time in a column passes for every run."""
    past = "2020-01-01 00:00:00.000000" if store.engine.dialect.name == "sqlite" else datetime(2020, 1, 1)
    with writing(store.engine) as connection:
        connection.execute(text(f"update write_run set {column} = :past"), {"past": past})


def test_a_run_goes_to_one_trainer_whose_pieces_the_page_reads(store, study, ann, run_id):
    held = store.claim_write_run("one", LONG)
    assert (held.id, held.study_id, held.user_id, held.request) == (run_id, study.id, ann.id, REQUEST)
    assert store.claim_write_run("two", LONG) is None
    assert store.keep_write_run(run_id, held.token, [["It", " is"], []], LONG)
    assert store.write_run(run_id, LONG).pieces == [["It", " is"], []]
    store.end_write_run(run_id, held.token, RunState.DONE, [["It", " is", "."], ["No"]])
    ended = store.write_run(run_id, LONG)
    assert (ended.state, ended.pieces) == (RunState.DONE, [["It", " is", "."], ["No"]])
    assert store.claim_write_run("two", LONG) is None
    store.drop_write_run(run_id)
    assert store.write_run(run_id, LONG) is None


def test_the_oldest_run_goes_first_and_trainers_write_for_one_study_at_once(store, study, ben, run_id):
    second = store.add_write_run(study.id, ben.id, REQUEST, LONG)
    assert [store.claim_write_run(name, LONG).id for name in ("one", "two")] == [run_id, second]


def test_what_a_killed_trainer_has_begun_another_one_begins_again_and_the_first_is_refused(store, run_id):
    first = store.claim_write_run("one", LONG)
    store.keep_write_run(run_id, first.token, [["lost"]], LONG)
    let_pass(store, "lease_until")
    second = store.claim_write_run("two", LONG)
    assert second.id == run_id and second.pieces == [] and second.token > first.token
    assert not store.keep_write_run(run_id, first.token, [["late"]], LONG)
    store.end_write_run(run_id, first.token, RunState.FAILED, message="late")
    assert store.write_run(run_id, LONG).state == RunState.RUNNING


def test_a_run_that_ends_every_trainer_fails_and_one_that_is_given_back_has_lost_nothing(store, run_id):
    given_back = store.claim_write_run("one", LONG)
    store.end_write_run(run_id, given_back.token, RunState.QUEUED)
    for _ in range(MOST_CLAIMS):
        assert store.claim_write_run("one", LONG) is not None
        let_pass(store, "lease_until")
    assert store.claim_write_run("one", LONG) is None
    found = store.write_run(run_id, LONG)
    assert found.state == RunState.FAILED and "have ended 3 times" in found.message


def test_a_run_that_no_page_wants_is_neither_begun_nor_kept(store, run_id):
    let_pass(store, "wanted_until")
    assert store.claim_write_run("one", LONG) is None and store.write_run(run_id, LONG) is None


def test_a_trainer_learns_that_the_page_has_gone_and_each_look_of_the_page_prolongs_the_run(store, run_id):
    held = store.claim_write_run("one", LONG)
    let_pass(store, "wanted_until")
    assert not store.keep_write_run(run_id, held.token, [["for nobody"]], LONG)
    store.write_run(run_id, LONG)
    assert store.keep_write_run(run_id, held.token, [["for somebody"]], LONG)


def test_a_person_who_leaves_takes_what_is_written_for_them_along(store, ann, ben, study, run_id):
    other = store.add_write_run(study.id, ben.id, REQUEST, LONG)
    assert [row["request"] for row in store.stored_of(ann.id)["answers_being_written"]] == [REQUEST]
    store.forget_user(ann.id, fewest={"graph": 1, "full": 1})
    assert store.write_run(run_id, LONG) is None and store.write_run(other, LONG) is not None
