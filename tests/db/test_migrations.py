"""A database of every earlier version comes up to the present one with all that is in it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from copl_core.records import Choice, Identity, ImportRow, Progress, Role, RunState
from copl_core.study_settings import AssignmentSettings
from db.base import Base
from db.engine import HEAD, alembic_config, make_engine, migrate, reading, version, writing
from db.models import IS_APART, IS_BEYOND_ASCII, IS_SETTLED, LOOK
from db.store import SqlStore

FIRST = [
    "insert into study values (1, 'Birds', 1, 'v7', 2, 0, 1, :at)",
    "insert into user values (1, 1, 'Olga', 'human', 'owner', null, :at)",
    "insert into user values (2, 1, 'Robot', 'simulated', 'annotator', 'brief', :at)",
    "insert into token values (1, 1, 'hash of a secret', :at)",
    "insert into prompt values (1, 1, :digest, 'Name a bird')",
    "insert into response values (1, 1, :digest, 'Robin', 'model x')",
    "insert into response values (2, 1, x'00', 'Wren', null)",
    "insert into response values (3, 1, x'01', 'Crow', null)",
    "insert into pair values (1, 1, 1, 1, 2)",
    "insert into pair values (2, 1, 1, 2, 3)",
    "insert into task values (1, 1, 1, 2, 1, 'uniform', 'answered', :at, :at, :at)",
    "insert into task values (2, 1, 2, 2, 3, 'informative', 'open', :at, '2999-01-01 00:00:00.000000', null)",
    "insert into label values (1, 1, 1, 1, 1, 2, 1, 'right', 3, 'kinder', 1234, 'key 1', 1, 1, :at)",
    "insert into label values (2, 1, null, 2, 1, 1, 2, 'tie', 1, '', null, 'key 2', 1, 2, :at)",
    "insert into audit values (1, 1, 1, 'role', '{\"user\": 1}', :at)",
    "insert into snapshot values (1, 1, 'v7', null, 2, 2, '{}', :at)",
]


@pytest.fixture
def of_version_0001(url):
    engine = make_engine(url)
    with writing(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in FIRST:
            connection.execute(
                text(statement),
                {"at": "2025-03-01 12:00:00.000000", "digest": b"d" * 32}
                if ":digest" in statement
                else {"at": "2025-03-01 12:00:00.000000"}
                if ":at" in statement
                else {},
            )
    return engine


def test_a_database_of_the_first_version_keeps_all_that_is_in_it(of_version_0001):
    migrate(of_version_0001)
    assert version(of_version_0001) == HEAD
    store = SqlStore(of_version_0001)
    mine, theirs = sorted(store.labels(1), key=lambda label: label.id)
    assert (mine.choice, mine.strength, mine.reason, mine.milliseconds, mine.preferred_id) == (
        Choice.RIGHT,
        3,
        "kinder",
        1234,
        1,
    )
    assert (mine.tags, mine.guidelines, mine.selection_reason, mine.counts, mine.successor_id) == (
        (),
        None,
        "uniform",
        True,
        None,
    )
    assert (theirs.user_id, theirs.choice, theirs.selection_reason) == (2, Choice.TIE, None)
    assert mine.created_at == datetime(2025, 3, 1, 12, tzinfo=UTC)
    olga = store.user_by_token(1, "hash of a secret")
    assert (olga.name, olga.role, olga.excluded, olga.quarantined) == ("Olga", Role.OWNER, False, False)
    assert store.quarantines(1) == []
    assert store.user(2).true_group == "brief" and store.champion(1).version == "v7" and store.revision(1) == 3
    assert store.assignment_settings(1) == AssignmentSettings() and store.guidelines(1) == [] and store.gold(1) == []
    assert [entry.event for entry in store.audit(1)] == ["role"]


def test_positions_that_no_file_said_are_unknown_and_strengths_are_from_1_to_3(of_version_0001):
    """Label 1 was given in the product, 2 came in a file; 3 was exported by the product, 4 came with a demo."""
    with writing(of_version_0001) as connection:
        for statement in (
            "insert into label values (3, 1, null, 2, 1, 1, 2, 'left', 100, '', null, "
            "'0123456789abcdef0123456789abcdef', 1, 3, '2025-03-01 12:00:00.000000')",
            "insert into label values (4, 1, null, 2, 1, 2, 1, 'left', 2, '', null, 'demo:sim', 1, 4, "
            "'2025-03-01 12:00:00.000000')",
            *(
                f"insert into label values ({n}, 1, null, 2, 1, 1, 2, 'left', 1, '', null, 'of a file {n}', 1, {n}, "
                "'2025-03-01 12:00:00.000000')"
                for n in range(5, 25)
            ),
        ):
            connection.execute(text(statement))
    migrate(of_version_0001)
    store = SqlStore(of_version_0001)
    labels = {label.id: label for label in store.labels(1)}
    assert {number for number, label in labels.items() if label.position_known} == {1, 3, 4}
    assert [labels[number].strength for number in (1, 3, 4)] == [3, 3, 2]
    assert (labels[3].left_id, labels[4].left_id) == (1, 2)
    assert {labels[number].preferred_id for number in range(5, 25)} == {1}
    assert {labels[number].left_id for number in range(5, 25)} == {1, 2}
    assert store.revision(1) == 2 + 21  # the trainer fits again


def test_labelling_goes_on_where_it_was(of_version_0001):
    migrate(of_version_0001)
    store = SqlStore(of_version_0001)
    task = store.open_task(1)
    assert (task.id, task.pair_id, task.reason) == (2, 2, "informative")
    assert store.submit(task.id, 1, Choice.LEFT).id == 3
    assert store.progress(1) == Progress(done=2, left=0, today=1)
    assert store.undo(1).pair_id == 2 and store.undo(1).pair_id == 1 and store.undo(1) is None
    assert store.labels(1, user_id=1) == []


RUNNING = [
    "insert into study values (1, 'Birds', 1, null, 0, 0, 1, :at)",
    *(
        f"insert into run (study_id, kind, state, reason, phase, step, steps, message, created_at, config) "
        f"values (1, '{kind}', 'running', 'a test', '', 0, 0, '', :at, '{{}}')"
        for kind in ("graph", "full", "graph")
    ),
    "insert into heartbeat values (1, 7, 'run 3', :at)",
]


@pytest.mark.parametrize("database", ["url", "postgres_copy"])
def test_a_run_that_an_earlier_version_left_running_is_queued_again_and_of_doubles_one(database, request):
    """Two trainers of earlier versions on one database executed two graph runs of a study at once."""
    engine = make_engine(request.getfixturevalue(database))
    at = {"at": "2025-03-01 12:00:00.000000" if database == "url" else datetime(2025, 3, 1, 12)}
    with writing(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001" if database == "url" else "0010")
        for statement in RUNNING:
            if database != "url":
                statement = statement.replace("insert into study values (1, 'Birds', 1, null, 0, 0, 1, :at)",
                    "insert into study (id, name, include_simulated, revision, demo, opened, created_at) "
                    "values (1, 'Birds', true, 0, false, 1, :at)")  # fmt: skip
            connection.execute(text(statement), at)
    migrate(engine)
    store = SqlStore(engine)
    assert [(run.id, run.state) for run in store.runs(1)] == [
        (3, RunState.RUNNING),
        (2, RunState.RUNNING),
        (1, RunState.INTERRUPTED),
    ]
    left = store.left_behind()
    assert [run.id for run in left] == [2, 3] and store.trainers() == []
    (again,) = store.give_up_run(3, left[1].token, RunState.INTERRUPTED, "left behind")
    assert store.claim_run(again.id).token == 1 and store.next_version(1) == "v0001"
    engine.dispose()


def test_what_people_type_is_not_in_the_statistics_of_postgresql(postgres_copy):
    engine = make_engine(postgres_copy)
    migrate(engine)
    store = SqlStore(engine)
    study = store.create_study("Birds").id
    rows = [ImportRow(n, "prompt", f"answer {n}", f"other {n}", choice=Choice.LEFT, annotator=f"Zyxwvut {n % 3}",
                      reason="zyxwvut", key=f"zyxwvut {n}") for n in range(9)]  # fmt: skip
    store.import_rows(study, rows)
    store.report(store.users(study)[0].id, 1, "zyxwvut")
    store.report(store.users(study)[1].id, 1, "zyxwvut")
    with writing(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0013")
    assert "zyxwvut" in statistics(engine), "as it was"
    migrate(engine)
    assert "zyxwvut" not in statistics(engine)
    assert "answer 1" in statistics(engine), "the server still gathers the others"
    engine.dispose()


def statistics(engine) -> str:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("analyze"))
        return repr(connection.execute(text("select * from pg_stats where schemaname = 'public'")).all()).casefold()


ACCOUNTS = [
    "insert into identity values (1, 'https://id.example', 'ann', 'ann@example.org', 'Ann', :at)",
    "insert into identity_user values (1, 2, 1, :at)",
    "insert into email (id, study_id, email, role, created_at) values (1, 1, 'ann@example.org', null, :at)",
    "insert into email (id, study_id, email, role, created_at) values (2, 1, 'a\u0308n@example.org', 'owner', :at)",
    "insert into email (id, study_id, email, role, created_at) values (3, 1, 'o\u0308@example.org', null, :at)",
    "insert into email (id, study_id, email, role, created_at) values (4, 1, '\u00f6@example.org', 'owner', :at)",
]


def test_a_refusal_and_the_rules_of_an_earlier_version_still_hold(of_version_0001):
    with writing(of_version_0001) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0016")
        for statement in ACCOUNTS:
            connection.execute(text(statement), {"at": "2025-03-01 12:00:00.000000"})
    migrate(of_version_0001)
    store = SqlStore(of_version_0001)
    expected = {"ann@example.org": None, "\u00e4n@example.org": Role.OWNER, "\u00f6@example.org": None}
    assert {one.email: one.role for one in store.emails(1)} == expected
    store.start_identity_session(Identity("https://id.example", "ann", None, "Ann"), "browser")
    assert store.admit("browser", 1) is None
    store.set_email(1, "ann@example.org", Role.ANNOTATOR)
    assert store.admit("browser", 1).id == 2


def test_a_browser_of_an_earlier_version_stays_signed_in_without_a_name(of_version_0001):
    with writing(of_version_0001) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0022")
        at = {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}.000000"}
        columns = "(id, hash, terminal, study_id, created_at, seen_at)"
        connection.execute(text(f"insert into browser_session {columns} values (1, 'browser', 0, 1, :at, :at)"), at)
        connection.execute(text("insert into session_user values (1, 1)"))
    migrate(of_version_0001)
    store = SqlStore(of_version_0001)
    assert store.session_user("browser", 1).name == "Olga"
    assert [(one.name, one.here) for one in store.browsers_of(1, "browser", most=20)] == [("", True)]


@pytest.mark.parametrize("database", ["url", "postgres_copy"])
def test_links_without_an_end_open_from_then_on_as_long_as_new_ones(database, request):
    engine = make_engine(request.getfixturevalue(database))
    with writing(engine) as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0025")
        store, old = SqlStore(engine), datetime(2025, 3, 1, 12)
        study = {"name": "Birds", "include_simulated": True, "revision": 0, "demo": False, "opened": 1}
        user = {"id": 1, "study_id": 1, "name": "Olga", "kind": "human", "role": "owner"}
        tokens = [{"id": n, "user_id": 1, "hash": f"link {n}", "terminal": n == 1} for n in (1, 2)]
        for table, rows in (("study", [{"id": 1} | study]), ("user", [user]), ("token", tokens)):
            for row in rows:
                names = ", ".join(row)
                values = ", ".join(f":{name}" for name in row)
                statement = text(f'insert into "{table}" ({names}, created_at) values ({values}, :at)')
                connection.execute(statement, row | {"at": old if database != "url" else str(old)})
    migrate(engine)
    for n in (1, 2):
        assert store.start_session(f"link {n}", f"browser {n}")
    ends = {row["expires_at"] for row in store.stored_of(1)["sign_in_links"]}
    days = sorted((datetime.fromisoformat(one) - datetime.now(UTC)).total_seconds() / 86400 for one in ends)
    assert days == pytest.approx([7, 180], abs=0.1)
    engine.dispose()


def test_it_has_the_tables_of_the_models_and_no_broken_reference(of_version_0001):
    migrate(of_version_0001)
    with reading(of_version_0001) as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.execute(text("pragma foreign_key_check")).all() == []
        assert connection.execute(text("pragma integrity_check")).scalar() == "ok"


def test_the_queries_of_every_click_use_their_partial_indexes(of_version_0001):
    migrate(of_version_0001)
    with reading(of_version_0001) as connection:
        for query, index in (
            ("select pair_id from label where study_id = 1 and user_id = 1 and counts = 1", "ix_label_counting"),
            ("select pair_id from task where user_id = 1 and skipped = 1", "ix_task_skipped"),
            ("select id from task where user_id = 1 and state = 'open'", "ix_task_open_user"),
            (f"select id from user where study_id = 1 and kind = 'model' and ({IS_APART})", "ix_user_apart"),
            (f"select id from label where study_id = 1 and ({IS_SETTLED})", "ix_label_settled"),
            ("select id from label where successor_id = 1", "ix_label_successor"),
            (f"select name, kind from user where study_id = 1 and {LOOK} = 'ann'", "ix_user_look"),
            (
                f"select name, kind from user where study_id = 1 and ({IS_BEYOND_ASCII['sqlite']})",
                "ix_user_beyond_ascii",
            ),
        ):
            plan = " ".join(row[3] for row in connection.execute(text(f"explain query plan {query}")))
            assert index in plan, plan
