"""Deleted studies: closed at once, and then gone from every table, while other studies keep what is theirs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from copl_core.records import Choice, CoplError, Deletion, Identity, ImportRow, Role
from copl_core.study_settings import ServiceRole
from db.base import Base
from db.models import AuditRow, StudyRow
from tests.db.test_bundles import rich

OLGA = Identity("https://id.example", "olga", "olga@example.org", "Olga of the provider")


def rows(store) -> dict[str, int]:
    with store.engine.connect() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }


def test_of_a_study_in_which_everything_has_happened_a_number_and_one_line_stay(store):
    other = store.create_study("Elsewhere")
    there = store.create_user(other.id, "Ann", role=Role.OWNER)
    store.import_rows(other.id, [ImportRow(1, "p", "Robin", "Wren", Choice.LEFT, "Imported", key="k1")])
    before = rows(store)
    study = rich(store)
    name = store.study(study).name
    store.connect_identity(store.user_named(study, "Olga").id, OLGA)
    store.add_token(store.user_named(study, "Ann").id, "hash of a link", lasts=timedelta(days=7))
    store.start_session("hash of a link", "hash of a session")
    closed = store.begin_deletion(study)
    assert closed.name == name and closed.state is Deletion.ROWS and closed.labels > 0 and closed.users > 0
    assert not store.delete_rows(study, seconds=0.0) and store.delete_rows(study)
    assert [one.state for one in store.deleted_studies()] == [Deletion.FILES]
    store.finish_deletion(study)
    (line,) = store.deleted_studies()
    assert line.state is Deletion.DONE and (line.id, line.name, line.labels) == (study, name, closed.labels)
    after = rows(store)
    assert after.pop("study") == before.pop("study") + 1 and after.pop("audit") == before.pop("audit") + 1
    after["browser_session"] -= 1  # a browser, without anybody
    assert after == before
    with store.engine.connect() as connection:
        kept = connection.execute(select(StudyRow.__table__).where(StudyRow.id == study)).one()
        assert kept.name == f" deleted {study}" and kept.champion is kept.assignment is kept.schedule is None
        assert connection.execute(select(AuditRow.user_id).where(AuditRow.study_id == study)).scalars().all() == [None]
    assert store.label_count(other.id) == 1 and store.member(other.id, there.id) == there


def test_from_the_first_moment_on_nobody_reads_it_or_writes_to_it(store, study, four_pairs, hand_out, ann):
    store.create_study("Elsewhere")
    task = hand_out(ann.id, four_pairs[0][0])
    store.add_token(ann.id, "hash of a link", lasts=timedelta(days=7))
    browser = store.start_session("hash of a link", "hash of a session")
    store.add_invite(study.id, "hash of an invite", Role.ANNOTATOR, uses=None, expires_at=None)
    store.add_service_token(study.id, "hash of a program", "Program", ServiceRole.REWARDS, 60)
    run = store.add_run(study.id, "graph", "")
    store.begin_deletion(study.id)
    assert study.id not in [one.id for one in store.studies()] and store.current_study().name == "Elsewhere"
    for act in (
        lambda: store.study(study.id),
        lambda: store.submit(task.id, ann.id, Choice.LEFT),
        lambda: store.report(ann.id, four_pairs[0][1], "Odd."),
        lambda: store.import_rows(study.id, [ImportRow(1, "p", "a", "b")]),
        lambda: store.join(study.id, "Zoë", "hash of another link"),
        lambda: store.begin_deletion(study.id),
    ):
        with pytest.raises(CoplError, match="There is no (study|user)"):
            act()
    assert store.member(study.id, ann.id) is None and store.session_user(browser, study.id) is None
    assert store.start_session("hash of a link", "hash of a second session") is None
    assert store.study_of_invite("hash of an invite") is None and store.service_token("hash of a program") is None
    assert store.claim_run() is None and store.run(run.id).state == "cancelled"
    assert store.drop_unfinished() == [], "it is no study of a killed import"


def test_its_name_is_free_and_its_number_is_not(store, study):
    store.create_study("Elsewhere")
    last = store.create_study("Last")
    store.begin_deletion(last.id)
    again = store.create_study("Last", new=True)
    assert store.delete_rows(last.id)
    store.finish_deletion(last.id)
    assert again.id > last.id and store.create_study("Newer").id > again.id
    assert {one.name for one in store.studies()} == {"Birds", "Elsewhere", "Last", "Newer"}


def test_the_last_study_stays_and_one_that_is_being_made_is_no_other(store, study):
    store.create_study("Half an import", ready=False)
    with pytest.raises(CoplError, match="Birds is the only study of this installation"):
        store.begin_deletion(study.id)
    assert store.deleted_studies() == [] and store.study(study.id) == study
