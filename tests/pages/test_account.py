"""The part of every page in the sidebar: a person's own browsers, and the end of one of them."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from copl_core.records import Role
from copl_core.study import access, sign_in

LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def script() -> None:
    from pages.account import account

    account()


@pytest.fixture
def open_account(session):
    """The account of a user in the browser of a secret."""

    def draw(user, browser: str, *, opened: bool = True):
        page = AppTest.from_function(script, default_timeout=30)
        state = {"session": session, "user": user, "browser": browser, "studies": tuple, "browsers": opened}
        state["again"] = lambda: sign_in.signed_in(session.store, browser, session.id)
        for name, value in state.items():
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
