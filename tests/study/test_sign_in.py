"""Sessions of browsers: a link begins one, signing out ends it, and it opens only one's own studies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text

from copl_core.records import CoplError, Identity, LinkExpired, Role, User
from copl_core.study import access, audit_trail, sign_in
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


def test_a_page_opens_while_the_database_takes_no_change(session, olga):
    """Where the last visit is so long ago that this one is written down."""
    browser = sign_in.begin(session.store, access.sign_in_token(session, olga.id))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with writing(session.store.engine) as connection:
        connection.execute(text("update browser_session set seen_at = :at"), {"at": yesterday})
    event.listen(session.store.engine, "checkout", lambda raw, *_: raw.execute("PRAGMA query_only=ON"))
    session.store.engine.dispose()
    assert sign_in.open_study(session.store, browser, session.id) == olga
    with pytest.raises(CoplError, match="cannot be written"):
        access.join(session, "Ann")


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


def test_signing_out_everywhere_in_any_study_ends_every_link_by_which_the_owner_comes_back(session, other, olga):
    """The link of the terminal is a user's of the first study."""
    store, link = session.store, access.terminal_token(session)
    boss = access.join(other, "Boss", Role.OWNER)
    own = access.sign_in_token(session, olga.id)
    here, there = (sign_in.begin(store, link) for _ in range(2))
    assert sign_in.open_study(store, here, other.id) == boss and sign_in.open_study(store, there, session.id) == olga
    access.sign_out_everywhere(other.acting(boss.id), boss.id, browser=here)
    assert [sign_in.begin(store, one) for one in (link, own)] == [None, None]
    assert [sign_in.session_of(store, one) for one in (here, there)] == [None, None]
    assert [(one.event, one.user_id, one.detail) for one in access.audit(session)][0] == (
        "signed out", olga.id, {"user": olga.id, "tokens": 2, "browsers": 2}
    )  # fmt: skip


def test_an_owner_whom_the_terminal_signs_in_as_ends_its_links_from_any_browser(session, other, olga):
    store, link = session.store, access.terminal_token(session)
    boss = access.join(other, "Boss", Role.OWNER)
    terminal, own = sign_in.begin(store, link), begin(other, boss)
    access.sign_out_everywhere(other.acting(boss.id), boss.id, browser=own)
    assert sign_in.begin(store, link) is None and sign_in.session_of(store, terminal) is None
    assert audit_trail.changes(session)[0][0].sentence == (
        "An owner of another study signed out everywhere, which ended links of the terminal for Olga (1 sign-in link)."
    )
    fresh = sign_in.begin(store, access.terminal_token(session))
    second = access.join(other, "Second", Role.OWNER)
    access.sign_out_everywhere(other.acting(second.id), second.id)
    assert sign_in.open_study(store, fresh, other.id) == boss


def test_signing_out_everywhere_ends_the_links_of_all_studies_of_a_browser_or_an_account_and_of_nobody_else(
    session, other, olga
):
    store = session.store
    ann, ben = access.join(session, "Ann"), access.join(session, "Ben")
    anna, bea = access.join(other, "Anna"), access.join(other, "Bea")
    links = {user: access.sign_in_token(study, user.id) for study, user in
             ((session, ann), (session, ben), (other, anna), (other, bea))}  # fmt: skip
    both = begin(other, anna)
    assert sign_in.begin(store, links[ann], both) == both
    hers = begin(session, ben)
    access.sign_out_everywhere(session.acting(olga.id), ann.id)  # an owner of one study
    assert sign_in.open_study(store, both, other.id) == anna and access.sign_in(other, links[anna]) == anna
    sign_in.add(store, both, ann)
    access.sign_out_everywhere(session.acting(ann.id), ann.id, browser=hers)  # not her browser
    assert access.sign_in(session, links[ben]) == ben and access.sign_in(other, links[anna]) == anna
    sign_in.add(store, both, ann)
    identity = Identity("https://id.example", "ann", None, "Ann")
    for user in (ann, bea):
        store.connect_identity(user.id, identity)
    access.sign_out_everywhere(session.acting(ann.id), ann.id, browser=both)
    assert access.sign_in(other, links[anna]) is None and access.sign_in(other, links[bea]) is None
    assert access.sign_in(session, links[ben]) == ben and sign_in.signed_in(store, hers, session.id) == ben
    assert [entry.user_id for entry in access.audit(other) if entry.event == "signed out"] == [bea.id, anna.id]


def test_only_an_owner_makes_a_sign_in_link_for_somebody_else_and_the_record_says_so(session, olga):
    ann = access.join(session, "Ann")
    assert access.sign_in_token(session, ann.id, by=ann.id) and access.audit(session) == []
    with pytest.raises(CoplError, match="only an owner"):
        access.sign_in_token(session, olga.id, by=ann.id)
    assert access.sign_in_token(session, ann.id, by=olga.id) and access.terminal_token(session)
    assert [(entry.event, entry.user_id, entry.detail) for entry in access.audit(session)] == [
        ("sign-in link", None, {"user": olga.id, "terminal": True}),
        ("sign-in link", olga.id, {"user": ann.id, "terminal": False}),
    ]


def test_an_owner_makes_no_sign_in_link_for_somebody_of_another_study(session, other, olga):
    boss = access.join(other, "Boss", Role.OWNER)
    for one in (session, session.acting(olga.id)):
        with pytest.raises(CoplError, match="no user with id .* in this study"):
            access.sign_in_token(one, boss.id)
    with writing(session.store.engine) as connection:
        assert connection.execute(text("select count(*) from token")).scalar() == 0


# ---- the end of a link


@pytest.fixture
def clock(monkeypatch):
    """The clock of the database, which a test sets ahead."""

    class Clock:
        ahead = timedelta()

    found = Clock()
    for module in ("db.auth", "db.sessions"):
        monkeypatch.setattr(f"{module}.clock", lambda connection: datetime.now(UTC) + found.ahead)
    return found


def opens(session: Session, token: str) -> bool:
    try:
        return sign_in.begin(session.store, token) is not None
    except LinkExpired:
        return False


def days(n: float) -> timedelta:
    return timedelta(days=n)


def test_a_link_for_somebody_ends_and_who_is_signed_in_stays_so(session, olga, clock):
    ann = access.join(session, "Ann")
    links = [access.sign_in_token(session, ann.id, by=olga.id), access.terminal_token(session)]
    browser = sign_in.begin(session.store, links[0])
    clock.ahead = days(6.9)
    assert [opens(session, link) for link in links] == [True, True]  # as often as somebody opens it
    clock.ahead = days(7.1)
    assert [opens(session, link) for link in links] == [False, False]
    assert [access.sign_in(session, link) for link in links] == [None, None]
    with pytest.raises(LinkExpired, match="has expired, so nobody was signed in; ask for a new one"):
        sign_in.begin(session.store, links[0], browser)
    assert sign_in.signed_in(session.store, browser, session.id) == ann
    assert sign_in.changes(session.store, links[1], browser) is None  # no question about a link that opens nothing
    assert opens(session, access.sign_in_token(session, ann.id, by=olga.id))


def test_the_installation_sets_how_long_a_link_for_somebody_opens(session, olga, clock):
    hours = Session(session.store, replace(session.settings, link_days=0.25), session.id)
    links = [access.sign_in_token(hours, access.join(session, "Ann").id), access.terminal_token(hours)]
    assert [opens(session, link) for link in links] == [True, True] and hours.settings.link_time == "0.25 days"
    clock.ahead = days(0.3)
    assert [opens(session, link) for link in links] == [False, False]


def test_ones_own_link_lasts_half_a_year_after_its_last_use(session, clock):
    ann, joined = access.enter(session, "Ann")
    own = access.sign_in_token(session, ann.id, by=ann.id)
    for ahead in (2, 170, 340, 510):
        clock.ahead = days(ahead)
        assert opens(session, own) and not opens(session, joined)  # the page's own, for the moment of joining
    clock.ahead = days(510 + 181)
    assert not opens(session, own)


def test_a_clock_that_is_a_year_ahead_for_a_while_locks_nobody_out_and_keeps_no_link_open_for_a_year(
    session, olga, clock
):
    before, own = access.terminal_token(session), access.sign_in_token(session, olga.id, by=olga.id)
    clock.ahead = days(365)
    assert not opens(session, before) and not opens(session, own)
    ahead = access.terminal_token(session)  # as `copl link` makes one at any time
    assert opens(session, ahead)
    clock.ahead = days(1)
    assert [opens(session, link) for link in (before, own, ahead)] == [True] * 3
    clock.ahead = days(8.5)
    assert [opens(session, link) for link in (before, own, ahead)] == [False, True, False]


# ---- the list of one's own browsers

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def begin(session: Session, user: User, agent: str = "") -> str:
    return sign_in.begin(session.store, access.sign_in_token(session, user.id, by=user.id), agent=agent)


def seen(session: Session, ago: timedelta, names: str = "%") -> None:
    at = (datetime.now(UTC) - ago).replace(tzinfo=None)
    with writing(session.store.engine) as connection:
        connection.execute(text("update browser_session set seen_at = :at where name like :n"), {"at": at, "n": names})


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (FIREFOX, "Firefox on Linux"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
         "Safari on Mac"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 CriOS/140.0 Safari/604.1",
         "Chrome on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
         "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 15; SM-S928B) AppleWebKit/537.36 SamsungBrowser/28.0 Chrome/130.0 Safari/537.36",
         "Samsung Internet on Android"),
        ("Mozilla/5.0 (X11; CrOS x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/140.0 Safari/537.36",
         "Chrome on ChromeOS"),
        ("curl/8.5.0", ""),
        ("Lynx (Linux)", "A browser on Linux"),
        ("**Firefox/1** <b>\0" * 100_000, "Firefox"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_browser_is_named_by_its_program_and_system_alone(agent, name):
    assert sign_in.name_of(agent) == name


def test_a_person_sees_their_own_browsers_the_last_one_seen_first(session, olga):
    ann = access.join(session, "Ann")
    old, mine = begin(session, olga), begin(session, olga, FIREFOX)
    begin(session, ann)
    assert sign_in.open_study(session.store, old, session.id) == olga
    seen(session, timedelta(days=2), "")
    here, there = access.browsers(session.acting(olga.id), olga.id, browser=mine)
    assert (here.name, here.here, there.name, there.here) == ("Firefox on Linux", True, "", False)
    now = datetime.now(UTC)
    assert now - here.since < timedelta(minutes=5) and timedelta(days=3) > now - there.seen_at > timedelta(days=1)
    assert sign_in.open_study(session.store, old, session.id) == olga  # a visit, which is written down
    assert now - access.browsers(session, olga.id)[0].seen_at < timedelta(minutes=5)
    with pytest.raises(CoplError, match="somebody else"):
        access.browsers(session.acting(olga.id), ann.id)


def test_browsers_that_are_signed_out_or_were_away_for_long_are_not_listed_and_twenty_are(session, olga):
    sign_in.end(session.store, begin(session, olga))
    begin(session, olga, FIREFOX)
    seen(session, timedelta(days=181))
    assert access.browsers(session, olga.id) == []
    for _ in range(access.MOST_BROWSERS + 2):
        begin(session, olga)
    assert len(access.browsers(session, olga.id)) == access.MOST_BROWSERS


def test_a_person_signs_out_of_one_browser_and_of_nobody_elses(session, olga):
    ann = access.join(session, "Ann")
    mine, lost, hers = begin(session, olga), begin(session, olga, FIREFOX), begin(session, ann)
    hers_id = access.browsers(session, ann.id)[0].id
    lost_id = next(one.id for one in access.browsers(session, olga.id) if one.name)
    page = session.acting(olga.id)
    for other in (hers_id, 10**12, -1):
        with pytest.raises(CoplError, match="is signed in as you, so nothing was changed"):
            access.sign_out_browser(page, olga.id, other)
    with pytest.raises(CoplError, match="somebody else"):
        access.sign_out_browser(page, ann.id, hers_id)
    access.sign_out_browser(page, olga.id, lost_id)
    assert [sign_in.signed_in(session.store, one, session.id) for one in (mine, lost, hers)] == [olga, None, ann]
    assert sign_in.open_study(session.store, lost, session.id) is None
    with pytest.raises(CoplError, match="nothing was changed"):
        access.sign_out_browser(page, olga.id, lost_id)
    assert [(entry.event, entry.user_id, entry.detail) for entry in access.audit(session)] == [
        ("browser signed out", olga.id, {"user": olga.id})
    ]


def test_a_browser_of_several_studies_stays_in_the_others_unless_it_would_let_its_user_in_again(session, other, olga):
    store = session.store
    ann, token = access.enter(other, "Ann")
    both = begin(session, olga)
    assert sign_in.begin(store, token, both) == both
    access.sign_out_browser(session, olga.id, access.browsers(session, olga.id)[0].id, by=olga.id)
    assert sign_in.open_study(store, both, session.id) is None and sign_in.open_study(store, both, other.id) == ann

    identity = Identity("https://id.example", "olga", None, "Olga")
    store.connect_identity(olga.id, identity)
    for start in (
        lambda: sign_in.begin_with(store, identity, agent=FIREFOX),
        lambda: sign_in.begin(store, access.terminal_token(session), agent=FIREFOX),
    ):
        whole = start()
        (one,) = access.browsers(session, olga.id)
        assert one.name == "Firefox on Linux"
        access.sign_out_browser(session, olga.id, one.id, by=olga.id)
        assert sign_in.session_of(store, whole) is None
