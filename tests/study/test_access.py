"""Sign-in and permissions: secrets are stored as hashes, and nobody signs in as somebody else."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Barrier
from time import sleep
from unicodedata import normalize

import pytest
from sqlalchemy import text

from copl_core.addresses import stored_address
from copl_core.names import alike, look
from copl_core.records import CoplError, Identity, Role, User
from copl_core.study import access, accounts, contents, labelling, sign_in, user_map
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from db.auth import free_name
from db.engine import reading
from db.names import names_like
from tests.worlds import SHORT, fit_graph_now, label_in_camp, open_study

SOON = timedelta(seconds=0.05)


@pytest.fixture
def session(tmp_path) -> Session:
    return open_study(tmp_path)


@pytest.fixture
def olga(session):
    return access.join(session, "Olga", Role.OWNER)


def closed(session: Session) -> Session:
    labelling.set_assignment(session, AssignmentSettings(open=False))
    return session


# ---- by the address


def test_whoever_comes_by_the_address_gets_a_name_and_a_secret_of_their_own(session):
    ann, token = access.enter(session, " Ann ")
    assert (ann.name, ann.role) == ("Ann", Role.ANNOTATOR) and access.sign_in(session, token) == ann
    for name in ("Ann", "ann", " ANN "):
        with pytest.raises(CoplError, match="already"):
            access.enter(session, name)
    with pytest.raises(CoplError, match="empty"):
        access.enter(session, "  ")


def test_of_many_who_choose_one_name_at_once_one_gets_it(session):
    def come(_: int) -> bool:
        try:
            access.enter(session, "Ann")
        except CoplError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come, range(8))) == 1
    assert len(access.users(session)) == 1


def test_a_closed_study_lets_nobody_in_by_its_address_and_those_who_are_in_stay(session):
    ann, token = access.enter(session, "Ann")
    with pytest.raises(CoplError, match="by invitation only"):
        access.enter(closed(session), "Ben")
    assert access.sign_in(session, token) == ann


# ---- secrets


def test_signing_out_everywhere_ends_every_secret_and_new_ones_work(session, olga):
    ann = access.join(session, "Ann")
    tokens = [access.sign_in_token(session, ann.id) for _ in range(3)]
    other = access.sign_in_token(session, olga.id)
    assert access.sign_out_everywhere(session, ann.id, by=ann.id) == 3
    assert [access.sign_in(session, token) for token in tokens] == [None] * 3 and access.sign_in(session, other) == olga
    assert access.sign_in(session, access.sign_in_token(session, ann.id)) == ann
    with pytest.raises(CoplError, match="only an owner"):
        access.sign_out_everywhere(session, olga.id, by=ann.id)
    assert access.sign_out_everywhere(session, ann.id, by=olga.id) == 1
    assert [entry.event for entry in access.audit(session)].count("signed out") == 2


def test_no_secret_is_in_the_database(session, olga):
    _, invite = access.invite(session, by=olga.id)
    _, mine = access.accept_invite(session, invite, "Ann")
    secrets = [invite, mine, access.sign_in_token(session, olga.id)]
    with reading(session.store.engine) as connection:
        names = connection.execute(text("select name from sqlite_master where type = 'table'")).scalars().all()
        kept = repr([connection.execute(text(f'select * from "{name}"')).all() for name in names])
    assert not any(secret in kept for secret in secrets) and "Ann" in kept


# ---- invites


def test_an_invite_lets_in_as_many_as_it_says_with_its_role(session, olga):
    invite, secret = access.invite(session, Role.RESEARCHER, uses=2, by=olga.id)
    assert access.find_invite(session, secret) == invite and access.find_invite(session, secret + "x") is None
    ann, token = access.accept_invite(session, secret, "Ann")
    assert (ann.role, access.sign_in(session, token)) == (Role.RESEARCHER, ann)
    ben, _ = access.accept_invite(session, secret, "Ben")
    assert access.find_invite(session, secret) is None
    with pytest.raises(CoplError, match="used up"):
        access.accept_invite(session, secret, "Cem")
    ((after, state),) = access.invites(session)
    assert (after.used, after.uses, after.by, state) == (2, 2, olga.id, "used up")
    assert [(entry.event, entry.user_id) for entry in access.audit(session)] == [
        ("invite accepted", ben.id),
        ("invite accepted", ann.id),
        ("invite", olga.id),
    ]


def test_an_invite_for_one_lets_one_in_however_many_press_at_once(session, olga):
    _, secret = access.invite(session, by=olga.id)

    def come(n: int) -> bool:
        try:
            access.accept_invite(session, secret, f"Guest {n}")
        except CoplError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(come, range(8))) == 1
    assert len(access.users(session)) == 2


def test_a_taken_name_costs_no_use_and_lets_nobody_in_as_another(session, olga):
    _, secret = access.invite(session, by=olga.id)
    with pytest.raises(CoplError, match="already"):
        access.accept_invite(session, secret, "olga")
    assert access.accept_invite(session, secret, "Ann")[0].role == Role.ANNOTATOR


def test_an_invite_ends_when_it_is_revoked_or_expires(session, olga):
    invite, secret = access.invite(session, uses=None, by=olga.id)
    access.accept_invite(session, secret, "Ann")
    access.revoke_invite(session, invite.id, by=olga.id)
    access.revoke_invite(session, invite.id, by=olga.id)
    short, brief = access.invite(session, uses=None, expires_at=datetime.now(UTC) + SOON, by=olga.id)
    sleep(max(0.0, (short.expires_at - datetime.now(UTC)).total_seconds()) + 0.01)
    for ended, word in ((secret, "revoked"), (brief, "expired"), ("nonsense", "unknown")):
        assert access.find_invite(session, ended) is None
        with pytest.raises(CoplError, match=word):
            access.accept_invite(session, ended, "Ben")
    assert [state for _, state in access.invites(session)] == ["expired", "revoked"]
    assert [entry.event for entry in access.audit(session)].count("invite revoked") == 1


def test_an_invite_that_would_be_of_no_use_is_not_made(session, olga):
    with pytest.raises(CoplError, match="1 or more"):
        access.invite(session, uses=0, by=olga.id)
    with pytest.raises(CoplError, match="later"):
        access.invite(session, expires_at=datetime.now(UTC) - SOON, by=olga.id)


def test_an_invite_opens_a_closed_study(session, olga):
    _, secret = access.invite(closed(session), by=olga.id)
    assert access.accept_invite(session, secret, "Ann")[0].name == "Ann"


# ---- e-mail addresses


def by_account(session: Session, address: str | None, name: str = "", subject: str | None = None) -> User | None:
    """As whom a new browser opens the study whose account at a provider has this verified address."""
    identity = Identity("https://id.example", subject or f"subject of {address}", address, name)
    return sign_in.open_study(session.store, sign_in.begin_with(session.store, identity), session.id)


def test_an_address_signs_in_with_its_role_and_is_one_user_ever_after(session, olga):
    access.set_email(closed(session), "Ann@Example.org", Role.RESEARCHER, by=olga.id)
    ann = by_account(session, "ann@example.org")
    assert (ann.name, ann.role) == ("ann", Role.RESEARCHER)
    assert by_account(session, "ann@example.org", name="Somebody else") == ann
    assert access.set_email(session, "ann@example.org", Role.ANNOTATOR, by=olga.id).user_id == ann.id
    assert by_account(session, "ann@example.org").role == Role.ANNOTATOR
    assert [entry.event for entry in access.audit(session)][:3] == ["e-mail", "role", "account"]


def test_an_address_without_a_rule_opens_nothing_by_itself(session):
    assert by_account(session, "ann@example.org") is None and by_account(closed(session), "ann@example.org") is None


def test_two_people_of_one_name_are_two_users(session):
    for host in ("example.org", "example.com"):
        access.set_email(session, f"ann@{host}", Role.ANNOTATOR)
    first, second = (by_account(session, f"ann@{host}") for host in ("example.org", "example.com"))
    assert first.id != second.id and {first.name, second.name} == {"ann", "ann 2"}


def test_an_account_is_read_from_its_claims_alone_where_they_have_their_types():
    claims = {"iss": "https://id.example", "sub": "7", "email": " Ann@Example.ORG", "email_verified": True}
    expected = Identity("https://id.example", "7", "ann@example.org", "Ann B.")
    assert accounts.identity_of(claims | {"name": " Ann\u200b  B.\n"}) == expected
    for unseen in ("\u3164", "Ann\u3164", "A\u115fnn", "\u2800\u2800", "Ann\ufe0f", "\u200b"):
        assert accounts.identity_of(claims | {"name": unseen}).name == "", "the address names them then"
    for seen in ("Ann \u2764\ufe0f", "\u0410\u043d\u043d\u0430", "\uc548\ub098", "\u0623\u0646"):
        assert accounts.identity_of(claims | {"name": seen}).name == seen
    assert accounts.identity_of(claims | {"email": "no address"}).address is None
    with pytest.raises(CoplError, match="'sub' is 7; it must be a text"):
        accounts.identity_of(claims | {"sub": 7})
    with pytest.raises(CoplError, match="'iss' is missing"):
        accounts.identity_of({"sub": "7"})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ann@strasse.de", "ann@straße.de"),
        ("sam@example.org", "ſam@example.org"),
        ("kim@example.org", "\u212aim@example.org"),
        ("änn@example.org", "Änn@example.org"),
        ("a;b@example.org", "a\u037eb@example.org"),
    ],
)
def test_no_address_is_that_of_somebody_else(session, ours, theirs):
    access.set_email(closed(session), ours, Role.OWNER)
    assert by_account(session, accounts.identity_of(claims_of(theirs)).address) is None
    assert access.set_email(session, theirs, Role.ANNOTATOR).user_id is None
    assert len(access.emails(session)) == 2
    assert by_account(session, accounts.identity_of(claims_of(theirs)).address).role == Role.ANNOTATOR
    assert by_account(session, accounts.identity_of(claims_of(ours.upper() if ours.isascii() else ours)).address)


def claims_of(address: str) -> dict[str, object]:
    return {"iss": "https://id.example", "sub": address, "email": address, "email_verified": True}


def test_an_address_has_one_form_and_nothing_becomes_an_ascii_letter():
    assert stored_address(" a\u0308nn@Example.ORG") == stored_address("\u00e4nn@example.org") == "\u00e4nn@example.org"
    for one in filter(lambda letter: normalize("NFC", letter) != letter, map(chr, range(0x80, 0x30000))):
        one = stored_address(f"x{one}@y")
        assert not one.isascii()
        assert stored_address(one) == one


@pytest.mark.parametrize("address", ["", "ann", "@example.org", "ann@", "ann @example.org", "x" * 320 + "@y"])
def test_what_is_not_an_address_is_refused(session, address):
    with pytest.raises(CoplError, match="not an e-mail address"):
        access.set_email(session, address, Role.ANNOTATOR)


# ---- roles and exclusion


def test_a_study_keeps_an_owner(session, olga):
    ann = access.join(session, "Ann")
    with pytest.raises(CoplError, match="only owner"):
        access.set_role(session, olga.id, Role.RESEARCHER, by=olga.id)
    access.set_role(session, ann.id, Role.OWNER, by=olga.id)
    assert access.set_role(session, olga.id, Role.ANNOTATOR, by=ann.id).role == Role.ANNOTATOR
    access.set_email(session, "ann@example.org", Role.OWNER, by=ann.id)
    with pytest.raises(CoplError, match="only owner"):
        access.set_role(session, ann.id, Role.RESEARCHER)
    assert [entry.detail["after"] for entry in access.audit(session) if entry.event == "role"] == ["annotator", "owner"]


def test_only_owners_change_roles_exclusion_and_access(session, olga):
    ann, ben = access.join(session, "Ann", Role.RESEARCHER), access.join(session, "Ben")
    invite, _ = access.invite(session, by=olga.id)
    for change in (
        lambda: access.set_role(session, ann.id, Role.OWNER, by=ann.id),
        lambda: access.invite(session, by=ann.id),
        lambda: access.exclude(session, ben.id, True, by=ann.id),
        lambda: access.revoke_invite(session, invite.id, by=ann.id),
        lambda: access.set_email(session, "ann@example.org", Role.OWNER, by=ann.id),
    ):
        with pytest.raises(CoplError, match="Ann is researcher here; only an owner"):
            change()
    assert access.exclude(session, ben.id, True, by=olga.id).excluded


def test_an_owner_of_one_study_is_nobody_in_another(tmp_path):
    one = open_study(tmp_path)
    owner = access.join(one, "Olga", Role.OWNER)
    two = Session(one.store, one.settings, one.store.create_study("Another").id)
    outsider, (invite, _) = access.join(two, "Eve"), access.invite(two)
    for change in (
        lambda: access.invite(two, by=owner.id),
        lambda: access.set_role(one, outsider.id, Role.OWNER, by=owner.id),
        lambda: access.exclude(one, outsider.id, True, by=owner.id),
        lambda: access.revoke_invite(one, invite.id, by=owner.id),
        lambda: access.sign_out_everywhere(one, outsider.id, by=owner.id),
    ):
        with pytest.raises(CoplError, match="in this study"):
            change()
    assert access.sign_in(two, access.sign_in_token(one, owner.id)) is None


def test_names_are_checked_and_secrets_sign_in_whom_they_were_made_for(untrained):
    ann = access.join(untrained, "  Ann ", Role.RESEARCHER)
    assert access.join(untrained, "Ann") == ann  # one user of a name, whose role is not changed by the way
    token = access.sign_in_token(untrained, ann.id)
    assert access.sign_in(untrained, token) == ann and access.sign_in(untrained, token + "x") is None
    refused = {
        "": "empty",
        "   ": "empty",
        "x" * 81: "1 to 80",
        "An\u200bn": r"An⟨U\+200B⟩n",
        "A\u202enn": "nobody can see",
    }
    blank = ["A\0nn", "Ann\ufe0f", "Ann\u034f", "\u3164", "\u2800", "A\u115fnn", "Ann\U000e0101", "An\U000e0041n"]
    for name, problem in (refused | dict.fromkeys(blank, "nobody can see")).items():
        with pytest.raises(CoplError, match=problem):
            access.join(untrained, name)
    for name in ("Zoë ❤\ufe0f", "نام\u200cه", "Åsa Öberg", "李雷", "O'Neil-2"):
        assert access.join(untrained, name).name == name


@pytest.mark.parametrize("name", ["ann", "ＡＮＮ", "A\u00adnn", "Ann\u200d", "Аnn", "ΑNN", "аnn", "Ann\ufe0f"])
def test_nobody_joins_under_a_name_that_looks_like_anothers(untrained, name):
    access.join(untrained, "Ann")
    with pytest.raises(CoplError, match="looks like Ann|nobody can see|already"):
        access.enter(untrained, name)
    assert [user.name for user in access.users(untrained)].count("Ann") == 1
    assert name not in [user.name for user in access.users(untrained)]


@pytest.mark.parametrize(
    ("known", "name"), [("Åsa", "A\u030asa"), ("李雷", "李\u2f00雷"[:1] + "雷"), ("ﬁona", "Fiona")]
)
def test_names_with_other_letters_are_compared_too(untrained, known, name):
    access.join(untrained, known)
    with pytest.raises(CoplError, match=f"looks like {known}|already"):
        access.enter(untrained, name)


def test_of_two_look_alikes_who_come_at_once_one_gets_in(untrained):
    names = [f"{first}ook {n}" for n in range(8) for first in ("L", "Ｌ")]
    came = Barrier(4)

    def come(name: str) -> bool:
        came.wait()
        try:
            return bool(access.enter(untrained, name))
        except CoplError as refused:
            assert "looks like" in str(refused)
            return False

    with ThreadPoolExecutor(4) as pool:
        entered = list(pool.map(come, names))
    assert [entered[n] + entered[n + 1] for n in range(0, len(names), 2)] == [1] * 8


def test_a_name_of_an_account_that_looks_like_another_gets_a_number(untrained):
    access.join(untrained, "Ann")
    with untrained.store.engine.connect() as connection:
        assert free_name(connection, untrained.id, "Аnn") == "Аnn 2"


NUMBERED = ["Person 1", "Person 10", "Person 11", "Person 100", "Rater 10", "user 1", "Max1", "Ella", "Lia", "P0"]


@pytest.mark.parametrize(
    ("known", "name"),
    [
        *(("Owner", name) for name in ("0wner", "OWNER", "٠wner", "०wner", "０wner")),
        *(("Alice", name) for name in ("A1ice", "AIice", "Al1ce", "A11ce", "A|ice", "Aǀice")),
        ("Rater 10", "Rater 1O"),
        ("Rater 10", "Rater lo"),
        ("user 10", "user I0"),
        ("Max1", "Maxl"),
        ("Max1", "MAXI"),
        ("PAUL", "Pau1"),
        ("a1", "al"),
    ],
)
def test_digits_and_strokes_that_look_like_letters_are_letters(untrained, known, name):
    for first, second in ((known, name), (name, known)):
        assert alike(first, second) and look(first) == look(second)
    access.join(untrained, known)
    with pytest.raises(CoplError, match=re.escape(f"looks like {known}") + "|already"):
        access.enter(untrained, name)


def test_people_with_numbers_and_short_names_are_other_people(untrained):
    for name in (*NUMBERED, "Person I", "user l", "Maxi", "Elia", "Ila", "P1"):
        assert access.enter(untrained, name)[0].name == name
    assert len(access.users(untrained)) == len(NUMBERED) + 6


def test_a_name_that_can_be_taken_for_another_is_found_by_what_both_look_like():
    rng = Random(0)
    for _ in range(20_000):
        name, other = ("".join(rng.choice("01lLiIoO| ıAі") for _ in range(rng.randint(1, 3))) for _ in range(2))
        assert alike(name, other) == alike(other, name) and alike(name, name)
        assert look(name) == look(other) or not alike(name, other), (name, other)


def test_people_of_an_earlier_version_whose_names_look_alike_stay(untrained):
    for name in ("Alice", "A1ice", "AIice"):
        untrained.store.create_user(untrained.id, name)
    assert [user.name for user in access.users(untrained)] == ["Alice", "A1ice", "AIice"]
    assert access.join(untrained, "A1ice").name == "A1ice" and len(access.users(untrained)) == 3
    with pytest.raises(CoplError, match="The name Al1ce looks like Alice"):
        access.enter(untrained, "Al1ce")
    with pytest.raises(CoplError, match="'A1ice' is already in use"):
        access.enter(untrained, "A1ice")


def test_a_newcomer_reads_the_names_that_may_be_taken_for_theirs_and_no_others(untrained):
    for name in ("Bo", "ANN", "Müller", "Cleo"):
        access.join(untrained, name)
    with untrained.store.engine.connect() as connection:
        assert sorted(names_like(connection, untrained.id, "ann")) == ["ANN", "Müller"]
        assert names_like(connection, untrained.id, "cleo").count("Müller") == 1
    assert access.enter(untrained, "Anna")[0].name == "Anna"


def test_letters_of_every_script_and_joined_emoji_are_names(untrained):
    for name in ("Müller", "Øyvind", "李雷", "نگار", "می\u200cخواهم", "👩\u200d💻"):
        assert access.enter(untrained, name)[0].name == name


def test_simulated_people_can_be_switched_off_and_on_again(trained):
    ann = access.join(trained, "Ann")
    label_in_camp(trained, ann.id, SHORT, 12)
    access.include_simulated(trained, False)
    assert [user.name for user in access.users(trained)] == ["Ann"]
    assert user_map.map_of_users(trained).names.tolist() == ["Ann"]
    assert trained.store.label_count(trained.id) == 12
    assert {row["annotator"] for row in contents.export(trained)} == {"Ann"}
    fit_graph_now(trained)
    assert trained.snapshot().graph.user_ids.tolist() == [ann.id]
    access.include_simulated(trained, True)
    assert len(access.users(trained)) == 17 and trained.store.label_count(trained.id) == 172
