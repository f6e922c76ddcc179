"""Acts that are killed at one of their statements: what others see is as before or as after, and the act goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from shutil import copytree

import pytest
from sqlalchemy import text

from copl_core.formats.bundle import open_bundle
from copl_core.records import Choice, CoplError, Ground, Identity, Role, SnapshotRecord
from copl_core.study import access, bundle, contents, deletion, forget, labelling
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from copl_core.trainer import deletions
from copl_core.trainer.departures import clean_up
from tests.kills import Watch, killed_at, steps
from tests.worlds import camp_labels, open_study, pairs_to_label

KILLS = 4  # of each act, at its first statement, its last one and some between
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(\+00:00)?")
ANN = Identity("https://id.example", "ann", "ann@example.org", "Ann")


@dataclass(frozen=True)
class Act:
    do: Callable[[Session], object]
    sees: Callable[[Session], object] = lambda session: None  # beside the studies and their accounts
    mend: Callable[[Session], object] = lambda session: None  # what the trainer does by itself


def _person(session: Session) -> int:
    return next(user.id for user in session.store.users(session.id) if user.name == "Ann")


def _bundle(session: Session) -> Path:
    return session.settings.home / "made.zip"


def _held(session: Session) -> dict | None:
    if not _bundle(session).exists():
        return None
    with open_bundle(_bundle(session), session.store.schema()) as whole:
        return {part: facts["rows"] for part, facts in whole.manifest["members"].items()}


def _restore(session: Session) -> None:
    bundle.restore_study(session.store, session.settings, session.settings.home / "kept.zip", "Again", lambda new: None)


def _forget(session: Session) -> None:
    forget.forget(session, _person(session))


def _clean_up(session: Session) -> None:
    assert clean_up(session.store, session.settings) == []


def _new_study(session: Session) -> None:
    contents.import_study(session, "New", camp_labels(n_users=25, seed=4))


ACTS = {
    "import": Act(lambda session: contents.import_rows(session, camp_labels(n_users=25, seed=3))),
    "import of a new study": Act(_new_study),
    "backup": Act(lambda session: bundle.backup(session, _bundle(session)), _held),
    "restore": Act(_restore),
    "forget": Act(_forget, mend=_clean_up),
    "deletion": Act(
        lambda session: deletion.delete_study(session, session.record.name, seconds=None),
        lambda session: [(one.name, one.labels, one.users) for one in session.store.deleted_studies()],
        mend=lambda session: deletions.go_on(session.store, session.settings),
    ),
    "audit": Act(lambda session: session.store.write_audit(session.id, "v0001", {"auc": 0.6})),
    "connect": Act(lambda session: session.store.connect_identity(_person(session), ANN)),
    "quarantine": Act(
        lambda session: session.store.quarantine(_person(session), [Ground("fast", "Answers within 0.2 s.")])
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A home with people, labels, a snapshot's record and a bundle."""
    session = open_study(tmp_path_factory.mktemp("kills") / "home")
    contents.import_rows(session, pairs_to_label(6))
    labelling.set_assignment(session, AssignmentSettings(overlap=3))
    access.owner(session)
    for name in ("Ann", "Ben"):
        user = access.join(session, name)
        for _ in range(4):
            labelling.submit(session, labelling.next_task(session, user.id).id, user.id, Choice.LEFT, reason="kinder")
    record = SnapshotRecord("v0001", None, session.store.revision(session.id), 8, {}, datetime.now(UTC))
    session.store.publish(session.id, record, run_id=None)
    session.store.set_email(session.id, "ben@example.org", Role.RESEARCHER)
    bundle.backup(session, session.settings.home / "kept.zip")
    access.owner(Session(session.store, session.settings, session.store.create_study("Other").id))
    session.store.close()
    return session.settings.home


def seen(session: Session, act: Act) -> str:
    """What anybody sees, without times."""
    found: list = [act.sees(session)]
    for study in session.store.studies():
        parts: dict = {"study": study.name}
        session.store.read_study(study.id, lambda name, rows, own=parts: own.update({name: list(rows)}))
        found.append(parts)
        found += [list(map(str, session.store.identities_of(user.id))) for user in session.store.users(study.id)]
    return TIME.sub("", json.dumps(found, default=str, sort_keys=True))


def kill_at(home: Path, act: Act, number: int) -> bool:
    """Carry out an act in a process that is killed at a step; whether it was."""

    def do(watch: Watch) -> None:
        session = open_study(home)
        watch(session.store.engine)
        act.do(session)

    return killed_at(number, do)


@pytest.mark.parametrize("name", ACTS)
def test_an_act_that_is_killed_leaves_the_state_before_or_after_and_goes_on(name, made, tmp_path):
    act, numbers = ACTS[name], count(1)
    whole = open_study(Path(copytree(made, tmp_path / "whole")))
    before = seen(whole, act)
    steps(whole.store.engine, lambda: next(numbers))
    act.do(whole)
    total = next(numbers) - 1
    after = seen(whole, act)
    assert after != before and total > 2
    random = Random(name)
    some = {1, total - 1, *random.sample(range(1, total), min(total - 1, KILLS - 2))}
    killed = 0
    for number in sorted(some):
        home = Path(copytree(made, tmp_path / str(number)))
        killed += kill_at(home, act, number)  # a fast machine imports in fewer transactions
        session = open_study(home)
        with session.store.engine.connect() as connection:
            assert connection.execute(text("pragma integrity_check")).scalars().all() == ["ok"]
            assert connection.execute(text("pragma foreign_key_check")).all() == []
        act.mend(session)
        state = seen(session, act)
        assert state in (before, after), f"half of it is seen after a kill at statement {number} of {total}"
        contents.drop_unfinished(session.store, session.settings)  # as the next start does
        try:
            act.do(session)
        except (CoplError, StopIteration):
            assert state == after, f"it cannot be repeated after a kill at statement {number} of {total}"
        assert seen(session, act) == after
        session.store.close()
    assert killed >= 2
