"""A page that was opened before a change acts with the rights of now: after a sign-out, a lower role, an exclusion, a
departure, a revoked invite.
"""

from __future__ import annotations

import inspect

import pytest

from copl_core.records import Choice, CoplError, Identity, Role
from copl_core.study import access, accounts, contents, labelling, service_tokens, sign_in
from copl_core.study.roles import ROLES
from copl_core.study.session import Session
from tests.study.test_roles import VERBS, call
from tests.worlds import open_study, pairs_to_label

ABOVE = sorted(
    verb for verb, needed in ROLES.items() if needed.role in (Role.OWNER, Role.RESEARCHER) and not needed.own
)
OF_MEMBERS = sorted(verb for verb, needed in ROLES.items() if needed.role is not None)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    session = open_study(tmp_path_factory.mktemp("stale"))
    contents.import_rows(session, pairs_to_label(6))
    access.join(session, "Olga", Role.OWNER)
    return session


@pytest.fixture(scope="module")
def demoted(session) -> Session:
    """The page of somebody who was an owner when it was opened, and is an annotator now."""
    boss = access.join(session, "Boss", Role.OWNER)
    page = session.acting(boss.id)
    assert access.emails(page) == []
    access.set_role(session, boss.id, Role.ANNOTATOR)
    return page


@pytest.fixture(scope="module")
def left(session) -> Session:
    """The page of somebody who has left since it was opened."""
    page = session.acting(access.join(session, "Lea", Role.OWNER).id)
    assert access.emails(page) == []
    session.store.forget_user(page.actor, fewest={"graph": 10, "full": 40})
    return page


@pytest.mark.parametrize("verb", ABOVE)
def test_after_a_lower_role_a_page_does_nothing_of_the_old_one(demoted, verb):
    with pytest.raises(CoplError, match="Boss is annotator here"):
        call(demoted, verb)


@pytest.mark.parametrize("verb", OF_MEMBERS)
def test_after_leaving_a_page_does_nothing_at_all(left, verb):
    own = {"user_id": left.actor} if "user_id" in inspect.signature(VERBS[verb]).parameters else {}
    with pytest.raises(CoplError, match="in this study"):
        call(left, verb, **own)


def here(session: Session, browser: str, user_id: int) -> None:
    sign_in.end(session.store, browser)


def everywhere(session: Session, browser: str, user_id: int) -> None:
    access.sign_out_everywhere(session, user_id)


def disconnected(session: Session, browser: str, user_id: int) -> None:
    accounts.disconnect(session, user_id)


def refused(session: Session, browser: str, user_id: int) -> None:
    access.set_email(session, "kim@example.org", None)


def test_what_a_refused_person_made_lets_nobody_in_any_more(tmp_path):
    session = open_study(tmp_path)
    access.join(session, "Olga", Role.OWNER)
    access.set_email(session, "kim@example.org", Role.OWNER)
    browser = sign_in.begin_with(session.store, Identity("https://id.example", "kim", "kim@example.org", "Kim"))
    kim = sign_in.open_study(session.store, browser, session.id)
    access.invite(session, Role.OWNER, by=kim.id)
    _, secret = service_tokens.make_token(session, "program", by=kim.id)
    assert service_tokens.token_of(session.store, secret) is not None
    refused(session, browser, kim.id)
    assert [state for _, state in access.invites(session)] == ["revoked"]
    assert service_tokens.token_of(session.store, secret) is None


@pytest.mark.parametrize("end", [here, everywhere, disconnected, refused])
def test_after_a_sign_out_an_open_tab_is_nobody(tmp_path, end):
    session = open_study(tmp_path)
    access.join(session, "Olga", Role.OWNER)
    access.set_email(session, "kim@example.org", Role.RESEARCHER)
    browser = sign_in.begin_with(session.store, Identity("https://id.example", "kim", "kim@example.org", "Kim"))
    kim = sign_in.open_study(session.store, browser, session.id)
    assert sign_in.signed_in(session.store, browser, session.id) == kim
    end(session, browser, kim.id)
    assert sign_in.signed_in(session.store, browser, session.id) is None  # what a page asks before each act
    assert sign_in.open_study(session.store, browser, session.id) is None


def test_after_an_exclusion_answers_are_stored_and_not_learned_from(session):
    ann = access.join(session, "Ann")
    page = session.acting(ann.id)
    task = labelling.next_task(page, ann.id)
    before = len(session.store.training_data(session.id).labels.user)
    access.exclude(session, ann.id, True)
    assert labelling.submit(page, task.id, ann.id, Choice.LEFT).label is not None
    assert len(labelling.history(page, ann.id)) == 1
    assert len(session.store.training_data(session.id).labels.user) == before


def test_after_an_invite_is_revoked_its_open_page_lets_nobody_in(session):
    made, secret = access.invite(session, Role.OWNER)
    assert access.find_invite(session, secret) is not None  # the page that asks for a name is open
    access.revoke_invite(session, made.id)
    with pytest.raises(CoplError, match="revoked"):
        access.accept_invite(session, secret, "Ivy")
    assert "Ivy" not in {user.name for user in access.users(session)}


def test_after_a_token_of_a_program_is_revoked_it_is_unknown(session):
    made, secret = service_tokens.make_token(session, "monitor")
    assert service_tokens.token_of(session.store, secret) is not None
    service_tokens.revoke_token(session, made.name)
    assert service_tokens.token_of(session.store, secret) is None
