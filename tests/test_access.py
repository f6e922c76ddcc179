"""Ways in and what people may do: secrets are kept as hashes, and nobody is let in as somebody else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import sleep

import pytest
from sqlalchemy import text

from copl_core.records import CoplError, Role
from copl_core.rules import RoomSettings
from copl_core.study import Study
from db.engine import reading
from tests.worlds import open_study

SOON = timedelta(seconds=0.05)


@pytest.fixture
def study(tmp_path) -> Study:
    return open_study(tmp_path)


@pytest.fixture
def olga(study):
    return study.join("Olga", Role.OWNER)


def closed(study: Study) -> Study:
    study.set_room(RoomSettings(open=False))
    return study


# ---- by the address


def test_whoever_comes_by_the_address_gets_a_name_and_a_secret_of_their_own(study):
    ann, token = study.enter(" Ann ")
    assert (ann.name, ann.role) == ("Ann", Role.ANNOTATOR) and study.sign_in(token) == ann
    for name in ("Ann", "ann", " ANN "):
        with pytest.raises(CoplError, match="already"):
            study.enter(name)
    with pytest.raises(CoplError, match="1 to 80"):
        study.enter("  ")


def test_of_many_who_choose_one_name_at_once_one_gets_it(study):
    def come(_: int) -> bool:
        try:
            study.enter("Ann")
        except CoplError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come, range(8))) == 1
    assert len(study.users()) == 1


def test_a_closed_study_lets_nobody_in_by_its_address_and_those_who_are_in_stay(study):
    ann, token = study.enter("Ann")
    with pytest.raises(CoplError, match="by invitation only"):
        closed(study).enter("Ben")
    assert study.sign_in(token) == ann


# ---- secrets


def test_signing_out_everywhere_ends_every_secret_and_new_ones_work(study, olga):
    ann = study.join("Ann")
    tokens = [study.sign_in_token(ann.id) for _ in range(3)]
    other = study.sign_in_token(olga.id)
    assert study.sign_out_everywhere(ann.id, by=ann.id) == 3
    assert [study.sign_in(token) for token in tokens] == [None] * 3 and study.sign_in(other) == olga
    assert study.sign_in(study.sign_in_token(ann.id)) == ann
    with pytest.raises(CoplError, match="only an owner"):
        study.sign_out_everywhere(olga.id, by=ann.id)
    assert study.sign_out_everywhere(ann.id, by=olga.id) == 1
    assert [entry.event for entry in study.audit()] == ["signed out"] * 2


def test_no_secret_is_in_the_database(study, olga):
    _, invite = study.invite(by=olga.id)
    _, mine = study.accept_invite(invite, "Ann")
    secrets = [invite, mine, study.sign_in_token(olga.id)]
    with reading(study.store.engine) as connection:
        names = connection.execute(text("select name from sqlite_master where type = 'table'")).scalars().all()
        kept = repr([connection.execute(text(f'select * from "{name}"')).all() for name in names])
    assert not any(secret in kept for secret in secrets) and "Ann" in kept


# ---- invites


def test_an_invite_lets_in_as_many_as_it_says_with_its_role(study, olga):
    invite, secret = study.invite(Role.RESEARCHER, uses=2, by=olga.id)
    assert study.invited(secret) == invite and study.invited(secret + "x") is None
    ann, token = study.accept_invite(secret, "Ann")
    assert (ann.role, study.sign_in(token)) == (Role.RESEARCHER, ann)
    ben, _ = study.accept_invite(secret, "Ben")
    assert study.invited(secret) is None
    with pytest.raises(CoplError, match="used up"):
        study.accept_invite(secret, "Cem")
    ((after, state),) = study.invites()
    assert (after.used, after.uses, after.by, state) == (2, 2, olga.id, "used up")
    assert [(entry.event, entry.user_id) for entry in study.audit()] == [
        ("invite accepted", ben.id),
        ("invite accepted", ann.id),
        ("invite", olga.id),
    ]


def test_an_invite_for_one_lets_one_in_however_many_press_at_once(study, olga):
    _, secret = study.invite(by=olga.id)

    def come(n: int) -> bool:
        try:
            study.accept_invite(secret, f"Guest {n}")
        except CoplError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come, range(8))) == 1
    assert len(study.users()) == 2


def test_a_taken_name_costs_no_use_and_lets_nobody_in_as_another(study, olga):
    _, secret = study.invite(by=olga.id)
    with pytest.raises(CoplError, match="already"):
        study.accept_invite(secret, "olga")
    assert study.accept_invite(secret, "Ann")[0].role == Role.ANNOTATOR


def test_an_invite_ends_when_it_is_revoked_or_expires(study, olga):
    invite, secret = study.invite(uses=None, by=olga.id)
    study.accept_invite(secret, "Ann")
    study.revoke_invite(invite.id, by=olga.id)
    study.revoke_invite(invite.id, by=olga.id)
    short, brief = study.invite(uses=None, expires_at=datetime.now(UTC) + SOON, by=olga.id)
    sleep(max(0.0, (short.expires_at - datetime.now(UTC)).total_seconds()) + 0.01)
    for ended, word in ((secret, "revoked"), (brief, "expired"), ("nonsense", "unknown")):
        assert study.invited(ended) is None
        with pytest.raises(CoplError, match=word):
            study.accept_invite(ended, "Ben")
    assert [state for _, state in study.invites()] == ["expired", "revoked"]
    assert [entry.event for entry in study.audit()].count("invite revoked") == 1


def test_an_invite_that_would_be_of_no_use_is_not_made(study, olga):
    with pytest.raises(CoplError, match="1 or more"):
        study.invite(uses=0, by=olga.id)
    with pytest.raises(CoplError, match="later"):
        study.invite(expires_at=datetime.now(UTC) - SOON, by=olga.id)


def test_an_invite_opens_a_closed_study(study, olga):
    _, secret = closed(study).invite(by=olga.id)
    assert study.accept_invite(secret, "Ann")[0].name == "Ann"


# ---- e-mail addresses


def test_an_address_signs_in_with_its_role_and_is_one_user_ever_after(study, olga):
    closed(study).set_email("Ann@Example.org", Role.RESEARCHER, by=olga.id)
    ann = study.sign_in_email(" ann@example.ORG")
    assert (ann.name, ann.role) == ("ann", Role.RESEARCHER)
    assert study.sign_in_email("ann@example.org", name="Somebody else") == ann
    assert study.set_email("ann@example.org", Role.ANNOTATOR, by=olga.id).user_id == ann.id
    assert study.sign_in_email("ann@example.org").role == Role.ANNOTATOR
    assert [entry.event for entry in study.audit()][:2] == ["e-mail", "role"]


def test_an_unknown_address_is_an_annotator_of_an_open_study_and_nobody_elsewhere(study):
    ann = study.sign_in_email("ann@example.org", name="Ann B.")
    assert (ann.name, ann.role) == ("Ann B.", Role.ANNOTATOR)
    assert closed(study).sign_in_email("ben@example.org") is None
    assert study.sign_in_email("ann@example.org") == ann


def test_a_refused_address_stays_out_of_an_open_study_too(study, olga):
    ann = study.sign_in_email("ann@example.org")
    study.set_email("ann@example.org", None, by=olga.id)
    study.set_email("ben@example.org", None, by=olga.id)
    assert study.sign_in_email("ann@example.org") is None and study.sign_in_email("ben@example.org") is None
    study.set_email("ann@example.org", Role.ANNOTATOR, by=olga.id)
    assert study.sign_in_email("ann@example.org") == ann
    assert [(rule.email, rule.role) for rule in study.emails()] == [
        ("ann@example.org", Role.ANNOTATOR),
        ("ben@example.org", None),
    ]


def test_two_people_of_one_name_are_two_users(study):
    first, second = (study.sign_in_email(f"ann@{host}") for host in ("example.org", "example.com"))
    assert first.id != second.id and {first.name, second.name} == {"ann", "ann 2"}


def test_one_address_in_two_windows_makes_one_user(study):
    with ThreadPoolExecutor(4) as pool:
        users = list(pool.map(lambda _: study.sign_in_email("ann@example.org"), range(8)))
    assert len({user.id for user in users}) == 1 and len(study.users()) == 1


@pytest.mark.parametrize("address", ["", "ann", "@example.org", "ann@", "ann @example.org", "x" * 320 + "@y"])
def test_what_is_no_address_is_told(study, address):
    with pytest.raises(CoplError, match="no e-mail address"):
        study.sign_in_email(address)


# ---- roles and exclusion


def test_a_study_keeps_an_owner(study, olga):
    ann = study.join("Ann")
    with pytest.raises(CoplError, match="only owner"):
        study.set_role(olga.id, Role.RESEARCHER, by=olga.id)
    study.set_role(ann.id, Role.OWNER, by=olga.id)
    assert study.set_role(olga.id, Role.ANNOTATOR, by=ann.id).role == Role.ANNOTATOR
    study.set_email("ann@example.org", Role.OWNER, by=ann.id)
    with pytest.raises(CoplError, match="only owner"):
        study.set_role(ann.id, Role.RESEARCHER)
    assert [entry.detail["after"] for entry in study.audit() if entry.event == "role"] == ["annotator", "owner"]


def test_only_owners_change_roles_trust_and_doors(study, olga):
    ann, ben = study.join("Ann", Role.RESEARCHER), study.join("Ben")
    invite, _ = study.invite(by=olga.id)
    for change in (
        lambda: study.set_role(ann.id, Role.OWNER, by=ann.id),
        lambda: study.invite(by=ann.id),
        lambda: study.exclude(ben.id, True, by=ann.id),
        lambda: study.revoke_invite(invite.id, by=ann.id),
        lambda: study.set_email("ann@example.org", Role.OWNER, by=ann.id),
    ):
        with pytest.raises(CoplError, match="Ann is researcher here; only an owner"):
            change()
    assert study.exclude(ben.id, True, by=olga.id).excluded


def test_an_owner_of_one_study_is_nobody_in_another(tmp_path):
    one = open_study(tmp_path)
    owner = one.join("Olga", Role.OWNER)
    two = Study(one.store, one.settings, one.store.create_study("Another").id)
    stranger, (invite, _) = two.join("Eve"), two.invite()
    for change in (
        lambda: two.invite(by=owner.id),
        lambda: one.set_role(stranger.id, Role.OWNER, by=owner.id),
        lambda: one.exclude(stranger.id, True, by=owner.id),
        lambda: one.revoke_invite(invite.id, by=owner.id),
        lambda: one.sign_out_everywhere(stranger.id, by=owner.id),
    ):
        with pytest.raises(CoplError, match="in this study"):
            change()
    assert two.sign_in(one.sign_in_token(owner.id)) is None
