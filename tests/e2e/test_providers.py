"""Sign-in with an identity provider, in a browser: an invite, signing out and in again, a connected account."""

from __future__ import annotations

import pytest

from copl_core.__main__ import open_study
from copl_core.config import Settings
from copl_core.records import Role
from copl_core.study import access
from tests.e2e.conftest import TwoCampsApp, free_port

SECRETS = """[auth]
redirect_uri = "http://localhost:{port}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "copl"
client_secret = "a secret of the client"
server_metadata_url = "{server}/.well-known/openid-configuration"
"""


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("authlib", reason="Authlib is not installed")
    from tests.openid_server import OpenIdServer

    server = OpenIdServer(free_port()).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def app(tmp_path_factory, server):
    home, port = tmp_path_factory.mktemp("provider"), free_port()
    (home / ".streamlit").mkdir()
    (home / ".streamlit" / "secrets.toml").write_text(SECRETS.format(port=port, server=server.url))
    app = TwoCampsApp(tmp_path_factory, home / "study", port, HOME=str(home))
    try:
        yield app.wait()
    finally:
        app.stop()


@pytest.fixture
def page(browser, server):
    server.reset()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def test_an_invite_a_sign_out_and_a_sign_in_with_a_provider(app, page, settled):
    session = open_study(Settings(home=app.home))
    _, invite = access.invite(session, Role.RESEARCHER)
    page.goto(f"{app.url}/?invite={invite}")
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    name = page.get_by_label("Your name or a nickname")
    name.wait_for()
    assert name.input_value() == "Ann"
    page.get_by_role("button", name="Begin").click()
    page.get_by_text("Signed in as Ann").wait_for()
    assert "invite" not in settled(page).url
    page.get_by_role("button", name="Account").click()
    page.get_by_text("ann@example.org").wait_for()
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    page.get_by_text("Signed in as Ann").wait_for()


def test_an_account_is_connected_to_who_is_signed_in_by_a_link(app, page, server, settled):
    session = open_study(Settings(home=app.home))
    bea = access.join(session, "Bea")
    server.claims |= {"sub": "bea", "email": "bea@example.org"}
    page.goto(f"{app.url}/?token={access.sign_in_token(session, bea.id)}")
    page.get_by_text("Signed in as Bea").wait_for()
    settled(page).get_by_role("button", name="Account").click()
    page.get_by_role("button", name="Connect an account").click()
    page.wait_for_function("!document.body.innerText.includes('Connect an account')")
    settled(page).get_by_role("button", name="Account").click()
    page.get_by_text("bea@example.org").wait_for()


def test_an_account_without_access_is_told_what_to_do(app, page, server):
    server.claims |= {"sub": "kim", "email": "kim@example.org", "email_verified": False}
    session = open_study(Settings(home=app.home))
    made, invite = access.invite(session)
    access.revoke_invite(session, made.id)
    page.goto(f"{app.url}/?invite={invite}")
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    page.get_by_text("has not verified an e-mail address").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in", exact=True).first.wait_for()
