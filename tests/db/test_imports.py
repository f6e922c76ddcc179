"""A long import, while others label: what they see of it, and what is left of one that breaks off or is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count, islice
from threading import Thread

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.engine import make_url

from copl_core.records import LEFT, Choice, CoplError, ImportRow
from copl_core.study_settings import AssignmentSettings
from db.engine import make_engine
from db.import_models import UnfinishedRow
from db.imports import AT_ONCE
from db.models import LabelRow, PairRow, TaskRow, UserRow
from db.staged_rows import StagedRows
from db.store import SqlStore
from db.study_models import PinRow
from db.unfinished import shown
from tests.db.import_process import LABELS, file
from tests.db.test_races import ROOT, url_of
from tests.kills import Watch, killed_at

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # where an import is written in parts
postgres = pytest.mark.parametrize("store", ["postgres"], indirect=True)  # where it is one transaction


@pytest.fixture
def birds(store, study, four_pairs):
    """A study of four pairs, each for at most three people, one of which the file has, too."""
    store.set_assignment(study.id, AssignmentSettings(overlap=3))
    store.import_rows(study.id, [ImportRow(1, "prompt 0", "answer 0", "other 0")])
    return study


def seen(store: SqlStore, study_id: int) -> tuple:
    """All that anybody may read of the study."""
    parts: dict[str, list] = {}
    store.read_study(study_id, lambda name, rows: parts.update({name: list(rows)}))
    data = store.training_data(study_id)
    return (
        parts, store.pairs(study_id), store.prompts(study_id), store.users(study_id), store.labels(study_id),
        store.label_count(study_id), store.revision(study_id), data.prompts, data.responses, len(data.labels),
    )  # fmt: skip


def content(store: SqlStore, study_id: int) -> tuple:
    """What a study holds, whatever ids its rows have."""
    names = {user.id: user.name for user in store.users(study_id)}
    pairs = {pair: frozenset(store.responses(sides)) for pair, *sides in store.pairs(study_id)}
    texts = {pair: frozenset(one.text for one in store.responses(list(ids)).values()) for pair, ids in pairs.items()}
    prompts = {pair: store.pair(pair).prompt for pair in pairs}
    with store.engine.connect() as connection:
        counted = connection.execute(select(PairRow.id, PairRow.n_annotators).where(PairRow.study_id == study_id)).all()
        left = connection.execute(select(UnfinishedRow.id)).all()
    labels = [
        (names[one.user_id], prompts[one.pair_id], texts[one.pair_id], one.choice, one.position_known)
        for one in store.labels(study_id)
    ]
    return (
        sorted(names.values()), sorted((prompts[pair], *sorted(texts[pair]), n) for pair, n in counted),
        sorted(map(repr, labels)), store.label_count(study_id), left,
    )  # fmt: skip


@pytest.fixture
def clean(store, birds):
    """The content of a study after one import of the file, with nothing in between."""
    other = store.create_study("Clean")
    store.set_assignment(other.id, AssignmentSettings(overlap=3))
    store.import_rows(other.id, [ImportRow(n, f"prompt {n % 2}", f"answer {n}", f"other answer {n}") for n in range(4)])
    store.import_rows(other.id, [ImportRow(1, "prompt 0", "answer 0", "other 0")])
    store.import_rows(other.id, file())
    return content(store, other.id)


def test_nothing_of_a_long_import_is_seen_before_it_is_whole_and_others_label_meanwhile(
    store, birds, clean, ann, answer, four_pairs
):
    answered = []

    def rows() -> Iterator[ImportRow]:
        expected = seen(store, birds.id)
        for i, row in enumerate(file()):
            if i in (AT_ONCE + 2, 320, 450):
                assert seen(store, birds.id) == expected
                answered.append(answer(ann.id, four_pairs[len(answered)][0], Choice.TIE).id)
                if store.engine.dialect.name == "sqlite":
                    with pytest.raises(CoplError, match="reader 7 is in a file that is being imported"):
                        store.create_user(birds.id, "reader 7")
                expected = seen(store, birds.id)
            yield row

    report = store.import_rows(birds.id, rows())
    assert (report.labels_new, report.users_new) == (LABELS, 50) and len(answered) == 3
    for _ in answered:
        store.undo(ann.id)
    before = store.users(birds.id)
    store.forget_user(ann.id, fewest={"graph": 10, "full": 10})
    assert len(before) - len(store.users(birds.id)) == 1
    assert content(store, birds.id) == clean


def test_an_import_whose_person_leaves_meanwhile_is_refused_and_nothing_of_it_is_kept(store, birds, cem):
    last = ImportRow(LABELS + 1, "prompt 0", "answer 0", "other 0", Choice.TIE, "Cem", key="last")

    def rows() -> Iterator[ImportRow]:
        yield from file()
        store.forget_user(cem.id, fewest={"graph": 10, "full": 10})
        after.append(seen(store, birds.id))
        yield last

    after: list = []
    with pytest.raises(CoplError, match="has changed while the file was read"):
        store.import_rows(birds.id, rows())
    assert [seen(store, birds.id)] == after
    assert store.import_rows(birds.id, [*file(), last]).users_new == 51


def test_a_killed_import_leaves_nothing_and_the_same_file_goes_in_as_if_it_was_the_first_time(store, birds, clean):
    before = seen(store, birds.id)
    with running_import(store, birds.id):
        store.end_killed_imports()  # it runs: nothing is taken from it
        assert (raw_labels(store) > LABELS) == (store.engine.dialect.name == "sqlite")  # one file, and some of another
    assert seen(store, birds.id) == before
    report = store.import_rows(birds.id, file())
    assert (report.labels_new, report.users_new, report.labels_known) == (LABELS, 50, 0)
    assert content(store, birds.id) == clean


@postgres
def test_an_import_that_is_killed_at_any_statement_leaves_nothing_and_loses_no_answer(
    store, birds, clean, ann, answer, four_pairs
):
    def act(do: Callable[[SqlStore], object]) -> Callable[[Watch], object]:
        def in_the_process(watch: Watch) -> None:
            own = SqlStore(make_engine(url_of(store)))
            watch(own.engine)
            do(own)

        return in_the_process

    answers = iter(four_pairs)
    for number in count(1):
        for pair, _, _ in islice(answers, 1):
            answer(ann.id, pair, Choice.TIE)
        before = seen(store, birds.id)
        killed = killed_at(number, act(lambda own: own.import_rows(birds.id, file())))
        if seen(store, birds.id) != before:
            break
    assert killed and number > 10 and store.label_count(birds.id) == len(four_pairs) + LABELS
    for number in count(1):  # it is whole: only its pairs are still to be counted again
        if not killed_at(number, act(SqlStore.end_killed_imports)):
            break
    for _ in four_pairs:
        store.undo(ann.id)
    store.forget_user(ann.id, fewest={"graph": 10, "full": 10})
    assert number > 10 and content(store, birds.id) == clean


@sqlite
def test_an_import_that_is_killed_between_any_two_of_its_parts_leaves_nothing(store, birds, clean, ann):
    def act(watch: Watch) -> None:
        own = SqlStore(make_engine(url_of(store)))
        watch(own.engine)
        own.import_rows(birds.id, file())

    before = seen(store, birds.id)
    for number in count(1, 11):
        killed = killed_at(number, act)
        if seen(store, birds.id) != before:
            break
        store.end_killed_imports()
        assert seen(store, birds.id) == before and raw_labels(store) == LABELS  # of the other study
        all_is_well(store, birds.id)
        assert killed
    assert number > 40
    store.end_killed_imports()  # its pairs are counted again
    all_is_well(store, birds.id)
    store.forget_user(ann.id, fewest={"graph": 10, "full": 10})
    assert content(store, birds.id) == clean


@sqlite
def test_a_pair_that_somebody_has_been_handed_stays_with_its_texts_where_a_killed_import_is_removed(
    store, birds, ann, ben
):
    with running_import(store, birds.id):
        pass
    with store.engine.begin() as connection:
        (pair, first, second), (pinned, *_) = connection.execute(
            select(PairRow.id, PairRow.first_id, PairRow.second_id).where(~shown(PairRow)).limit(2)
        ).all()
        when = {"handed_at": START, "expires_at": START}
        task = {"user_id": ann.id, "pair_id": pair, "left_id": first, "right_id": second, "reason": "uniform"}
        connection.execute(insert(TaskRow).values(task | when))
        connection.execute(insert(PinRow).values(study_id=birds.id, pair_id=pinned, user_id=ben.id, at=START))
    store.end_killed_imports()
    all_is_well(store, birds.id)
    assert {one for one, *_ in store.pairs(birds.id)} >= {pair, pinned} and store.label_count(birds.id) == 0
    assert len(store.pairs(birds.id)) == 7 and set(store.responses([first, second])) == {first, second}


@sqlite
def test_while_an_import_goes_on_a_page_reads_none_of_its_pairs(store, birds, ann, answer, four_pairs):
    def plan() -> str:
        with store._read() as connection:
            query = text("explain query plan select id from pair where study_id = :study and taken < 3 order by id")
            return " ".join(row[3] for row in connection.execute(query, {"study": birds.id}))

    def rows() -> Iterator[ImportRow]:
        for i, row in enumerate(file()):
            if i == 400:
                plans.append(plan())
            yield row

    plans = [plan()]
    store.import_rows(birds.id, rows())
    assert plans[0] == plan() and "rowid<?" not in plans[0] and "rowid<?" in plans[1]


@contextmanager
def running_import(store: SqlStore, study_id: int) -> Iterator[None]:
    """An import of the file in another process, with most of it written; killed at the end."""
    command = [sys.executable, "-m", "tests.db.import_process", url_of(store), str(study_id)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "most of it\n"
        yield
        process.kill()


def raw_labels(store: SqlStore) -> int:
    with store.engine.connect() as connection:
        return connection.execute(text("select count(*) from label")).scalar_one()


def forget_the_last(store: SqlStore, n: int, *, but: int) -> None:
    """Forget the people of the last labels of the table, hidden or not, but for one."""
    there = select(UserRow.id).where(UserRow.kind != LEFT, UserRow.id != but, shown(UserRow))
    last = select(LabelRow.user_id).where(LabelRow.user_id.in_(there)).order_by(LabelRow.id.desc()).limit(n)
    with store.engine.connect() as connection:
        users = set(connection.execute(last).scalars())
    for user in users:
        store.forget_user(user, fewest={"graph": 10, "full": 10})


def all_is_well(store: SqlStore, study_id: int) -> None:
    """Nothing is hidden, no row points at one that is gone, and pairs and people are counted right."""
    with store.engine.connect() as connection:
        assert not connection.execute(select(UnfinishedRow.id)).all()
        assert not connection.exec_driver_sql("pragma foreign_key_check").all()
        of_study = select(PairRow.id, PairRow.n_annotators).where(PairRow.study_id == study_id)
        taken = dict(connection.execute(of_study).all())
    users: dict[int, set[int]] = {pair: set() for pair in taken}
    for label in store.labels(study_id):
        users[label.pair_id].add(label.user_id)
    assert taken == {pair: len(them) for pair, them in users.items()}
    assert store.label_count(study_id) == len(store.labels(study_id))


@sqlite
@pytest.mark.parametrize("killed", [False, True])
def test_answers_stay_and_pairs_stay_open_where_somebody_is_forgotten_whose_labels_are_hidden(
    store, birds, ann, ben, hand_out, answer, four_pairs, killed
):
    for n in range(49):
        store.create_user(birds.id, f"reader {n}")
    shared = store.pairs(birds.id)[-1][0]  # the file has three labels of it, and three people may label it
    answered = []

    def meanwhile() -> None:
        forget_the_last(store, 12, but=ann.id)
        answered.append(answer(ann.id, shared, Choice.TIE).id)
        answered.extend(answer(ann.id, pair, Choice.TIE).id for pair, _, _ in four_pairs)
        assert shared in [pair for pair, _, _ in store.available_pairs(ben.id).pairs] and hand_out(ben.id, shared)
        assert [one.id for one in store.labels(birds.id)] == answered
        with store.engine.connect() as connection:
            assert not connection.execute(select(LabelRow.id).where(LabelRow.id.in_(answered), ~shown(LabelRow))).all()

    def rows() -> Iterator[ImportRow]:
        for i, row in enumerate(file()):
            if i in (420, 460):
                meanwhile() if i == 420 else forget_the_last(store, 9, but=ann.id)
            yield row

    if killed:
        with running_import(store, birds.id):
            pass
        meanwhile()
        with pytest.raises(CoplError, match="reader 49 is in a file whose import broke off"):
            store.create_user(birds.id, "reader 49")
        store.end_killed_imports()
    else:
        with pytest.raises(CoplError, match="has changed while the file was read"):
            store.import_rows(birds.id, rows())
    assert [one.id for one in store.labels(birds.id)] == answered
    all_is_well(store, birds.id)


@postgres
def test_an_import_and_a_departure_that_wait_for_each_other_end_in_the_departure(store, birds, cem, monkeypatch):
    patient = {"options": "-c lock_timeout=60s -c deadlock_timeout=60s"}  # so that the import finds out first
    other = SqlStore(make_engine(make_url(url_of(store)).update_query_dict(patient).render_as_string(False)))
    leaves = Thread(target=other.forget_user, args=(cem.id,), kwargs={"fewest": {"graph": 10, "full": 10}})
    move = StagedRows.move

    def move_and_meet(made: StagedRows, connection: Connection) -> None:
        move(made, connection)
        leaves.start()
        with store.engine.connect() as watching:
            while not watching.execute(text("select 1 from pg_locks where not granted")).all():
                pass

    monkeypatch.setattr(StagedRows, "move", move_and_meet)
    rows = [ImportRow(0, "prompt 0", "answer 0", "other 0", Choice.TIE, "Cem"), *file()]
    with pytest.raises(CoplError, match="has changed while the file was read.*import it again"):
        store.import_rows(birds.id, rows)
    leaves.join()
    other.close()
    assert store.left_users(birds.id) == [cem.id] and raw_labels(store) == 0


@postgres
def test_while_a_file_is_read_its_import_is_in_no_transaction_that_makes_the_server_keep_old_rows(
    store, birds, ann, answer, four_pairs
):
    holding = text(
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
        "and backend_type = 'client backend' and (backend_xid is not null or backend_xmin is not null)"
    )
    found = []

    def rows() -> Iterator[ImportRow]:
        for i, row in enumerate(file()):
            if i in (AT_ONCE + 2, 400):
                with store.engine.connect() as connection:
                    found.append(connection.execute(holding).scalar_one())
            yield row

    assert store.import_rows(birds.id, rows()).labels_new == LABELS and found == [0, 0]


@sqlite
def test_what_people_have_done_is_neither_hidden_nor_removed_whatever_the_ranges_say(
    store, birds, ann, ben, answer, four_pairs
):
    first = answer(ann.id, four_pairs[0][0], Choice.TIE)
    store.edit(first.id, ann.id, Choice.LEFT)
    before = seen(store, birds.id)
    for part in ("label", "user"):
        with store.engine.begin() as connection:
            row = {"study_id": birds.id, "part": part, "first_id": 1, "last_id": ann.id if part == "user" else 99}
            connection.execute(insert(UnfinishedRow).values(row))
        if part == "label":
            assert store.labels(birds.id) != [] and store.label_count(birds.id) == 1
        store.end_killed_imports()
    assert seen(store, birds.id) == before
    all_is_well(store, birds.id)


def test_a_dry_run_reports_what_an_import_does_and_holds_nobody_up(store, birds, ann, answer, four_pairs):
    def rows() -> Iterator[ImportRow]:
        for i, row in enumerate(file()):
            if i == 300:
                answer(ann.id, four_pairs[0][0], Choice.TIE)
            yield row

    tried = store.try_import(birds.id, [rows(), file()])
    before = seen(store, birds.id)
    assert tried == [store.import_rows(birds.id, file()), store.import_rows(birds.id, file())]
    assert seen(store, birds.id) != before


def test_imported_labels_of_people_who_are_left_out_of_training_start_no_run(store, study):
    texts = ("Name a bird", "Robin", "Wren", Choice.LEFT)
    store.import_rows(
        study.id, [ImportRow(1, *texts, "Ann", key="1", excluded=True), ImportRow(2, *texts, "Ben", key="2")]
    )
    assert store.revision(study.id) == store.label_count(study.id) == 1


def test_a_hundred_thousand_bad_rows_are_counted_and_twenty_kept(store, study):
    rows = (ImportRow(n, "p", "same", "same") for n in range(1, 100_001))
    report = store.import_rows(study.id, rows)
    assert (report.left_out.n, report.left_out.whole) == (100_000, 100_000)
    assert report.problems == tuple((n, "both responses are the same text") for n in range(1, 21))
