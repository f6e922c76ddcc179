"""Which hosts' pictures a page may load: those of the studies that the browser may open."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from copl_core.records import Role, StoreUnavailable
from copl_core.serving.headers import SecurityHeaders
from copl_core.study import access, labelling, sign_in
from copl_core.study.session import Session
from copl_core.study_settings import AssignmentSettings
from tests.worlds import open_study
from web import installation
from web.headers import app_headers
from web.pictures import MOST, Pictures


@pytest.fixture
def session(tmp_path, monkeypatch) -> Session:
    session = open_study(tmp_path)
    monkeypatch.setattr(installation, "_opened", lambda: (session.store, session.settings))
    return session


@pytest.fixture
def other(session) -> Session:
    return Session(session.store, session.settings, session.store.create_study("Other", new=True).id)


@pytest.fixture
def client() -> TestClient:
    middleware = [Middleware(SecurityHeaders, app_headers), Middleware(Pictures)]
    app = Starlette(
        routes=[Route("/{path:path}", lambda request: PlainTextResponse(), methods=["GET", "POST"])],
        middleware=middleware,
    )
    return TestClient(app)


def show(session: Session, *hosts: str) -> None:
    labelling.set_assignment(session, AssignmentSettings(picture_hosts=hosts))


def signed_in(client: TestClient, session: Session, name: str) -> None:
    user = access.join(session, name, Role.ANNOTATOR)
    before = client.cookies.get(installation.cookie_name(), "")
    secret = sign_in.begin(session.store, access.sign_in_token(session, user.id), before)
    client.cookies.set(installation.cookie_name(), secret)


def pictures(client: TestClient, path: str = "/label", method: str = "GET") -> str:
    (part,) = [
        one
        for one in client.request(method, path).headers["content-security-policy"].split("; ")
        if one.startswith("img-src")
    ]
    return part.removeprefix("img-src 'self' data: blob:").strip()


def test_a_page_loads_pictures_of_the_persons_own_studies_alone(session, other, client):
    show(session, "a.org", "b.org:8443")
    show(other, "c.org")
    assert pictures(client) == ""
    signed_in(client, session, "Ann")
    assert pictures(client) == "https://a.org https://b.org:8443"
    signed_in(client, other, "Ann")
    assert pictures(client) == "https://a.org https://b.org:8443 https://c.org"


def test_a_host_that_is_taken_away_is_gone_from_the_next_page(session, client):
    show(session, "a.org")
    signed_in(client, session, "Ann")
    show(session)
    assert pictures(client) == ""


def test_a_session_that_has_ended_and_one_that_never_began_load_none(session, client):
    show(session, "a.org")
    signed_in(client, session, "Ann")
    ann = session.store.user_named(session.id, "Ann")
    access.sign_out_everywhere(session, ann.id)
    assert pictures(client) == ""
    client.cookies.set(installation.cookie_name(), "nonsense")
    assert pictures(client) == ""


@pytest.mark.parametrize(("method", "path"), [("GET", "/static/a.js"), ("GET", "/_stcore/health"), ("POST", "/")])
def test_what_is_no_page_names_no_host(session, client, method, path):
    show(session, "a.org")
    signed_in(client, session, "Ann")
    assert pictures(client, path, method) == ""


def test_a_database_that_is_away_costs_the_pictures_and_not_the_page(session, client, monkeypatch):
    show(session, "a.org")
    signed_in(client, session, "Ann")

    def away(*_: object) -> None:
        raise StoreUnavailable("The database is away.")

    monkeypatch.setattr(session.store, "browser_session", away)
    assert pictures(client) == ""


def test_a_policy_stays_short_however_many_studies_there_are(session, client):
    signed_in(client, session, "Ann")
    for n in range(6):
        one = Session(session.store, session.settings, session.store.create_study(f"Study {n}", new=True).id)
        show(one, *(f"host{n}-{k}.org" for k in range(10)))
        signed_in(client, one, "Ann")
    assert pictures(client).count("https://") == MOST
