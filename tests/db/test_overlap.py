"""No more users label a pair than the overlap allows, in whatever order they ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import func, select, update

from copl_core.records import Choice, ImportRow, Kind
from copl_core.study_settings import AssignmentSettings
from db.base import Base
from db.engine import make_engine, migrate, reading, writing
from db.imported_rows import ImportedRows
from db.models import LabelRow, PairRow
from db.overlap import _ANNOTATORS, _ON_PAIR, _RECOUNT
from db.store import SqlStore
from db.transactions import study_row
from tests.db.test_races import url_of
from tests.kills import Watch, killed_at


@pytest.fixture
def overlap(store, study):
    """Settles how many people label a pair."""
    return lambda n: store.set_assignment(study.id, AssignmentSettings(overlap=n))


def ids(pairs) -> list[int]:
    return [pair[0] for pair in pairs]


def assert_counters_are_right(store, study) -> None:
    """What is kept beside each pair is what a new count would find."""
    with reading(store.engine) as connection:
        assert study_row(connection, study.id).assignment["overlap"] is not None
        kept = dict(
            connection.execute(select(PairRow.id, PairRow.n_annotators).where(PairRow.study_id == study.id)).all()
        )
        counted = _ANNOTATORS.with_only_columns(LabelRow.pair_id, func.count(LabelRow.user_id.distinct())).group_by(
            LabelRow.pair_id
        )
        assert {pair: n for pair, n in kept.items() if n} == dict(connection.execute(counted).all())


def test_no_more_people_than_the_overlap_are_handed_a_pair(
    store, study, overlap, hand_out, answer, four_pairs, ann, ben, cem
):
    overlap(2)
    pair = four_pairs[0][0]
    answer(ann.id, pair, Choice.LEFT)
    task = hand_out(ben.id, pair)
    assert pair not in ids(store.available_pairs(cem.id).pairs)  # one label and one reservation
    assert hand_out(cem.id, pair) is None and store.open_task(cem.id) is None
    store.submit(task.id, ben.id, Choice.LEFT)
    assert hand_out(cem.id, pair) is None
    assert store.progress(cem.id).left == 3 and store.progress(ann.id).left == 3
    assert_counters_are_right(store, study)


def test_an_expired_reservation_gives_its_place_back(store, overlap, hand_out, four_pairs, ann, ben):
    overlap(1)
    hand_out(ann.id, four_pairs[0][0], minutes=-1)
    assert four_pairs[0] in store.available_pairs(ben.id).pairs
    assert hand_out(ben.id, four_pairs[0][0]) is not None
    assert four_pairs[0] not in store.available_pairs(ann.id).pairs


def test_a_late_answer_counts_while_there_is_room(store, study, overlap, hand_out, answer, four_pairs, ann, ben, cem):
    overlap(2)
    late = hand_out(ann.id, four_pairs[0][0], minutes=-1)
    answer(ben.id, four_pairs[0][0], Choice.LEFT)
    assert store.submit(late.id, ann.id, Choice.LEFT) is not None
    late = hand_out(ann.id, four_pairs[1][0], minutes=-1)
    answer(ben.id, four_pairs[1][0], Choice.LEFT)
    answer(cem.id, four_pairs[1][0], Choice.LEFT)
    assert store.submit(late.id, ann.id, Choice.LEFT) is None
    assert_counters_are_right(store, study)


def test_a_label_taken_back_keeps_its_place_for_its_user_until_it_expires(
    store, overlap, hand_out, answer, four_pairs, ann, ben
):
    overlap(1)
    label = answer(ann.id, four_pairs[0][0], Choice.LEFT, minutes=15)
    again = store.undo(ann.id)
    assert hand_out(ben.id, four_pairs[0][0]) is None
    assert store.submit(again.id, ann.id, Choice.RIGHT).pair_id == label.pair_id


def test_repeats_and_simulated_people_take_no_place(store, study, overlap, answer, hand_out, four_pairs, ann, ben):
    overlap(2)
    robot = store.create_user(study.id, "Robot", kind=Kind.SIMULATED)
    pair = four_pairs[0][0]
    answer(robot.id, pair, Choice.LEFT)
    answer(ann.id, pair, Choice.LEFT)
    answer(ann.id, pair, Choice.LEFT, reason="repeat")
    assert pair in ids(store.available_pairs(ben.id).pairs) and hand_out(ben.id, pair) is not None
    assert hand_out(ann.id, pair, reason="repeat") is not None  # a full pair may still be repeated
    assert_counters_are_right(store, study)


def test_labels_of_a_file_take_places_and_those_of_an_excluded_user_give_them_back(
    store, study, overlap, four_pairs, ann, hand_out
):
    overlap(1)
    pair = store.pair(four_pairs[0][0])
    store.import_rows(
        study.id, [ImportRow(1, pair.prompt, pair.first.text, pair.second.text, Choice.LEFT, "Zoe", key="z")]
    )
    assert hand_out(ann.id, pair.id) is None
    assert_counters_are_right(store, study)
    zoe = next(user for user in store.users(study.id) if user.name == "Zoe")
    store.exclude(zoe.id, True)
    assert_counters_are_right(store, study)
    assert hand_out(ann.id, pair.id) is not None


def test_turning_the_overlap_on_counts_what_is_there(store, study, overlap, answer, four_pairs, ann, ben):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    answer(ann.id, four_pairs[1][0], Choice.LEFT)
    store.undo(ann.id)
    overlap(1)
    assert_counters_are_right(store, study)
    assert ids(store.available_pairs(ben.id).pairs) == ids(four_pairs)[2:]  # one labelled, one on a screen
    store.set_assignment(study.id, AssignmentSettings())
    assert ids(store.available_pairs(ben.id).pairs) == ids(four_pairs)


def test_only_a_new_overlap_counts_every_pair_again(store, study, overlap, answer, four_pairs, ann):
    answer(ann.id, four_pairs[0][0], Choice.LEFT)
    overlap(3)
    with writing(store.engine) as connection:  # a mark to see who counts
        connection.execute(update(PairRow).values(n_annotators=7))
    store.set_assignment(study.id, AssignmentSettings(overlap=2, daily_goal=40))
    assert counters(store) == [7] * 4
    store.set_assignment(study.id, AssignmentSettings())
    assert counters(store) == [7] * 4
    overlap(2)
    assert_counters_are_right(store, study)


def test_an_overlap_that_is_set_by_a_process_that_is_killed_counts_every_pair_all_the_same(
    store, study, answer, four_pairs, ann, ben
):
    for user in (ann, ben):
        answer(user.id, four_pairs[0][0], Choice.LEFT)
    answer(ann.id, four_pairs[1][0], Choice.LEFT)

    def act(watch: Watch) -> None:
        own = SqlStore(make_engine(url_of(store)))
        watch(own.engine)
        own.set_assignment(study.id, AssignmentSettings(overlap=2))

    for number in count(1):
        killed = killed_at(number, act)
        store.end_killed_imports()
        if store.assignment_settings(study.id).overlap is None:
            assert killed
            continue
        assert_counters_are_right(store, study)
        assert counters(store) == [2, 1, 0, 0]
        if not killed:
            break
        store.set_assignment(study.id, AssignmentSettings())
        with writing(store.engine) as connection:
            connection.execute(update(PairRow).values(n_annotators=0))
    assert number > 5


def counters(store) -> list[int]:
    with reading(store.engine) as connection:
        return list(connection.execute(select(PairRow.n_annotators).order_by(PairRow.id)).scalars())


def test_users_who_ask_at_once_share_the_slots(store, study, overlap, four_pairs):
    overlap(3)
    users = [store.create_user(study.id, f"user {n}") for n in range(12)]
    soon = datetime.now(UTC) + timedelta(minutes=5)

    def ask(user):
        return store.hand_out(user.id, four_pairs[0][0], swap=False, reason="uniform", expires_at=soon)

    with ThreadPoolExecutor(6) as pool:
        tasks = list(pool.map(ask, users))
    # On PostgreSQL a pair that is being handed out at that moment counts as full: users who were refused ask again.
    tasks = [task or ask(user) for user, task in zip(users, tasks, strict=True)]
    assert sum(task is not None for task in tasks) == 3


def test_the_users_of_a_pair_are_counted_by_index_in_tables_that_have_just_been_filled(postgres_copy):
    """In a database of its own: the one that other tests share has statistics of their rows."""
    store = SqlStore(make_engine(postgres_copy))
    migrate(store.engine)
    study = store.create_study("Birds")
    texts = [(f"prompt {n // 10}", f"answer {n // 10}", f"other {n // 10}") for n in range(6000)]
    rows = [ImportRow(n, *text, Choice.LEFT, f"reader {n % 1000}") for n, text in enumerate(texts)]
    with writing(store.engine) as connection:
        # Its vacuum looks at the tables now and then, and would find none of these rows: the plan would be luck.
        for table in Base.metadata.tables:
            connection.exec_driver_sql(f'alter table "{table}" set (autovacuum_enabled = false)')
    with writing(store.engine) as connection:  # PostgreSQL has no statistics of a transaction that has not ended
        ImportedRows(connection, study.id).add(connection, rows)
        for query in (_ON_PAIR, _RECOUNT):
            compiled = query.compile(store.engine)
            plan = connection.exec_driver_sql(f"explain {compiled}", compiled.params | {"pair": 1, "user": 1})
            lines = "\n".join(plan.scalars())
            assert "pk_user" in lines and "Seq Scan" not in lines, lines
    store.close()
