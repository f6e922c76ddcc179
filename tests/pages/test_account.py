"""The part of every page in the sidebar: a person's own browsers, and the end of one of them."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from copl_core.records import Identity, Role
from copl_core.study import access, sign_in

LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def script() -> None:
    from pages.account import account

    account()


@pytest.fixture
def open_account(session):
    """The account of a user in the browser of a secret."""

    def draw(user, browser: str, *, opened: bool = True, script=script, **more: object):
        page = AppTest.from_function(script, default_timeout=30)
        state = {"session": session, "user": user, "browser": browser, "studies": tuple, "browsers": opened}
        state["again"] = lambda: sign_in.signed_in(session.store, browser, session.id)
        for name, value in (state | more).items():
            page.session_state[name] = value
        page.run()
        assert not page.exception, page.exception[0].message
        return page

    return draw


def begin(session, user, agent: str = "") -> str:
    return sign_in.begin(session.store, access.sign_in_token(session, user.id, by=user.id), agent=agent)


def test_a_person_sees_their_browsers_and_signs_out_of_one(session, owner, open_account, words):
    mine, lost = begin(session, owner, LINUX), begin(session, owner)
    begin(session, access.join(session, "Ann"), LINUX.replace("Linux", "Windows"))
    page = open_account(owner, mine)
    shown = words(page)
    assert "**Firefox on Linux**" in shown and "This browser. Signed in today." in shown
    assert "**A browser**" in shown and "Last seen today. Signed in today." in shown and "Windows" not in shown
    (there,) = (one for one in page.button if one.label == "Sign out there")
    there.click().run()
    assert not page.exception and not page.toast and "A browser" not in words(page)
    assert sign_in.signed_in(session.store, lost, session.id) is None
    assert sign_in.signed_in(session.store, mine, session.id) == owner


def test_a_list_that_is_old_says_so_and_changes_nothing(session, owner, open_account):
    mine, lost = begin(session, owner), begin(session, owner)
    page = open_account(owner, mine)
    sign_in.end(session.store, lost)
    next(one for one in page.button if one.label == "Sign out there").click().run()
    assert "so nothing was changed" in page.toast[0].value
    assert sign_in.signed_in(session.store, mine, session.id) == owner


def test_a_tab_of_a_browser_that_was_signed_out_elsewhere_acts_no_more(session, owner, open_account):
    mine, lost = begin(session, owner), begin(session, owner)
    tab = open_account(owner, lost)
    here = next(one for one in access.browsers(session, owner.id, browser=lost) if one.here)
    access.sign_out_browser(session, owner.id, here.id, by=owner.id)
    next(one for one in tab.button if one.label == "Sign out there").click().run()
    assert [one.value for one in tab.error] == [sign_in.SIGNED_OUT]
    assert sign_in.signed_in(session.store, mine, session.id) == owner


def test_the_browsers_are_looked_up_once_the_list_is_open(session, owner, open_account, monkeypatch):
    monkeypatch.setattr(access, "browsers", None)
    assert not open_account(owner, begin(session, owner), opened=False).error


def test_a_day_is_near_or_has_its_date():
    from datetime import UTC, datetime, timedelta

    from pages.account import day_words

    now = datetime.now(UTC)
    assert [day_words(now - timedelta(days=days)) for days in (0, 1)] == ["today", "yesterday"]
    assert day_words(datetime(2025, 3, 1, 12, tzinfo=UTC)) == "on 1 Mar 2025"


def test_a_link_for_ones_own_devices_is_no_line_of_the_record(session, open_account):
    rae = access.join(session, "Rae", Role.RESEARCHER)
    page = open_account(rae, begin(session, rae))
    page.button(key="own-link").click().run()
    assert "/?token=" in page.code[0].value
    assert {entry.event for entry in access.audit(session)} <= {"import"}


def test_signing_out_everywhere_is_asked_first_and_says_what_stops_and_who_lets_one_in_again(
    session, owner, open_account, words
):
    ann = access.join(session, "Ann")
    link = access.sign_in_token(session, ann.id)
    mine = sign_in.begin(session.store, link)
    page = open_account(ann, mine)
    assert [one.label for one in page.button if "everywhere" in one.label] == []
    page = open_account(ann, mine, everywhere=True)
    assert "also the one that you saved" in words(page) and "An owner of the study makes the link" in words(page)
    assert access.sign_in(session, link) == ann
    page.button(key="sign-out-everywhere").click().run()
    assert access.sign_in(session, link) is None and sign_in.signed_in(session.store, mine, session.id) is None


def test_an_owner_reads_which_studies_and_owners_a_sign_out_everywhere_is_about(session, owner, open_account, words):
    access.join(session, "Olga *2*", Role.OWNER)
    for name in ("B", "C", "D_e_", "E", "F"):
        access.create_study(session, name, browser="", by=owner.id)
    studies = session.store.studies
    shown = words(open_account(owner, begin(session, owner), everywhere=True, studies=studies))
    assert "here and in B, C, D\\_e\\_ and 2 others" in shown
    assert "`copl link` in a terminal of the studio’s machine or Olga \\*2\\* lets you in again." in shown
    session.store.connect_identity(owner.id, Identity("https://id.example", "olga", None, "Olga"))
    shown = words(open_account(owner, begin(session, owner), everywhere=True))
    assert "Your account signs you in again" in shown


def test_the_study_is_named_once(session, owner, open_account, words):
    browser = begin(session, owner)
    assert session.record.name in words(open_account(owner, browser, studies=session.store.studies))
    access.create_study(session, "Second", browser=browser, by=owner.id)
    page = open_account(owner, browser, studies=session.store.studies)
    assert len(page.selectbox) == 1 and session.record.name not in words(page) and "Signed in as Olga" in words(page)


def test_somebody_who_is_signed_out_has_no_menu_that_names_them(session, owner, open_account, sent):
    browser = begin(session, owner)
    page = open_account(owner, browser)
    assert "stSidebar]" not in sent(page)
    sign_in.end(session.store, browser)
    page.run()
    assert [one.value for one in page.error] == [sign_in.SIGNED_OUT] and "stSidebar]" in sent(page)


def joined(session, name: str):
    user, token = access.enter(session, name)
    browser = sign_in.begin(session.store, token)
    sign_in.set_link_due(session.store, browser, user, True)
    return user, browser


def test_who_has_kept_no_link_is_reminded_before_signing_out_until_they_have(session, open_account, words):
    ann, browser = joined(session, "Ann")
    page = open_account(ann, browser)  # another tab, or the same one after a reload
    assert "Without it you do not come back to your answers" in words(page)
    assert page.button(key="sign-out").label == "Sign out without it"
    elsewhere = sign_in.begin(session.store, access.sign_in_token(session, ann.id, by=ann.id))
    for one in (browser, elsewhere):  # they have used a link
        page = open_account(ann, one)
        assert page.button(key="sign-out").label == "Sign out" and "come back" not in words(page)
    page.button(key="sign-out").click().run()
    assert sign_in.signed_in(session.store, elsewhere, session.id) is None


def test_who_has_an_account_needs_no_link(session, open_account, words):
    ann, browser = joined(session, "Ann")
    session.store.connect_identity(ann.id, Identity("https://id.example", "ann", None, "Ann"))
    for more in ({}, {"joined": True}):
        assert open_account(ann, browser, **more).button(key="sign-out").label == "Sign out"


def test_the_link_comes_back_after_a_reload_until_it_is_kept_and_is_one_closed_line(session, open_account, words):
    def welcomed() -> None:
        from pages.account import welcome

        welcome()

    ann, token = access.enter(session, "Ann")
    browser = sign_in.begin(session.store, token)
    page = open_account(ann, browser, script=welcomed, joined=True)
    (closed,) = page.expander
    assert closed.label == "Keep your own sign-in link" and not closed.proto.expanded and not page.code
    page = open_account(ann, browser, script=welcomed, **{"welcome-link": True})  # after a reload
    secret = page.code[0].value.partition("token=")[2]
    assert access.sign_in(session, secret) == ann and "until you say that you have kept it" in words(page)
    page.button(key="link-kept").click().run()
    assert not page.expander and not open_account(ann, browser, script=welcomed).expander
