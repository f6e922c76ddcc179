"""The record of changes: each kind of event is a sentence with the names of the people it is about."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from copl_core.records import AuditEntry, Choice, Ground, Role
from copl_core.study import access, audit_trail, contents, labelling, quarantine, service_tokens, sign_in, suspects
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings, Schedule, ServiceRole
from tests.plan import ROOT, sources
from tests.worlds import open_study, pairs_to_label

NOW = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
UNKNOWN = audit_trail.Names({}, {})


@pytest.fixture
def session(tmp_path) -> Session:
    session = open_study(tmp_path)
    contents.import_rows(session, pairs_to_label(3))
    return session


@pytest.fixture
def rae(session) -> int:
    return access.join(session, "Rae", Role.OWNER).id


def newest(session: Session) -> str:
    return audit_trail.changes(session, 1)[0][0].sentence


def test_every_event_that_the_store_writes_has_a_sentence_of_its_own():
    calls = [node for path in sources("db") for node in ast.walk(ast.parse((ROOT / path).read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "audit"]  # fmt: skip
    stored = {call.args[2].value for call in calls if isinstance(call.args[2], ast.Constant)} | {"champion"}
    assert len(stored) > 15
    assert {event for event in stored if "made a change" in audit_trail.kind_of(event)} == set()
    assert stored <= set(audit_trail._KINDS)


def test_an_import_names_who_did_it_in_the_new_study_too_and_the_file_by_its_name_alone(session, rae):
    page, rows = session.acting(rae), pairs_to_label(2)
    contents.import_rows(page, pairs_to_label(5), file=Path("/home/rae/secret plans/labels.csv"))
    assert newest(session) == "Rae imported 2 new pairs from “labels.csv”."
    made, _ = contents.import_study(page, "New", rows, file=Path("labels.jsonl"))
    new = Session(session.store, session.settings, made.id)
    assert newest(new) == "Rae imported 2 new pairs from “labels.jsonl”."
    made, _ = contents.import_study(page, "Newer", rows, file=Path("a\n\u202efdp" + "x" * 150 + ".csv"))
    sentence = newest(Session(session.store, session.settings, made.id))
    assert sentence.startswith("Rae imported 2 new pairs from “a\N{REPLACEMENT CHARACTER}⟨U+202E⟩fdp")
    assert sentence.endswith("x.csv”.") and len(sentence) < 120
    made, _ = contents.import_study(page, "Newest", rows)
    assert newest(Session(session.store, session.settings, made.id)) == "Rae imported 2 new pairs."


def test_the_name_of_a_file_goes_with_its_owner_and_with_the_person_it_names(session, rae):
    access.join(session, "Olga", Role.OWNER)
    ann, ben = (access.join(session, name) for name in ("Ann", "Ben"))
    for n, (name, by) in enumerate((("ann.csv", None), ("ben.csv", None), ("rae's.csv", rae), ("other.csv", rae))):
        contents.import_rows(session, pairs_to_label(5 + n), file=Path(name), by=by)
    for user in (ann.id, rae):
        session.store.forget_user(user, fewest={"graph": 10, "full": 40})
    shown = [one.sentence for one in audit_trail.changes(session)[0] if " from " in one.sentence]
    assert sum("from “(removed)”" in one for one in shown) == 3 and sum("ben.csv" in one for one in shown) == 1


def test_members_and_their_sign_in(session, rae):
    _, secret = access.invite(session, Role.ANNOTATOR, uses=1, expires_at=NOW + timedelta(days=3650), by=rae)
    assert newest(session).startswith("Rae made an invite for an annotator, open until ")
    kim, _ = access.accept_invite(session, secret, "Kim")
    assert newest(session) == "Rae invited Kim as an annotator, and Kim joined."
    made, _ = access.invite(session, Role.RESEARCHER, uses=None, by=rae)
    assert newest(session) == "Rae made an invite for any number of researchers."
    access.revoke_invite(session, made.id, by=rae)
    assert newest(session) == "Rae revoked an invite for researchers, by which 0 had joined."
    access.set_role(session, kim.id, Role.RESEARCHER, by=rae)
    assert newest(session) == "Rae changed the role of Kim from annotator to researcher."
    access.sign_out_everywhere(session, kim.id, by=rae)
    assert newest(session) == "Rae signed Kim out everywhere (1 sign-in link and 0 browsers)."
    browser = sign_in.begin(session.store, access.sign_in_token(session, kim.id, by=rae))
    assert newest(session) == "Rae made a sign-in link for Kim."
    access.terminal_token(session)
    assert newest(session) == (
        "The studio made a sign-in link for Rae in a terminal, which opens every study as its owner."
    )
    access.sign_out_browser(session, kim.id, access.browsers(session, kim.id, browser=browser)[0].id, by=kim.id)
    assert newest(session) == "Kim signed out of one of their browsers."
    access.sign_out_everywhere(session, kim.id, by=kim.id)
    assert newest(session) == "Kim signed out everywhere (1 sign-in link and 0 browsers)."
    for role, may in (("rewards", "ask for rewards"), ("people", "ask for rewards and embeddings")):
        service_tokens.make_token(session, f"the {role} one", ServiceRole(role), by=rae)
        assert newest(session) == f"Rae made the token “the {role} one”, by which a program may {may}."
    service_tokens.revoke_token(session, "the people one", by=rae)
    assert newest(session) == "Rae revoked the token “the people one”."
    access.set_email(session, "una@example.org", Role.OWNER, by=rae)
    assert newest(session) == "Rae let una@example.org sign in as an owner."
    access.set_email(session, "una@example.org", Role.ANNOTATOR, by=rae)
    assert newest(session) == "Rae let una@example.org sign in as an annotator, no longer as an owner."
    access.set_email(session, "una@example.org", None, by=rae)
    assert newest(session) == "Rae refused sign-in to una@example.org."


def test_labels_and_who_trains(session, rae):
    assert newest(session) == "The studio imported 3 new pairs."
    kim = access.join(session, "Kim")
    made = labelling.submit(session, labelling.next_task(session, kim.id).id, kim.id, Choice.LEFT).label
    labelling.edit(session, made.id, kim.id, Choice.TIE)
    assert newest(session) == f"Kim changed an answer from A to tie (label {made.id})."
    changed = labelling.edit(session, labelling.labels_of(session, kim.id)[0].id, kim.id, Choice.TIE, reason="Hm.")
    assert newest(session) == f"Kim changed the strength or the reason of an answer (label {changed.id - 1})."
    suspects.confirm(session, changed.id, kim.id)
    assert newest(session) == f"Kim confirmed an answer (label {changed.id})."
    labelling.undo(session, kim.id)
    assert newest(session) == f"Kim undid an answer (label {changed.id})."
    task = labelling.next_task(session, kim.id)
    labelling.skip(session, task.id, kim.id)
    labelling.undo(session, kim.id)
    assert newest(session).startswith("Kim went back to pair ")
    access.exclude(session, kim.id, True, by=rae)
    assert newest(session) == "Rae excluded Kim from training (0 labels)."
    access.exclude(session, kim.id, False, by=rae)
    assert newest(session) == "Rae included Kim in training again (0 labels)."
    access.include_simulated(session, False, by=rae)
    assert newest(session) == "Rae excluded simulated people (0 labels)."
    access.include_simulated(session, True, by=rae)
    assert newest(session) == "Rae included simulated people again (0 labels)."
    access.include_models(session, True, by=rae)
    assert newest(session) == "Rae let the training learn from language models too (0 labels)."
    access.include_models(session, False, by=rae)
    assert newest(session) == "Rae let the training learn from people only, without language models (0 labels)."


def test_settings_of_a_study(session, rae):
    pair_id, first, second = session.store.pairs(session.id)[0]
    labelling.set_assignment(session, AssignmentSettings(overlap=2, uniform=0.3, daily_goal=5), by=rae)
    assert newest(session) == (
        "Rae changed people per pair from everybody to 2, the share drawn at random from 20% to 30% and the daily goal "
        "from none to 5."
    )
    labelling.write_guidelines(session, "Be fair.", by=rae)
    assert newest(session) == "Rae wrote version 1 of the guidelines."
    for preferred, words in ((first, "made pair {} a gold pair"), (second, "changed the known answer of pair {}")):
        labelling.set_gold(session, pair_id, preferred, by=rae)
        assert newest(session) == f"Rae {words.format(pair_id)}."
    labelling.set_gold(session, pair_id, None, by=rae)
    assert newest(session) == f"Rae took pair {pair_id} from the gold pairs."
    labelling.pin_pair(session, pair_id, by=rae)
    assert newest(session) == f"Rae pinned pair {pair_id}, so that everybody gets it next."
    labelling.unpin_pair(session, pair_id, by=rae)
    assert newest(session) == f"Rae unpinned pair {pair_id}."
    labelling.withdraw_pairs(session, [pair_id], by=rae)
    assert newest(session) == f"Rae withdrew pair {pair_id}, so that nobody gets it any more."
    labelling.hand_out_again(session, [pair_id], by=rae)
    assert newest(session) == f"Rae let pair {pair_id} be handed out again."
    report = labelling.report(session, rae, first, "It is cut off.")
    labelling.resolve(session, report.id, by=rae)
    assert newest(session) == f"Rae resolved reported problem {report.id}."
    for name, words in (("Warm", "named group 2 “Warm”"), ("Kind", "named group 2 “Kind”, before: “Warm”")):
        session.store.rename_group(session.id, 1, name, by=rae)
        assert newest(session) == f"Rae {words}."
    session.store.rename_group(session.id, 1, "", by=rae)
    assert newest(session) == "Rae took back the name “Kind” of group 2."


def test_the_schedule_of_the_trainer(session, rae):
    schedule = Schedule(refit_seconds=15)
    session.store.set_schedule(session.id, schedule, by=rae)
    assert newest(session).startswith(
        "Rae set the schedule of this study: automatic runs yes, new labels before a refit"
    )
    session.store.set_schedule(session.id, replace(schedule, automatic=False, refit_labels=9), by=rae)
    assert newest(session) == (
        "Rae changed the schedule: automatic runs from yes to no and new labels before a refit of the graph "
        "from 8 to 9."
    )
    session.store.set_schedule(session.id, None, by=rae)
    assert newest(session) == "Rae set the schedule of automatic runs back to the installation's."


def entry(event: str, user_id: int | None, **detail: object) -> AuditEntry:
    return AuditEntry(user_id, event, detail, NOW)


def test_snapshots():
    rae = replace(UNKNOWN, users={1: "Rae"})
    lines = [
        audit_trail.sentence(entry("champion", 1, before="v0009", after="v0007"), rae),
        audit_trail.sentence(entry("note", 1, snapshot="v0007", before="", after="before the pilot"), rae),
        audit_trail.sentence(entry("note", 1, snapshot="v0007", before="before the pilot", after=""), rae),
    ]
    assert lines == [
        "Rae promoted snapshot v0007 to champion in place of v0009.",
        "Rae noted at snapshot v0007: “before the pilot”.",
        "Rae removed the note of v0007.",
    ]


def test_automatic_champions_of_earlier_versions_are_one_line_and_hide_nothing(session, rae, monkeypatch):
    older = [entry("champion", None, before=f"v{n:04}", after=f"v{n + 1:04}") for n in reversed(range(300))]
    stored = [entry("note", rae, snapshot="v0300", before="", after="Good."), *older, *session.store.audit(session.id)]
    monkeypatch.setattr(type(session.store), "audit", lambda store, study_id, *, limit: stored[:limit])
    lines, more = audit_trail.changes(session, 3)
    assert [line.sentence for line in lines] == [
        "Rae noted at snapshot v0300: “Good.”",
        "300 snapshots in a row became the champion without anybody's choice, v0001 to v0300.",
        "The studio imported 3 new pairs.",
    ]
    assert not more
    for limit in (1, 2):  # however few lines are wanted, each counts all of its entries
        some, more = audit_trail.changes(session, limit)
        assert some == lines[: len(some)] and len(some) >= limit and more == (len(some) < 3)


def test_the_links_of_starts_in_a_row_are_one_line(session, rae):
    def starts(n: int) -> str:
        for _ in range(n):
            access.terminal_token(session)
        return newest(session)

    one = "The studio made a sign-in link for Rae in a terminal, which opens every study as its owner."
    assert starts(1) == one
    words = starts(249)
    assert words.startswith(
        "The studio made 250 sign-in links for Rae in a terminal, which open every study as its owner, the first of "
        f"them on {session.store.audit(session.id, limit=250)[-1].at.astimezone():%-d %b %Y, %H:%M}"
    )
    assert len(audit_trail.changes(session, 100)[0]) == 2
    kim = access.join(session, "Kim")
    access.sign_in_token(session, kim.id, by=rae)  # which is a line of its own, as are those before and after it
    assert starts(1) == one and len(audit_trail.changes(session, 100)[0]) == 4
    for _ in range(2):
        access.sign_in_token(session, kim.id, by=rae)
    assert len(audit_trail.changes(session, 100)[0]) == 6


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (entry("moved", 7, study=3, kept=True), "person 7 made a change of the kind “moved”: study 3, kept yes."),
        (entry("moved", None), "The studio made a change of the kind “moved”."),
        (entry("role", None, user=3), "The studio made a change of the kind “role”: user 3."),
        (
            entry("edit", 7, label=1, before="a", after="b"),
            "person 7 made a change of the kind “edit”: label 1, before a, after b.",
        ),  # fmt: skip
    ],
)
def test_events_of_other_versions_are_readable(one, words):
    assert audit_trail.sentence(one, UNKNOWN) == words


def test_who_is_left_out_until_a_decision_and_what_is_decided(session, rae):
    kim, lee = access.join(session, "Kim"), access.join(session, "Lee")
    ground = Ground("fast", "Answered faster than one can read in 20 of 20.")
    session.store.quarantine(kim.id, [ground])
    assert newest(session) == f"The studio left Kim out until an owner decides (0 labels). {ground.sentence}"
    quarantine.decide(session, kim.id, True, by=rae)
    assert newest(session) == "Rae decided to count Kim (0 labels)."
    session.store.quarantine(lee.id, [ground])
    session.store.end_quarantine(lee.id)
    assert newest(session) == "The studio counts Lee, who has joined and answered enough pairs twice (0 labels)."
    session.store.quarantine(lee.id, [ground])
    access.set_role(session, lee.id, Role.OWNER, by=rae)
    assert newest(session) == "Rae ended the wait of Lee, who is an owner now (0 labels)."


def test_settings_and_newcomers_who_wait_are_in_the_words_of_the_pages(session, rae):
    settings = labelling.assignment_settings(session)
    labelling.set_assignment(session, replace(settings, quarantine="new"), by=rae)
    assert newest(session) == (
        "Rae changed whose answers wait for an owner from people with failed checks to people with failed checks and "
        "newcomers."
    )
    labelling.set_assignment(session, replace(settings, quarantine="new", picture_hosts=("a.org", "b.org")), by=rae)
    assert newest(session) == "Rae changed the hosts whose pictures are shown from none to a.org, b.org."
    access.enter(session, "Mia")
    assert any(
        line.sentence == "The studio leaves Mia, who has just joined, out until they have answered enough pairs twice."
        for line in audit_trail.changes(session)[0]
    )
