"""Several studies in one installation: nobody is thrown out, and a study is seen once it is whole."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from copl_core.records import Choice, CoplError, ImportRow, Role
from copl_core.study import access, contents, labelling, sign_in
from copl_core.study.session import Session
from tests.worlds import camp_labels, label_in_camp, open_study, pairs_to_label

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def session(tmp_path) -> Session:
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(4))
    return session


def names(session: Session) -> list[str]:
    return [study.name for study in session.store.studies()]


def test_an_import_into_another_study_changes_nothing_for_open_pages(session):
    ann, token = access.enter(session, "Ann")
    browser = sign_in.begin(session.store, token)
    task = labelling.next_task(session.acting(ann.id), ann.id)
    olga = access.join(session, "Olga", Role.OWNER)
    made, report = contents.import_study(session, "Second", camp_labels(n_users=3), by=olga.id)
    assert report.labels_new == 30 and names(session) == ["Two camps", "Second"]
    assert session.store.current_study().id == session.id
    assert sign_in.open_study(session.store, browser, session.id) == ann
    assert sign_in.open_study(session.store, browser, made.id) is None
    assert labelling.next_task(session.acting(ann.id), ann.id) == task
    label_in_camp(session, ann.id, "short", 1)


def test_an_imported_study_is_for_invited_people_and_belongs_to_its_importer(session):
    olga = access.join(session, "Olga", Role.OWNER)
    made, _ = contents.import_study(session, "Second", pairs_to_label(2), by=olga.id)
    second = Session(session.store, session.settings, made.id)
    with pytest.raises(CoplError, match="by invitation only"):
        access.enter(second, "Ben")
    assert [(user.name, user.role) for user in access.users(second)] == [("Olga", Role.OWNER)]


def test_nobody_of_a_file_takes_the_name_of_the_owner(session):
    olga = access.join(session, "Olga", Role.OWNER)
    row = ImportRow(1, "Name a bird", "A wren", "A robin", Choice.LEFT, "Olga", key="1")
    made, _ = contents.import_study(session, "Second", [row], by=olga.id)
    second = Session(session.store, session.settings, made.id)
    assert [(user.name, user.role) for user in access.users(second)] == [("Olga", Role.OWNER)]


def test_a_study_is_not_seen_before_it_is_whole(session):
    seen = []

    def rows() -> Iterator[ImportRow]:
        yield from pairs_to_label(2)
        seen.append((names(session), session.store.current_study().id))
        yield from pairs_to_label(2, start=20)

    contents.import_study(session, "Second", rows())
    assert seen == [(["Two camps"], session.id)] and names(session) == ["Two camps", "Second"]


def test_an_import_that_fails_leaves_nothing_and_its_name_is_free(session):
    def rows() -> Iterator[ImportRow]:
        yield from camp_labels(n_users=2)
        raise CoplError("the file ends early")

    with pytest.raises(CoplError, match="ends early"):
        contents.import_study(session, "Second", rows())
    assert names(session) == ["Two camps"] and len(session.store.pairs(session.id)) == 4
    assert access.create_study(session, "Second").name == "Second"


KILLED = """
import sys, time
from copl_core.study import contents
from tests.worlds import camp_labels, open_study
from pathlib import Path
session = open_study(Path(sys.argv[1]))
def rows():
    yield from camp_labels(n_users=30)  # more than are held back
    print("half", flush=True)
    time.sleep(60)
contents.import_study(session, "Second", rows())
"""


def test_a_killed_import_leaves_nothing_visible_and_the_next_start_removes_it(session):
    command = [sys.executable, "-c", KILLED, str(session.settings.home)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "half\n"
    assert contents.drop_unfinished(session.store, session.settings) == 0  # it runs: nothing is taken from it
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(session) == ["Two camps"]
    with pytest.raises(CoplError, match="already"):
        access.create_study(session, "Second")
    end = time.monotonic() + 10
    while contents.drop_unfinished(session.store, session.settings) == 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert access.create_study(session, "Second").name == "Second"
