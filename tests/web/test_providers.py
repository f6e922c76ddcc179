"""Sign-in with an identity provider, against an OpenID server on this machine: who is let in, and as whom."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from copl_core.records import CoplError, Role
from copl_core.study import access, accounts, attempts, labelling, sign_in
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from db.engine import writing
from tests.openid_server import CLIENT, OTHER_KEY, OpenIdServer
from tests.worlds import open_study
from web import installation, providers
from web.sign_in import HEADER, SignIn

OUTSIDE = httpx2.Client()  # what a browser does at other addresses than the studio's


def start_server() -> OpenIdServer:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return OpenIdServer(port).start()


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[OpenIdServer, OpenIdServer]]:
    pytest.importorskip("authlib", reason="Authlib is not installed")
    both = start_server(), start_server()
    yield both
    for one in both:
        one.stop()


@pytest.fixture
def server(servers) -> OpenIdServer:
    """The provider "main"; the other one is "second"."""
    for one in servers:
        one.reset()
    return servers[0]


@pytest.fixture
def session(tmp_path, monkeypatch, servers) -> Session:
    """A study for invited people, of an installation with two providers."""
    session = open_study(tmp_path)
    labelling.set_assignment(session, AssignmentSettings(open=False))
    section = {"redirect_uri": "http://testserver/oauth2callback", "cookie_secret": "c" * 32}
    for name, one in zip(("main", "second"), servers, strict=True):
        section[name] = CLIENT | {"server_metadata_url": f"{one.url}/.well-known/openid-configuration"}
    monkeypatch.setattr(installation, "_opened", lambda: (session.store, session.settings))
    monkeypatch.setattr(providers, "auth_section", lambda: section)
    installation.open_study.cache_clear()
    return session


class Browser:
    """One browser: what it keeps, and as whom it is signed in."""

    def __init__(self, session: Session) -> None:
        def page(request):
            return PlainTextResponse(f"page {request.url.path}")

        app = Starlette(routes=[Route("/{path:path}", page)], middleware=[Middleware(SignIn)])
        self.session, self.client = session, TestClient(app, follow_redirects=False)
        self.callback = ""  # the last address to which a provider has sent it

    @property
    def secret(self) -> str:
        return self.client.cookies.get(installation.cookie_name(), "")

    @property
    def user(self):
        return sign_in.open_study(self.session.store, self.secret, self.session.id) if self.secret else None

    @property
    def name(self) -> str | None:
        return self.user and self.user.name

    def sign_in(self, provider: str = "main", **query: str):
        begun = self.client.get("/auth/login", params={"provider": provider, **query})
        assert begun.status_code == 302, begun.text
        return self.come_back(begun.headers["location"])

    def come_back(self, address: str):
        """From the provider, which answers at once."""
        self.callback = OUTSIDE.get(address).headers["location"]
        return self.client.get(self.callback)

    def connect(self, provider: str = "main"):
        wanted = {"provider": provider, "connect": str(self.session.id)}
        begun = self.client.post("/auth/login", params=wanted, headers={HEADER: "1"})
        assert begun.status_code == 200, begun.text
        return self.come_back(begun.text)


@pytest.fixture
def browser(session) -> Browser:
    return Browser(session)


@pytest.fixture
def ann(session) -> None:
    """A rule by which Ann's address is an owner's."""
    access.set_email(session, "ann@example.org", Role.OWNER)


def test_a_verified_address_signs_in_with_its_role_and_leaves_no_token_of_the_provider(session, browser, server, ann):
    answer = browser.sign_in(next="/people?group=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/people?group=1")
    assert (browser.user.name, browser.user.role) == ("Ann", Role.OWNER)
    kept = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(installation.cookie_name()))
    assert "HttpOnly" in kept and "SameSite=lax" in kept
    assert {cookie.name for cookie in browser.client.cookies.jar} == {installation.cookie_name()}


def test_a_body_that_comes_back_is_never_read(browser, server, ann):
    begun = browser.client.get("/auth/login", params={"provider": "main"})
    assert begun.status_code == 302
    answer = browser.client.post("/oauth2callback", content=b"state=" + b"a" * 10_000, headers={HEADER: "1"})
    assert answer.status_code == 405 and "begin again" in answer.text
    assert browser.come_back(begun.headers["location"]).status_code == 303, "what was begun goes on"


def test_an_address_whose_sign_ins_have_failed_waits_at_the_provider_too(browser, server, ann):
    for _ in range(attempts.FAILURES):
        assert browser.client.get("/oauth2callback").status_code == 403
    begun = browser.client.get("/auth/login", params={"provider": "main"})
    answer = browser.come_back(begun.headers["location"])
    assert answer.status_code == 429 and "try again in" in answer.text and browser.name is None
    attempts.forget()
    assert browser.client.get(browser.callback).status_code == 303 and browser.name == "Ann"


@pytest.mark.parametrize("verified", [False, None, "true", "false", 1, "True", [True], {"value": True}])
def test_an_address_that_is_not_verified_is_nobody(session, browser, server, ann, verified):
    server.claims["email_verified"] = verified
    assert browser.sign_in().status_code == 303 and browser.user is None
    assert sign_in.session_of(session.store, browser.secret).identity.address is None
    assert access.users(session) == []


def test_address_and_name_may_come_from_the_providers_other_address(browser, server, ann):
    server.in_token = False
    browser.sign_in()
    assert browser.name == "Ann"


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"sub": 7}, "does not hold"),
        ({"sub": "  "}, "it must be a text"),
        ({"sub": "s" * 256}, "it must be at most 255"),
        ({"email": ["ann@example.org"]}, "claim &#x27;email&#x27; is"),
        ({"email": {"address": "ann@example.org"}}, "it must be a text"),
        ({"name": 3}, "claim &#x27;name&#x27; is 3"),
        ({"iss": "http://elsewhere.example"}, "does not hold"),
        ({"iss": 5}, "does not hold"),
        ({"aud": "another client"}, "does not hold"),
        ({"nonce": "of another sign-in"}, "does not hold"),
        ({"nonce": None}, "does not hold"),
        ({"sub": None}, "does not hold"),
        ({"exp": int(time.time()) - 3600}, "has expired"),
        ({"exp": "tomorrow"}, "does not hold"),
        ({"iat": int(time.time()) + 3600}, "does not hold"),
    ],
)
def test_claims_that_are_wrong_sign_nobody_in_and_are_named(session, browser, server, ann, claims, sentence):
    server.claims |= claims
    answer = browser.sign_in()
    assert answer.status_code == 403 and sentence in answer.text and "Nobody" in answer.text
    assert browser.secret == "" and access.users(session) == []


def test_a_token_that_another_key_has_signed_is_refused(browser, server, ann):
    server.key = OTHER_KEY
    assert "does not hold" in browser.sign_in().text and browser.secret == ""


def test_who_gives_up_at_the_provider_is_told_so(browser, server):
    server.error = "access_denied"
    assert "was cancelled" in browser.sign_in().text


def test_an_answer_is_used_once(browser, server, ann):
    browser.sign_in()
    again = browser.client.get(browser.callback)
    assert again.status_code == 403 and "has been used already" in again.text


def test_an_answer_that_belongs_to_another_browser_signs_nobody_in(session, browser, server, ann):
    browser.sign_in()
    victim = Browser(session)
    assert "begun in another browser" in victim.client.get(browser.callback).text and victim.secret == ""
    begun = victim.client.get("/auth/login", params={"provider": "main"})  # with a sign-in of its own under way
    assert begun.status_code == 302
    assert victim.client.get(browser.callback).status_code == 403 and victim.secret == ""


def test_an_answer_of_another_provider_is_not_taken_for_this_ones(browser, server, servers):
    begun = browser.client.get("/auth/login", params={"provider": "main"})
    address = (
        OUTSIDE.get(begun.headers["location"])
        .headers["location"]
        .replace(
            urlsplit(servers[0].url).netloc.replace(":", "%3A"), urlsplit(servers[1].url).netloc.replace(":", "%3A")
        )
    )
    assert browser.client.get(address).status_code == 403 and browser.secret == ""


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:x"])
def test_the_way_back_leads_to_no_other_site(browser, server, wanted):
    assert browser.sign_in(next=wanted).headers["location"] == "/"


# ---- who an account is


def test_the_same_account_is_the_same_person_whatever_its_address_is_later(session, browser, server, ann):
    browser.sign_in()
    me = browser.user
    for address, verified in (("ann.new@example.org", True), ("ann@example.org", False), (None, None)):
        server.claims |= {"email": address, "email_verified": verified}
        later = Browser(session)
        later.sign_in()
        assert later.user == me


def test_an_address_that_is_given_to_somebody_else_does_not_give_them_the_person(session, browser, server, ann):
    browser.sign_in()
    assert browser.name == "Ann"
    server.claims["sub"] = "the next one with this address"
    other = Browser(session)
    other.sign_in()
    assert other.user is None and browser.name == "Ann"


def test_the_same_subject_at_another_provider_is_somebody_else(session, browser, server, servers, ann):
    browser.sign_in()
    assert browser.name == "Ann"
    other = Browser(session)
    other.sign_in("second")  # the same subject, the same verified address
    assert other.user is None
    servers[1].claims["email"] = "ben@example.org"
    access.set_email(session, "ben@example.org", Role.ANNOTATOR)
    other.sign_in("second")
    assert other.user.role == Role.ANNOTATOR and other.user.id != browser.user.id


def test_a_person_of_an_earlier_version_keeps_their_labels_at_the_first_sign_in(session, browser, server):
    """Versions before accounts knew people by their address alone."""
    me = access.join(session, "Ann of old", Role.RESEARCHER)
    access.set_email(session, "ann@example.org", Role.RESEARCHER)
    with writing(session.store.engine) as connection:
        connection.exec_driver_sql("update email set user_id = ?", (me.id,))
    browser.sign_in()
    assert browser.user == me
    server.claims["sub"] = "somebody else"
    other = Browser(session)
    other.sign_in()
    assert other.user is None


def test_a_refused_address_signs_out_at_once_and_stays_out(session, browser, server, ann):
    access.join(session, "Olga", Role.OWNER)
    browser.sign_in()
    me, secret = browser.user, browser.secret
    access.set_email(session, "ann@example.org", None)
    assert sign_in.signed_in(session.store, secret, session.id) is None and browser.user is None
    browser.sign_in()
    assert browser.user is None
    server.claims["email"] = "ann.new@example.org"  # the same account with a new address
    browser.sign_in()
    assert browser.user is None
    access.set_email(session, "ann@example.org", Role.ANNOTATOR)
    assert browser.user.id == me.id and browser.user.role == Role.ANNOTATOR


@pytest.mark.parametrize(
    "later", [{"email_verified": False}, {"email": "ann.new@example.org"}, {"email": None, "email_verified": None}]
)
def test_a_refusal_stays_with_the_account_and_its_person(session, browser, server, later):
    access.join(session, "Olga", Role.OWNER)
    me = access.join(session, "Ann of old")
    link = access.sign_in_token(session, me.id)
    browser.client.get("/", params={"token": link})
    browser.connect()
    server.claims |= {"sub": "another account of Ann", "email": "ann@home.example"}
    browser.connect()
    access.set_email(session, "ann@example.org", None)
    other, by_link = Browser(session), Browser(session)
    other.sign_in()
    assert browser.user is None and other.user is None
    server.claims |= {"sub": "ann", "email": "ann@example.org"} | later
    browser.sign_in()
    by_link.client.get("/", params={"token": link})
    assert browser.user is None and by_link.user is None
    assert sign_in.session_of(session.store, browser.secret).studies == ()
    access.set_email(session, "ann@example.org", Role.ANNOTATOR)
    assert browser.user == me == other.user


def test_an_account_with_a_refused_address_is_not_connected(session, browser, server):
    access.set_email(session, "ann@example.org", None)
    user = access.join(session, "Somebody")
    browser.client.get("/", params={"token": access.sign_in_token(session, user.id)})
    answer = browser.connect()
    assert answer.status_code == 403 and "has refused this account" in answer.text
    assert accounts.accounts(session, user.id) == [] and browser.user == user


def test_the_only_owner_of_a_study_is_not_refused(session, browser, server, ann):
    browser.sign_in()
    me = browser.user
    with pytest.raises(CoplError, match="only owner"):
        access.set_email(session, "ann@example.org", None)
    assert browser.user == me and access.emails(session)[0].role == Role.OWNER


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "9" * 10, "²", "-1", "nonsense"])
def test_a_study_that_cannot_be_connects_nobody(session, browser, server, number):
    user = access.join(session, "Ann")
    browser.client.get("/", params={"token": access.sign_in_token(session, user.id)})
    wanted = {"provider": "main", "connect": number}
    begun = browser.client.post("/auth/login", params=wanted, headers={HEADER: "1"})
    answer = browser.come_back(begun.text)
    assert answer.status_code == 403 and "signed out" in answer.text
    assert accounts.accounts(session, user.id) == []


# ---- invites, open studies, accounts that are connected


def test_an_invite_works_after_the_sign_in_and_binds_the_account(session, browser, server):
    server.claims["email_verified"] = None
    _, invite = access.invite(session, Role.RESEARCHER)
    assert browser.sign_in(next=f"/?invite={invite}").headers["location"] == f"/?invite={invite}"
    assert browser.user is None
    user, token = access.accept_invite(session, invite, "Ann", browser=browser.secret)
    browser.client.post("/", content=token, headers={HEADER: "1"})
    assert browser.user == user and user.role == Role.RESEARCHER
    elsewhere = Browser(session)
    elsewhere.sign_in()
    assert elsewhere.user == user


def test_a_revoked_invite_lets_no_account_in(session, browser, server):
    made, invite = access.invite(session)
    browser.sign_in()
    access.revoke_invite(session, made.id)
    with pytest.raises(CoplError, match="revoked"):
        access.accept_invite(session, invite, "Ann", browser=browser.secret)
    assert browser.user is None and access.users(session) == []


def test_an_account_joins_an_open_study_once(session, browser, server):
    labelling.set_assignment(session, AssignmentSettings(open=True))
    browser.sign_in()
    assert browser.user is None  # nobody is made a member unasked
    user, _ = access.enter(session, "Ann", browser=browser.secret)
    assert browser.user == user
    with pytest.raises(CoplError, match="in this study already"):
        access.enter(session, "Ann again", browser=browser.secret)
    assert access.users(session) == [user]


def test_a_connected_account_signs_in_as_the_person_with_the_labels(session, browser, server):
    user = access.join(session, "Ann of old")
    browser.client.get("/", params={"token": access.sign_in_token(session, user.id)})
    before = browser.secret
    assert browser.connect().status_code == 303 and browser.secret == before
    elsewhere = Browser(session)
    elsewhere.sign_in()
    assert elsewhere.user == user == browser.user
    assert [one.address for one in accounts.accounts(session, user.id)] == ["ann@example.org"]


def test_an_account_is_one_person_of_a_study(session, browser, server, ann):
    browser.sign_in()
    assert browser.name == "Ann"
    bob, other = access.join(session, "Bob"), Browser(session)
    other.client.get("/", params={"token": access.sign_in_token(session, bob.id)})
    answer = other.connect()
    assert answer.status_code == 403 and "already signs in to this study as Ann" in answer.text
    assert other.user == bob and accounts.accounts(session, bob.id) == []


def test_only_a_page_of_the_studio_connects_an_account(session, browser, server):
    user = access.join(session, "Ann")
    browser.client.get("/", params={"token": access.sign_in_token(session, user.id)})
    wanted = {"provider": "main", "connect": str(session.id)}
    assert browser.client.post("/auth/login", params=wanted).status_code == 403
    browser.sign_in(connect=str(session.id))  # as a link of another site does
    assert accounts.accounts(session, user.id) == []


def test_nobody_connects_an_account_after_signing_out(session, browser, server):
    user = access.join(session, "Ann")
    browser.client.get("/", params={"token": access.sign_in_token(session, user.id)})
    wanted = {"provider": "main", "connect": str(session.id)}
    begun = browser.client.post("/auth/login", params=wanted, headers={HEADER: "1"})
    sign_in.end(session.store, browser.secret)
    assert "signed out" in browser.come_back(begun.text).text
    assert accounts.accounts(session, user.id) == []


def sign_out_here(session: Session, browser: Browser) -> None:
    sign_in.end(session.store, browser.secret)


def sign_out_everywhere(session: Session, browser: Browser) -> None:
    access.sign_out_everywhere(session, browser.user.id)


def disconnect(session: Session, browser: Browser) -> None:
    accounts.disconnect(session, browser.user.id)


@pytest.mark.parametrize("act", [sign_out_here, sign_out_everywhere, disconnect])
def test_who_is_signed_out_is_out_until_the_provider_signs_them_in_again(session, browser, server, ann, act):
    access.join(session, "Olga", Role.OWNER)
    browser.sign_in()
    me = browser.user
    act(session, browser)
    assert browser.user is None and sign_in.session_of(session.store, browser.secret) is None
    browser.sign_in()
    assert browser.user == me


def test_who_makes_a_study_opens_it_with_their_account(session, browser, server, ann):
    browser.sign_in()
    access.create_study(session, "Second", browser=browser.secret, by=browser.user.id)
    elsewhere = Browser(session)
    elsewhere.sign_in()
    known = sign_in.session_of(session.store, elsewhere.secret)
    assert [study.name for study in known.studies] == [session.record.name, "Second"]
    assert sign_in.open_study(session.store, elsewhere.secret, known.studies[1].id).role == Role.OWNER


# ---- settings


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"redirect_uri": None}, "needs redirect_uri"),
        ({"redirect_uri": "https://studio.example.org/"}, "needs redirect_uri"),
        ({"cookie_secret": "short"}, "cookie_secret of 32 characters"),
        ({"main": CLIENT}, r"\[auth.main\] in secrets.toml has no server_metadata_url"),
        ({"main": {**CLIENT, "server_metadata_url": 4}}, "has no server_metadata_url"),
    ],
)
def test_settings_that_are_not_complete_are_named(session, change, sentence):
    with pytest.raises(CoplError, match=sentence):
        providers.checked({**providers.auth_section(), **change})


def test_one_provider_may_stand_in_the_section_itself():
    section = {"redirect_uri": "https://x.example/copl/oauth2callback", "cookie_secret": "c" * 32, **CLIENT}
    settings = providers.checked(section | {"server_metadata_url": "https://id.example"})
    assert (list(settings.sections), settings.login_path) == (["default"], "/copl/auth/login")


def test_a_provider_that_is_away_costs_a_sentence(session, browser, monkeypatch):
    away = {"server_metadata_url": "http://127.0.0.1:9/.well-known/openid-configuration"}
    section = {**providers.auth_section(), "main": CLIENT | away}
    monkeypatch.setattr(providers, "auth_section", lambda: section)
    answer = browser.client.get("/auth/login", params={"provider": "main"})
    assert answer.status_code == 503 and "does not answer" in answer.text
    assert "no identity provider" in browser.client.get("/auth/login", params={"provider": "x<b>"}).text
