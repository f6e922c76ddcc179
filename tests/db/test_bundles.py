"""A whole study read out of one database and into another is the same study, whatever ids it gets there."""

from __future__ import annotations

from copy import deepcopy
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import inspect

from copl_core.records import Choice, CoplError, Ground, ImportRow, Kind, Role, RunState, SnapshotRecord
from copl_core.study_settings import (
    AssignmentSettings,
    Draft,
    Prediction,
    Schedule,
    SelectionReason,
    ServiceRole,
    SharedDay,
)
from db.base import Base
from db.engine import make_engine
from db.store import SqlStore
from db.study_parts import PARTS
from tests.databases import empty_database
from tests.db.conftest import _delete_everything
from tests.db.test_round_trip import in_words, rows

# What a column or a detail of the audit trail points at, written down apart from the product.
POINTERS = {
    "user_id": "users", "ended_by": "users", "resolved_by": "users", "user": "users",
    "prompt_id": "prompts", "first_id": "responses", "second_id": "responses", "gold_id": "responses",
    "left_id": "responses", "right_id": "responses", "response_id": "responses", "pair_id": "pairs", "pair": "pairs",
    "skip": "pairs", "task_id": "tasks", "successor_id": "labels", "label": "labels", "invite": "invites",
    "report": "reports", "token": "service_tokens", "run_id": "runs", "retry_of": "runs", "after_choice": "audit",
}  # fmt: skip
SIGN_IN = {
    "unfinished",
    "token",
    "browser_session",
    "session_user",
    "trainer",
    "storage",
    "write_run",
    "study",
    "identity",
    "identity_user",
    "identity_session",
}  # tables that no bundle has


@pytest.fixture(params=["sqlite to sqlite", "sqlite to postgres", "postgres to sqlite", "postgres to postgres"])
def databases(request, tmp_path):
    """(the store of a study, the store that it comes into); they may be the same."""
    found = {}
    for name in request.param.split(" to "):
        if name == "sqlite":
            empty_database(tmp_path)
            engine = make_engine(f"sqlite:///{tmp_path / 'copl.db'}")
        else:
            engine = request.getfixturevalue("postgres")
            _delete_everything(engine)
        found.setdefault(name, SqlStore(engine))
    yield tuple(found[name] for name in request.param.split(" to "))
    for store in found.values():
        store.engine.dispose()


def everything(store: SqlStore, study_id: int) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    store.read_study(study_id, lambda part, own: found.setdefault(part, list(own)))
    return found


def restored(store: SqlStore, parts: dict[str, list[dict]], name: str = "Restored") -> int:
    study = store.create_study(name, new=True, open=False, ready=False)
    store.restore_rows(study.id, ((part, row) for part, own in parts.items() if part != "study" for row in own))
    store.finish_restored(study.id, parts["study"][0], "2026-01-02T03:04:05+00:00")
    store.finish_study(study.id)
    return study.id


def by_position(parts: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """The rows with the position of each row in its part in place of its id."""
    position = {part: {row.get("id"): n for n, row in enumerate(own)} for part, own in parts.items()}

    def seen(part: str, row: dict) -> dict:
        found = {
            name: position[POINTERS[name]].get(value) if name in POINTERS and value is not None else value
            for name, value in row.items()
            if name != "id"
        }
        if part == "audit":
            gold = dict.fromkeys(("before", "after"), "responses") if row["event"] == "gold" else {}
            found["detail"] = {
                name: position[(POINTERS | gold)[name]].get(value) if name in POINTERS | gold else value
                for name, value in row["detail"].items()
            }
            if row["event"] in ("alike", "alike ended"):
                found["detail"] = {"users": [position["users"][one] for one in row["detail"]["users"]]}
        if part == "runs":
            after = row["config"].get("after_choice")
            found["config"] = row["config"] | ({"after_choice": position["audit"].get(after)} if after else {})
        return found

    return {part: [seen(part, row) for row in own] for part, own in parts.items()}


def rich(store: SqlStore) -> int:
    """A study in which everything has happened once."""
    study = store.create_study("Birds").id
    store.import_rows(
        study,
        [
            ImportRow(1, "p", "Robin", "Wren", Choice.LEFT, "Imported", key="k1", source_a="m", meta={"split": "test"}),
            ImportRow(2, "p", "Robin", "Wren", Choice.TIE, "gpt-4", key="k2", kind=Kind.MODEL, tags=("odd",)),
            ImportRow(3, "q", "Zoë 🐦", "Owl", Choice.RIGHT, "Made", key="k3", kind=Kind.SIMULATED, true_group="night"),
            *(ImportRow(n, f"prompt {n % 2}", f"one {n}", f"other {n}", meta={"pair_id": n}) for n in range(4, 9)),
        ],
    )
    olga = store.create_user(study, "Olga", role=Role.OWNER).id
    ann, ben = (store.create_user(study, name).id for name in ("Ann", "Ben"))
    pairs = store.pairs(study)
    store.set_role(ben, Role.RESEARCHER, by=olga)
    store.exclude(ben, True, by=olga)
    store.set_gold(study, pairs[2][0], pairs[2][2], by=olga)
    store.set_gold(study, pairs[3][0], pairs[3][1], by=olga)
    store.set_gold(study, pairs[3][0], None, by=olga)
    for text in ("Be fair.", "Be *fair* and quick."):
        store.write_guidelines(study, text, by=olga)
    store.pin_pair(study, pairs[4][0], by=ben)
    store.unpin_pair(study, pairs[4][0], by=olga)
    store.pin_pair(study, pairs[5][0], by=olga)
    store.withdraw_pairs(study, [pairs[3][0], pairs[4][0]], by=olga)
    store.hand_out_again(study, [pairs[4][0]], by=olga)
    later = datetime.now(UTC) + timedelta(hours=1)

    def hand(user: int, pair: int, reason: SelectionReason = SelectionReason.UNIFORM):
        prediction = Prediction(0.75, 0.5, "v0001")
        return store.hand_out(user, pairs[pair][0], swap=pair % 2, reason=reason, expires_at=later,
                              prediction=prediction)  # fmt: skip

    def answer(user: int, pair: int, choice: Choice, reason: SelectionReason = SelectionReason.UNIFORM):
        return store.submit(hand(user, pair, reason).id, user, choice)

    first = answer(ann, 4, Choice.LEFT)
    store.edit(first.id, ann, Choice.RIGHT)
    answer(ann, 5, Choice.BOTH_BAD)
    store.undo(ann)
    answer(ben, 2, Choice.LEFT, SelectionReason.GOLD)
    store.skip(hand(ben, 6).id, ben)
    store.draft(hand(ann, 6).id, ann, Draft("half a rea", ("short",)))
    store.resolve(study, store.report(ann, pairs[4][1], "It is cut off.").id, by=olga)
    store.report(ben, pairs[5][1], "Odd.")
    invite = store.add_invite(study, "hash of an invite", Role.RESEARCHER, uses=2, expires_at=later, by=olga)
    cem = store.accept_invite(study, "hash of an invite", "Cem", "hash of a token").id
    store.quarantine(cem, [Ground("fast", "Answered faster than one can read in 20 of 20.")])
    store.accept_alike(study, [cem, ben], by=olga)
    store.end_alike(study, [cem, ben], by=olga)
    store.revoke_invite(study, invite.id, by=olga)
    store.set_email(study, "ann@example.org", Role.OWNER, by=olga)
    token = store.add_service_token(study, "hash of a program", "trainer", ServiceRole.PEOPLE, 60, by=olga)
    store.revoke_service_token(study, token.id, by=cem)
    store.drop_tokens(cem, by=olga)
    done, failed = (store.add_run(study, kind, "by hand") for kind in ("graph", "full"))
    store.update_run(failed.id, state=RunState.FAILED, message="no memory")
    store.add_run(study, "full", "again", retry_of=failed.id)
    for version, run in (("v0001", done.id), ("v0002", None)):
        record = SnapshotRecord(version, run, 3, 3, {"graph": {"accuracy": 0.75}}, datetime.now(UTC))
        store.publish(study, record, run_id=run)
    store.promote(study, "v0001", by=olga)
    store.add_run(study, "graph", "after the choice")
    store.write_note(study, "v0001", "the first", by=olga)
    store.rename_group(study, 1, "Owls", by=olga)
    store.set_schedule(study, Schedule(refit_labels=3), by=olga)
    store.set_assignment(study, AssignmentSettings(overlap=2, open=False, text_format="plain"), by=olga)
    store.include_models(study, True, by=olga)
    store.keep_shared(study, [SharedDay(date(2026, 11, 30), 0.5, -3, {"m": (4, -1)})])
    return study


@pytest.fixture
def world(databases) -> tuple[SqlStore, SqlStore, int]:
    """(the store of a rich study, the store that it comes into, the study's id); ids of the two will differ."""
    source, target = databases
    source.import_rows(source.create_study("Before").id, [ImportRow(1, "x", "y", "z", Choice.LEFT, "Ann", key="k1")])
    study = rich(source)
    for n in range(2 if source is target else 1):
        other = [ImportRow(line, f"{line}", "y", f"z {n}", Choice.LEFT, f"{line}", key=f"{line}") for line in range(9)]
        target.import_rows(target.create_study(f"Other {n}").id, other)
    return source, target, study


def test_a_restored_study_is_equal_on_each_database_and_from_one_to_the_other(world):
    source, target, study = world
    before = everything(source, study)
    assert all(before[part.name] for part in PARTS), "the world lacks a part"
    new = restored(target, before)
    after = everything(target, new)
    assert [row["id"] for row in after["labels"]] != [row["id"] for row in before["labels"]]
    assert after["audit"].pop()["event"] == "restored"
    ended = {row["reason"]: row for row in after["runs"] if row["message"].startswith("The study was restored")}
    assert {row["state"] for row in ended.values()} == {"cancelled"} and len(ended) == 2
    for row in before["runs"]:
        if row["reason"] in ended:
            row |= {name: ended[row["reason"]][name] for name in ("state", "message", "ended_at")}
    before["study"][0]["name"] = "Restored"
    assert by_position(after) == by_position(before)
    assert in_words(target, new) == in_words(source, study)
    assert target.assignment_settings(new) == source.assignment_settings(study)
    exports = [list(store.export(one)) for store, one in ((source, study), (target, new))]
    same = [{k: v for k, v in row.items() if k not in ("pair", "study")} for own in exports for row in own]
    assert same[: len(same) // 2] == same[len(same) // 2 :]


def test_the_restored_study_goes_on_and_the_first_one_is_untouched(world):
    source, target, study = world
    before = everything(source, study)
    new = restored(target, before)
    (ann,) = (user.id for user in target.users(new) if user.name == "Ann")
    task = target.open_task(ann)
    assert target.draft_of(task.id, ann) == Draft("half a rea", ("short",))
    assert target.submit(task.id, ann, Choice.LEFT)
    assert target.revision(new) == before["study"][0]["revision"] + 1
    assert all(target.study_of_run(run.id) != new for run in target.active_runs())
    assert everything(source, study) == before


def test_no_secret_leaves_and_what_it_opened_is_closed_in_the_restored_study(world):
    source, target, study = world
    source.add_service_token(study, "hash of a live program", "live", ServiceRole.REWARDS, 60)
    source.add_invite(study, "hash of a live invite", Role.OWNER, uses=None, expires_at=None)
    parts = everything(source, study)
    assert "hash of" not in repr(parts)
    new = restored(target, parts)
    assert all(one.revoked_at for one in (*target.service_tokens(new), *target.invites(new)))
    assert source.service_token("hash of a live program").study_id == study


def test_every_table_is_in_a_bundle_or_named_as_one_that_is_not():
    assert {part.table.name for part in PARTS} | SIGN_IN == set(Base.metadata.tables)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_whatever_was_imported_is_restored_equal(store, fresh_study, rows):
    study = fresh_study().id
    store.import_rows(study, rows)
    before = everything(store, study)
    new = restored(store, before, f"Again {study}")
    after = everything(store, new)
    after["audit"].pop()
    before["study"][0]["name"] = after["study"][0]["name"]
    assert by_position(after) == by_position(before)


# ---- rows that were changed by hand


def change(part: str, **values):
    return lambda parts: parts[part][0].update(values)


WRONG = {
    "a user of no kind": (change("users", kind="king"), "'king'"),
    "a role that there is not": (change("emails", role="king"), "'king'"),
    "an unknown choice": (change("labels", choice="maybe"), "'maybe'"),
    "a number that no database holds": (change("labels", revision=2**40), "1099511627776"),
    "a text that is no text": (change("prompts", text=["x"]), r"\['x'\]"),
    "half a character": (change("prompts", text="\ud800"), "ud800"),
    "a name that is too long": (change("users", name="x" * 201), "xxx"),
    "a time without a zone": (change("users", created_at="2026-01-01T00:00:00"), "2026-01-01"),
    "no time": (change("users", created_at=7), "7 as created_at"),
    "a missing value": (change("labels", choice=None), "None as choice"),
    "an unknown field": (change("labels", wings=2), "wings"),
    "a field that is not theirs to give": (change("labels", study_id=1), "study_id"),
    "a label of nobody": (change("labels", user_id=1_000_000), "users? 1000000, which it lacks"),
    "a label about nothing": (change("labels", pair_id=-1), "pair -1, which it lacks"),
    "a successor that is not there": (change("labels", successor_id=1_000_000), "label 1000000"),
    "ids in disorder": (lambda parts: parts["labels"].reverse(), "order of their ids"),
    "one id twice": (lambda parts: parts["users"].append(deepcopy(parts["users"][-1])), "order of their ids"),
    "one key twice": (lambda parts: parts["labels"][1].update(key=parts["labels"][0]["key"]), "cannot be stored"),
    "the left response twice": (lambda parts: parts["labels"][0].update(left_id=parts["labels"][0]["right_id"]),
                                "cannot be stored"),
    "responses of another pair": (
        lambda parts: parts["labels"][0].update(left_id=parts["responses"][-1]["id"]), "responses of other pairs"),
    "settings out of range": (change("study", assignment={"overlap": -1}), "people per pair is -1"),
    "settings of another kind": (change("study", assignment={"uniform": "x"}), "settings of the study"),
    "names that are none": (change("study", group_names={"x": 1}), "settings of the study"),
    "a quarantine without its grounds": (change("users", quarantine={"since": "now"}), "have a quarantine without"),
    "an unknown part": (lambda parts: parts.update(wings=[{"id": 1}]), "wings"),
}  # fmt: skip


@pytest.fixture(scope="module")
def rich_parts(tmp_path_factory) -> dict[str, list[dict]]:
    home = tmp_path_factory.mktemp("rich")
    empty_database(home)
    store = SqlStore(make_engine(f"sqlite:///{home / 'copl.db'}"))
    parts = everything(store, rich(store))
    store.engine.dispose()
    return parts


BY_THE_DATABASE = [wrong for wrong, (_, sentence) in WRONG.items() if sentence == "cannot be stored"]


@pytest.mark.parametrize(
    ("store", "wrong"),
    [*(("sqlite", wrong) for wrong in WRONG), *(("postgres", wrong) for wrong in BY_THE_DATABASE)],
    indirect=["store"],
)
def test_rows_that_were_changed_are_refused_in_a_sentence_and_nothing_is_left(store, rich_parts, wrong):
    make_wrong, sentence = WRONG[wrong]
    parts = deepcopy(rich_parts)
    make_wrong(parts)
    with pytest.raises(CoplError, match=sentence) as refused:
        restored(store, parts)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
    assert len(store.drop_unfinished()) == 1 and not any(table_counts(store).values())


def table_counts(store: SqlStore) -> dict[str, int]:
    with store.engine.connect() as connection:
        names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
        return {name: len(connection.execute(Base.metadata.tables[name].select()).all()) for name in names}


def test_a_bundle_of_an_earlier_version_lacks_what_came_later(store, rich_parts):
    parts = deepcopy(rich_parts)
    for row in parts["labels"]:
        del row["position_known"], row["meta"]
    for name in ("group_names", "include_models"):
        del parts["study"][0][name]
    new = restored(store, parts)
    assert all(label.position_known for label in store.labels(new)) and not store.study(new).include_models


def test_a_study_that_was_never_whole_goes_with_all_that_made_it(store):
    before = table_counts(store)
    study = store.create_study("Half", ready=False)
    olga = store.create_user(study.id, "Olga", role=Role.OWNER)
    store.add_token(olga.id, "hash", lasts=timedelta(days=7))
    session = store.start_session("hash", "hash of a session")
    store.set_email(study.id, "olga@example.org", Role.OWNER)
    assert session and store.drop_unfinished() == [study.id]
    after = table_counts(store)
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {"browser_session": 1}
