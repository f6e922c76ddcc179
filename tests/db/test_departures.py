"""A person leaves the database, on SQLite and PostgreSQL: what goes, what stays, and what may not be published."""

from __future__ import annotations

import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import select, text

from copl_core.records import Choice, CoplError, Identity, ImportRow, Role, RunState, SnapshotRecord, StoreUnavailable
from copl_core.study_settings import AssignmentSettings, Draft, ServiceRole
from db import overwriting
from db.base import Base
from db.departed_texts import named_after
from db.departures import REASON
from db.engine import limit
from db.models import ResponseRow
from db.store import open_store

FEWEST = {"graph": 1, "full": 2}
SECRET = "because zyxwvut tastes of rain"


def record(version: str, watermark: int, reward: int | None = None) -> SnapshotRecord:
    return SnapshotRecord(version, None, watermark, 1, {"reward_watermark": reward}, datetime.now(UTC))


def everything(store) -> str:
    """All values of all tables, as one text."""
    with store.engine.connect() as connection:
        return repr([connection.execute(select(table)).all() for table in Base.metadata.sorted_tables])


def written(store) -> object:
    """What changes when the tables are written again: the numbers of their files, or the bytes of the one file."""
    if store.engine.dialect.name == "sqlite":
        return Path(store.engine.url.database).read_bytes()
    with store.engine.connect() as connection:
        return connection.execute(text("select pg_relation_filenode('label'), pg_relation_filenode('audit')")).one()


@pytest.fixture
def lived_in(store, study, ann, ben, four_pairs, hand_out):
    """Ann has done all that a person can do; Ben has answered one pair."""
    store.set_role(ann.id, Role.OWNER)
    store.set_role(ben.id, Role.OWNER, by=ann.id)
    store.submit(hand_out(ann.id, four_pairs[0][0]).id, ann.id, Choice.LEFT, reason=SECRET, tags=["zyxwvut"])
    label = store.submit(hand_out(ann.id, four_pairs[1][0]).id, ann.id, Choice.LEFT)
    store.edit(label.id, ann.id, Choice.RIGHT, reason=SECRET)
    store.submit(hand_out(ben.id, four_pairs[0][0]).id, ben.id, Choice.RIGHT, reason="mine")
    store.draft(hand_out(ann.id, four_pairs[2][0]).id, ann.id, Draft(SECRET, ("zyxwvut",)))
    store.report(ann.id, four_pairs[0][1], SECRET)
    store.add_token(ann.id, "hash", lasts=timedelta(days=7))
    store.start_session("hash", "browser")
    store.add_service_token(study.id, "program", "zyxwvut", ServiceRole.REWARDS, 10, by=ann.id)
    store.rename_group(study.id, 0, "Short", by=ann.id)
    return study


def test_everything_of_a_person_goes_and_the_record_keeps_a_number(store, lived_in, ann, ben):
    gone = store.forget_user(ann.id, fewest=FEWEST, by=ann.id).gone
    assert {name: gone[name] for name in ("labels", "reasons", "drafts", "tasks", "reports", "links", "browsers")} == {
        "labels": 3, "reasons": 2, "drafts": 1, "tasks": 3, "reports": 1, "links": 1, "browsers": 1,
    }  # fmt: skip
    left = everything(store)
    assert "zyxwvut" not in left and "'Ann'" not in left
    assert [user.name for user in store.users(lived_in.id)] == ["Ben"]
    assert [label.user_id for label in store.labels(lived_in.id)] == [ben.id]
    assert store.training_data(lived_in.id).user_ids.tolist() == [ben.id]
    assert store.member(lived_in.id, ann.id) is None and store.session_user("browser", lived_in.id) is None
    assert ann.id in [entry.user_id for entry in store.audit(lived_in.id)]
    assert store.service_token("program") is None
    with pytest.raises(CoplError, match="no user"):
        store.user(ann.id)


def test_an_address_goes_with_its_person_wherever_it_stands(store, study, ann):
    store.set_role(ann.id, Role.OWNER)
    store.set_email(study.id, "zyxwvut@example.org", Role.ANNOTATOR, by=ann.id)
    store.start_identity_session(Identity("https://id.example", "s-zyxwvut", "zyxwvut@example.org", "Zyxwvut"), "hash")
    guest = store.admit("hash", study.id)
    assert guest is not None and guest.name == "Zyxwvut"
    store.forget_user(guest.id, fewest=FEWEST, by=ann.id)
    assert "zyxwvut" not in everything(store).casefold()


ZY = Identity("https://id.example", "s-zyxwvut", "zyxwvut@example.org", "Zyxwvut")


@pytest.mark.parametrize("first", ["the rule", "the account"])
def test_an_address_of_a_connected_account_goes_from_the_rules_that_were_written_for_it(store, study, ann, ben, first):
    store.set_role(ann.id, Role.OWNER)
    rule = partial(store.set_email, study.id, ZY.address, Role.RESEARCHER, by=ann.id)
    acts = [rule, partial(store.connect_identity, ben.id, ZY)]
    for act in acts if first == "the rule" else reversed(acts):
        act()
    store.set_email(study.id, "other@example.org", Role.RESEARCHER, by=ann.id)
    data = store.stored_of(ben.id)
    assert [(one["email"], one["role"]) for one in data["addresses"]] == [(ZY.address, "researcher")]
    assert [one["detail"]["email"] for one in data["record"] if one["event"] == "e-mail"] == [ZY.address]
    assert store.forget_user(ben.id, fewest=FEWEST, by=ann.id).gone["addresses"] == 1
    assert "zyxwvut" not in everything(store).casefold()
    assert [one.email for one in store.emails(study.id)] == ["other@example.org"]


def test_an_address_by_which_somebody_else_came_stays_theirs(store, study, ann, ben):
    store.set_role(ann.id, Role.OWNER)
    store.set_email(study.id, ZY.address, Role.ANNOTATOR, by=ann.id)
    store.start_identity_session(ZY, "hash")
    came = store.admit("hash", study.id)
    store.connect_identity(ben.id, Identity(ZY.issuer, "another", ZY.address, "Ben"))
    assert store.stored_of(ben.id)["addresses"] == []
    store.forget_user(ben.id, fewest=FEWEST, by=ann.id)
    assert [(one.email, one.user_id) for one in store.emails(study.id)] == [(ZY.address, came.id)]
    assert ZY.address in repr(store.audit(study.id)) and store.admit("hash", study.id) == came


@pytest.mark.parametrize("by_address", [True, False])
def test_a_refusal_is_counted_when_it_goes_with_the_person(store, study, ann, ben, by_address):
    store.set_role(ann.id, Role.OWNER)
    store.connect_identity(ben.id, ZY)
    if not by_address:
        store.set_email(study.id, ZY.address, Role.ANNOTATOR, by=ann.id)
    assert not store.is_refused(ben.id)
    store.set_email(study.id, ZY.address, None, by=ann.id)
    store.start_identity_session(Identity(ZY.issuer, ZY.subject, "new@example.org", ""), "hash")  # it has another now
    assert store.is_refused(ben.id) and not store.is_refused(ann.id)
    gone = store.forget_user(ben.id, fewest=FEWEST, by=ann.id).gone
    assert gone["refusals"] == gone["addresses"] == 1 and "zyxwvut" not in everything(store).casefold()


def test_a_new_person_never_gets_the_number_or_the_name_of_one_who_left(store, study, ann, ben):
    store.forget_user(ben.id, fewest=FEWEST)
    again = store.create_user(study.id, "Ben")
    assert again.id not in (ann.id, ben.id) and again.name == "Ben"
    assert store.create_user(study.id, f" left {ben.id}").id != ben.id


def test_pairs_that_a_person_filled_are_handed_out_again(store, study, ann, ben, four_pairs, answer):
    store.set_assignment(study.id, AssignmentSettings(overlap=1))
    pair = four_pairs[0][0]
    answer(ann.id, pair, Choice.LEFT)
    assert pair not in [one[0] for one in store.available_pairs(ben.id).pairs]
    store.forget_user(ann.id, fewest=FEWEST)
    assert pair in [one[0] for one in store.available_pairs(ben.id).pairs]


def test_an_open_tab_of_a_person_who_left_changes_nothing(store, study, ann, ben, four_pairs, hand_out):
    task = hand_out(ann.id, four_pairs[0][0])
    store.forget_user(ann.id, fewest=FEWEST)
    before = everything(store)
    for act in (
        lambda: store.submit(task.id, ann.id, Choice.LEFT, reason=SECRET),
        lambda: store.undo(ann.id),
        lambda: store.report(ann.id, four_pairs[0][1], SECRET),
        lambda: store.add_token(ann.id, "again", lasts=timedelta(days=7)),
        lambda: hand_out(ann.id, four_pairs[1][0]),
        lambda: store.set_role(ann.id, Role.OWNER),
        lambda: store.forget_user(ann.id, fewest=FEWEST),
    ):
        with pytest.raises(CoplError, match="no user"):
            act()
    assert not store.draft(task.id, ann.id, Draft(SECRET))
    assert everything(store) == before


def test_the_only_owner_cannot_leave_and_nothing_changes(store, study, ann, four_pairs, answer):
    store.set_role(ann.id, Role.OWNER)
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    before = everything(store)
    with pytest.raises(CoplError, match="only owner"):
        store.forget_user(ann.id, fewest=FEWEST, by=ann.id)
    assert everything(store) == before


def test_a_fit_that_has_read_the_labels_of_a_person_cannot_publish_after_they_left(store, lived_in, ann):
    run = store.add_run(lived_in.id, "graph", "")
    run = store.claim_run(run.id)
    before = record("v0001", store.training_data(lived_in.id).watermark)
    store.forget_user(ann.id, fewest=FEWEST)
    assert store.run(run.id).state == RunState.CANCELLED
    for run_id in (run.id, None):
        with pytest.raises(CoplError, match="cancelled|has learned from a person"):
            store.publish(lived_in.id, before, run_id=run_id)
    assert store.champion(lived_in.id) is None
    shared = record("v0001", store.revision(lived_in.id), reward=before.watermark)
    with pytest.raises(CoplError, match="has learned from a person"):
        store.publish(lived_in.id, shared, run_id=None)
    assert store.publish(lived_in.id, record("v0001", store.revision(lived_in.id)), run_id=None)


def test_the_run_without_the_person_is_queued_and_takes_the_place_of_a_chosen_champion(store, lived_in, ann, ben):
    watermark = store.revision(lived_in.id)
    for version, reward in (("v0001", watermark), ("v0002", None)):
        store.publish(lived_in.id, record(version, watermark, reward), run_id=None)
    store.promote(lived_in.id, "v0001", by=ben.id)
    departure = store.forget_user(ann.id, fewest={"graph": 1, "full": 1})
    (queued,) = store.active_runs()
    assert (queued.id, queued.kind, queued.reason) == (departure.run_id, "full", REASON)
    assert store.knows_forgotten(lived_in.id) and store.forgotten_snapshots(lived_in.id) == ["v0001", "v0002"]
    assert store.drop_forgotten_snapshots(lived_in.id) == []  # the champion still is one of them
    with pytest.raises(CoplError, match="has learned from a person"):
        store.promote(lived_in.id, "v0002", by=ben.id)
    now = store.revision(lived_in.id)
    assert store.publish(lived_in.id, record("v0003", now, now), run_id=store.claim_run(queued.id).id)
    assert store.drop_forgotten_snapshots(lived_in.id) == ["v0001", "v0002"]
    assert [one.version for one in store.snapshots(lived_in.id)] == ["v0003"]


def test_a_study_with_too_few_labels_left_has_no_champion(store, lived_in, ann):
    store.publish(lived_in.id, record("v0001", store.revision(lived_in.id)), run_id=None)
    waiting = store.add_run(lived_in.id, "graph", "of an earlier departure")
    departure = store.forget_user(ann.id, fewest={"graph": 10, "full": 20})
    assert departure.run_id is None and store.champion(lived_in.id) is None and not store.active_runs()
    ended = store.run(waiting.id)
    assert ended.state == RunState.CANCELLED and "too few labels" in ended.message and ended.ended_at
    assert store.drop_forgotten_snapshots(lived_in.id) == ["v0001"] and store.snapshots(lived_in.id) == []


def test_a_full_run_waits_no_longer_where_the_labels_are_enough_for_a_graph_alone(store, lived_in, ann):
    full, graph = (store.add_run(lived_in.id, kind, "") for kind in ("full", "graph"))
    assert store.forget_user(ann.id, fewest={"graph": 1, "full": 2}).run_id == graph.id
    assert store.run(full.id).state == RunState.CANCELLED and store.run(graph.id).state == RunState.QUEUED


def test_somebody_without_labels_leaves_without_a_run(store, lived_in, ben):
    store.publish(lived_in.id, record("v0001", store.revision(lived_in.id)), run_id=None)
    cem = store.create_user(lived_in.id, "Cem")
    assert store.forget_user(cem.id, fewest=FEWEST).run_id is None
    assert not store.knows_forgotten(lived_in.id) and store.unclean_studies() == {lived_in.id: 1}


def test_deleted_rows_leave_the_tables(store, lived_in, ann):
    store.forget_user(ann.id, fewest=FEWEST)
    before = written(store)
    store.overwrite_deleted()
    assert written(store) != before
    store.mark_clean(lived_in.id, 7)
    assert store.unclean_studies() == {lived_in.id: 1}  # another number of people: somebody left meanwhile
    store.mark_clean(lived_in.id, 1)
    assert store.unclean_studies() == {}


def test_a_database_that_somebody_reads_is_rewritten_later_and_nobody_waits_for_that(store, lived_in, ann, monkeypatch):
    """One reader holds a lock; the other only sees the rows as they were, which a rewritten table would keep."""
    monkeypatch.setattr(overwriting, "_PATIENCE", 0.01)
    monkeypatch.setattr(overwriting, "_OLDER_SECONDS", 0.1)
    for level, query in (("READ COMMITTED", "select count(*) from label"), ("REPEATABLE READ", "select 1 from study")):
        level = "SERIALIZABLE" if store.engine.dialect.name == "sqlite" else level
        with store.engine.connect().execution_options(isolation_level=level) as reader:
            reader.execute(text(query)).all()
            store.forget_user(store.create_user(lived_in.id, f"Cem {level} {query}").id, fewest=FEWEST)
            before = written(store) if store.engine.dialect.name != "sqlite" else None
            with pytest.raises(StoreUnavailable, match="in use"), in_a_hurry(store) as labels:
                store.overwrite_deleted()
            assert labels and (before is None or written(store)[0] == before[0])
    store.overwrite_deleted()


@contextmanager
def in_a_hurry(store):
    """Somebody reads the labels again and again, and no lock may cost them a second; the answers."""
    stop, answers = Event(), []

    def read():
        with store.engine.connect() as connection:
            limit(connection, lock_seconds=1.0)
            while not stop.is_set() or not answers:
                answers.append(connection.execute(text("select count(*) from label")).scalar())
                connection.commit()
                limit(connection, lock_seconds=1.0)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(read)
        try:
            yield answers
        finally:
            stop.set()
            done.result()


def test_a_disk_without_space_for_the_rewriting_is_named(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'copl.db'}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(CoplError, match=r"without what was deleted \(.*free some space") as problem:
            store.overwrite_deleted()
        assert not isinstance(problem.value, StoreUnavailable)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store.overwrite_deleted()
    store.close()


def test_what_is_stored_of_a_person_is_all_of_it_and_nothing_of_others(store, lived_in, ann):
    data = store.stored_of(ann.id)
    assert data["person"]["name"] == "Ann"
    assert {name: len(rows) for name, rows in data.items() if name != "person" and rows} == {
        "labels": 3, "tasks": 3, "drafts": 1, "reports": 1, "sign_in_links": 1, "browsers": 1, "tokens_of_programs": 1,
        "record": len(data["record"]),
    }  # fmt: skip
    assert [label["reason"] for label in data["labels"]] == [SECRET, "", SECRET]
    assert {"prompt", "left", "right", "choice", "created_at"} <= set(data["labels"][0])
    assert data["drafts"][0]["text"] == data["reports"][0]["text"] == SECRET
    assert "mine" not in repr(data) and "hash" not in repr(data)


def test_responses_named_after_a_person_lose_the_name_also_where_an_import_adds_them_meanwhile(
    store, study, ann, monkeypatch
):
    def names() -> list[str]:
        with store.engine.connect() as connection:
            query = select(ResponseRow.source).where(ResponseRow.source.is_not(None)).order_by(ResponseRow.id)
            return list(connection.execute(query).scalars())

    def named_and_then_one_more(connection, study_id, name):
        found = named_after(connection, study_id, name)
        if not added:
            added.append(store.import_rows(study_id, [ImportRow(9, "p 9", "late", "other", source_a="Ann")]))
        return found

    added = []
    store.import_rows(
        study.id,
        [ImportRow(n, f"p {n}", "a", "b", source_a="Ann" if n else "Anna", source_b="model x") for n in range(3)],
    )
    monkeypatch.setattr("db.departures.named_after", named_and_then_one_more)
    gone = store.forget_user(ann.id, fewest={"graph": 10, "full": 10}).gone
    assert gone["sources"] == 2 and added
    assert sorted(names()) == ["Anna", *["model x"] * 3, *[f"person {ann.id}"] * 3]
