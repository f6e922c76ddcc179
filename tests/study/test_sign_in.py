"""Sessions of browsers: a link begins one, signing out ends it, and it opens only one's own studies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from copl_core.records import CoplError, Role
from copl_core.study import access, sign_in
from copl_core.study.session import Session
from db.engine import reading, writing
from tests.worlds import open_study


@pytest.fixture
def session(tmp_path) -> Session:
    return open_study(tmp_path)


@pytest.fixture
def other(session) -> Session:
    """A second study of the same installation."""
    return Session(session.store, session.settings, session.store.create_study("Second").id)


@pytest.fixture
def olga(session):
    return access.join(session, "Olga", Role.OWNER)


def test_a_link_begins_a_session_and_the_store_keeps_no_secret_of_it(session, olga):
    browser = sign_in.begin(session.store, access.sign_in_token(session, olga.id))
    assert sign_in.signed_in(session.store, browser, session.id) == olga
    assert sign_in.begin(session.store, "no token") is None
    with reading(session.store.engine) as connection:
        assert browser not in repr(connection.execute(text("select * from browser_session")).all())


def test_signing_out_ends_one_browser_and_signing_out_everywhere_ends_all(session, olga):
    one, two, three = (sign_in.begin(session.store, access.sign_in_token(session, olga.id)) for _ in range(3))
    sign_in.end(session.store, one)
    assert sign_in.signed_in(session.store, one, session.id) is None
    assert sign_in.signed_in(session.store, two, session.id) == olga
    access.sign_out_everywhere(session, olga.id, by=olga.id)
    assert [sign_in.signed_in(session.store, browser, session.id) for browser in (two, three)] == [None, None]


def test_a_session_is_looked_up_with_the_role_of_now(session, olga):
    ann, token = access.enter(session, "Ann")
    browser = sign_in.begin(session.store, token)
    access.set_role(session, ann.id, Role.RESEARCHER, by=olga.id)
    assert sign_in.signed_in(session.store, browser, session.id).role == Role.RESEARCHER


def test_a_session_ends_half_a_year_after_the_last_visit(session, olga):
    browser = sign_in.begin(session.store, access.sign_in_token(session, olga.id))
    long_ago = datetime.now(UTC) - timedelta(days=181)
    with writing(session.store.engine) as connection:
        connection.execute(text("update browser_session set seen_at = :at"), {"at": long_ago.replace(tzinfo=None)})
    assert sign_in.signed_in(session.store, browser, session.id) is None
    assert sign_in.session_of(session.store, browser) is None


def test_one_browser_is_in_several_studies_and_opens_no_other(session, other, olga):
    store = session.store
    browser = sign_in.begin(store, access.sign_in_token(session, olga.id))
    assert sign_in.open_study(store, browser, other.id) is None
    ann, token = access.enter(other, "Ann")
    assert sign_in.begin(store, token, browser) == browser
    assert sign_in.open_study(store, browser, other.id) == ann
    assert sign_in.open_study(store, browser, session.id) == olga
    found = sign_in.session_of(store, browser)
    assert [study.id for study in found.studies] == [session.id, other.id] and found.last == session.id


def test_a_link_of_somebody_else_begins_a_new_session_so_that_open_tabs_stay_who_they_are(session, olga):
    mine = sign_in.begin(session.store, access.sign_in_token(session, olga.id))
    ann, token = access.enter(session, "Ann")
    hers = sign_in.begin(session.store, token, mine)
    assert hers != mine and sign_in.signed_in(session.store, hers, session.id) == ann
    assert sign_in.signed_in(session.store, mine, session.id) == olga


def test_the_terminals_link_opens_every_study_as_its_owner_and_an_owners_link_does_not(session, other, olga):
    boss = access.join(other, "Boss", Role.OWNER)
    ben = access.join(session, "Ben", Role.OWNER)
    browser = sign_in.begin(session.store, access.terminal_token(session))
    assert sign_in.open_study(session.store, browser, session.id) == olga
    assert sign_in.open_study(session.store, browser, other.id) == boss
    made_by_ben = sign_in.begin(session.store, access.sign_in_token(session, olga.id, by=ben.id))
    assert sign_in.open_study(session.store, made_by_ben, other.id) is None


def test_signing_the_owner_out_everywhere_ends_the_terminals_sessions_too(session, other, olga):
    access.join(other, "Boss", Role.OWNER)
    browser = sign_in.begin(session.store, access.terminal_token(session))
    access.sign_out_everywhere(session, olga.id, by=olga.id)
    assert sign_in.session_of(session.store, browser) is None


def test_only_an_owner_makes_a_sign_in_link_for_somebody_else(session, olga):
    ann = access.join(session, "Ann")
    assert access.sign_in_token(session, ann.id, by=ann.id) and access.sign_in_token(session, ann.id, by=olga.id)
    with pytest.raises(CoplError, match="only an owner"):
        access.sign_in_token(session, olga.id, by=ann.id)
