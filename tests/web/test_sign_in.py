"""The exchange of a sign-in link for a cookie, as a browser meets it on the wire."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest
import streamlit
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from copl_core.records import Identity, Role
from copl_core.study import access, attempts, sign_in
from copl_core.study.session import Session
from db.engine import writing
from tests.worlds import open_study
from web import installation
from web.answers import is_local
from web.sign_in import HEADER, NEXT, SignIn


@pytest.fixture
def session(tmp_path, monkeypatch) -> Session:
    session = open_study(tmp_path)
    monkeypatch.setattr(installation, "_opened", lambda: (session.store, session.settings))
    return session


@pytest.fixture
def token(session) -> str:
    return access.sign_in_token(session, access.join(session, "Olga", Role.OWNER).id)


@pytest.fixture
def client(session) -> TestClient:
    def page(request):
        return PlainTextResponse(f"page {request.url.path}")

    routes = [Route("/{path:path}", page, methods=["GET", "POST", "PUT"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(SignIn)]), follow_redirects=False)


def cookie(client: TestClient) -> str:
    return client.cookies.get(installation.cookie_name(), "")


def who(session: Session, client: TestClient) -> str | None:
    user = sign_in.signed_in(session.store, cookie(client), session.id)
    return None if user is None else user.name


def test_the_secret_leaves_the_address_and_the_rest_of_it_stays(session, client, token):
    answer = client.get("/people", params={"token": token, "group": "1 & 2"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/people?group=1+%26+2")
    assert who(session, client) == "Olga"
    cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("copl_") and NEXT not in one)
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and token not in cookie
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert client.get("/people").text == "page /people"


def test_a_browser_gets_a_name_of_which_no_version_is_kept(session, client, token):
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    client.get("/", params={"token": token}, headers={"User-Agent": agent})
    olga = session.store.user_named(session.id, "Olga")
    assert [one.name for one in access.browsers(session, olga.id)] == ["Firefox on Linux"]
    assert "140" not in repr(session.store.stored_of(olga.id)["browsers"])


def test_the_cookie_is_for_encrypted_connections_where_the_browser_has_one(client, token):
    answer = client.get("/", params={"token": token}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers.get_list("set-cookie")[-1]


def test_a_bad_link_says_so_and_leaves_everybody_signed_in_as_they_were(session, client, token):
    client.get("/", params={"token": token})
    answer = client.get("/", params={"token": "nonsense"})
    assert answer.headers["location"] == "/?link=refused" and who(session, client) == "Olga"


def test_an_expired_link_says_so_is_no_attempt_and_leaves_everybody_signed_in_as_they_were(session, client, token):
    client.get("/", params={"token": token})
    with writing(session.store.engine) as connection:
        connection.execute(text("update token set expires_at = '2026-01-01 00:00:00'"))
    for _ in range(attempts.FAILURES + 1):  # a class with links of last week
        answer = client.get("/people", params={"token": token, "link": "x"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/people?link=expired")
        answer = client.post("/", content=token, headers={HEADER: "1"})
        assert answer.status_code == 410 and "has expired, so nobody was signed in" in answer.text
    assert who(session, client) == "Olga"


def test_a_page_signs_its_visitor_in_with_a_request_that_no_other_site_can_send(session, client, token):
    assert client.post("/label", content=token).text == "page /label"  # without the header it is not for us
    assert client.post("/label", content="nonsense", headers={HEADER: "1"}).status_code == 403
    assert who(session, client) is None
    assert client.post("/label", content=token, headers={HEADER: "1"}).status_code == 204
    assert who(session, client) == "Olga"


def test_no_more_of_a_body_is_read_than_a_token_is_long(session, token):
    read, sent = [], []

    async def receive():
        read.append(1000)
        return {"type": "http.request", "body": b"a" * 1000, "more_body": True}  # without an end

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(HEADER.encode(), b"1")]}
    anyio.run(SignIn(PlainTextResponse("the app")), scope, receive, send)
    assert sum(read) <= 2000 and sent[0]["status"] == 413
    assert b"at most 500 bytes" in sent[1]["body"] and b"Nobody was signed in" in sent[1]["body"]


def test_a_body_that_does_not_come_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr("web.sign_in.BODY_SECONDS", 0.1)
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(HEADER.encode(), b"1")]}
    anyio.run(SignIn(PlainTextResponse("the app")), scope, anyio.sleep_forever, send)
    assert sent[0]["status"] == 408


def test_a_link_changes_who_somebody_is_only_after_their_click(session, client, token):
    eve = access.sign_in_token(session, access.join(session, "<Eve>").id)
    client.get("/", params={"token": token})
    before = client.cookies.get(installation.cookie_name())
    for _ in range(2):
        answer = client.get("/label", params={"token": eve, "pair": '3"'}, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200 and "set-cookie" not in answer.headers
        assert "signed in as Olga" in answer.text and "Sign in as &lt;Eve&gt;" in answer.text
        assert 'href="/label?pair=3%22"' in answer.text and "<Eve>" not in answer.text
        fonts = re.findall(r'url\("/static/(.+?)"\)', answer.text)
        assert len(fonts) == 2 and all(
            (Path(streamlit.__file__).parent / "static/static" / one).is_file() for one in fonts
        )
        assert answer.headers["cache-control"] == "no-store" and answer.headers["referrer-policy"] == "no-referrer"
    assert who(session, client) == "Olga" and client.cookies.get(installation.cookie_name()) == before
    assert client.get("/", params={"token": token}).status_code == 303  # one's own link
    assert client.post("/label", content=eve, headers={HEADER: "1"}).status_code == 204  # as the button does
    assert who(session, client) == "<Eve>"


def test_a_link_to_another_study_changes_nobody_unasked(session, client, token, tmp_path):
    other = Session(session.store, session.settings, session.store.create_study("Trees").id)
    olga = access.sign_in_token(other, access.join(other, "Olga").id)
    client.get("/", params={"token": token})
    assert "Sign in as Olga in Trees" in client.get("/", params={"token": olga}).text and who(other, client) is None
    assert client.post("/", content=olga, headers={HEADER: "1"}).status_code == 204
    assert who(other, client) == who(session, client) == "Olga"  # of both from now on
    for one in (token, olga):
        assert client.get("/", params={"token": one}).status_code == 303


def test_who_began_in_the_terminal_is_every_studys_owner_and_its_links_open_at_once(session, client):
    access.join(session, "Olga", Role.OWNER)
    other = Session(session.store, session.settings, session.store.create_study("Trees").id)
    boss, ben = access.join(other, "Boss", Role.OWNER), access.join(other, "Ben")
    client.get("/", params={"token": access.terminal_token(session)})
    assert "signed in as Boss" in client.get("/", params={"token": access.sign_in_token(other, ben.id)}).text
    assert client.get("/", params={"token": access.sign_in_token(other, boss.id)}).status_code == 303
    assert (who(session, client), who(other, client)) == ("Olga", "Boss")


def test_an_account_is_not_changed_by_a_link_for_somebody_else(session, client, token):
    ann = Identity("https://id.example", "ann", None, "Ann of the provider")
    client.cookies.set(installation.cookie_name(), sign_in.begin_with(session.store, ann))
    assert "signed in as Ann of the provider" in client.get("/", params={"token": token}).text
    assert who(session, client) is None
    sign_in.end(session.store, client.cookies.get(installation.cookie_name()))
    assert client.get("/", params={"token": token}).headers["location"] == "/"  # nobody is signed in any more


@pytest.mark.parametrize(
    ("wanted", "address"),
    [
        ("%2Fcontroversy%3Fpair%3D3%26study%3D1", "/controversy?pair=3&study=1"),
        ("%2F%2Fevil.example%2F", "/"),
        ("https%3A%2F%2Fevil.example", "/"),
        ("%2F%5Cevil.example", "/"),
    ],
)
def test_a_link_leads_to_the_shared_page_that_was_wanted_before(client, token, wanted, address):
    client.cookies.set(NEXT, wanted)
    assert client.get("/", params={"token": token}).headers["location"] == address


def test_no_link_leads_to_another_site(client, token):
    assert client.get("http://testserver//evil.example/x", params={"token": token}).headers["location"] == "/"
    assert not is_local("//evil.example") and not is_local("/\\evil") and not is_local("/a\nb") and is_local("/a?b=c")


def test_owners_alone_upload(session, client, token):
    def upload() -> int:
        return client.put("/_stcore/upload_file/a/b", content=b"x").status_code

    assert upload() == 403
    for name, role in (("Ann", Role.ANNOTATOR), ("Rita", Role.RESEARCHER)):
        client.cookies.clear()
        client.get("/", params={"token": access.sign_in_token(session, access.join(session, name, role).id)})
        assert who(session, client) == name and upload() == 403
    client.cookies.clear()
    client.get("/", params={"token": token})
    assert upload() == 200
    second = access.join(session, "Otto", Role.OWNER)
    access.set_role(
        session, sign_in.signed_in(session.store, cookie(client), session.id).id, Role.ANNOTATOR, by=second.id
    )
    assert upload() == 403


def test_after_many_sign_ins_that_failed_none_is_looked_at_for_a_while(session, client, token):
    for _ in range(15):
        assert client.get("/", params={"token": "nonsense"}).headers["location"] == "/?link=refused"
        assert client.post("/", content="nonsense", headers={HEADER: "1"}).status_code == 403
    for answer in (
        client.get("/", params={"token": token}),
        client.post("/", content=token, headers={HEADER: "1"}),
    ):
        assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 2
        assert "More than 30 sign-ins a minute" in answer.text and "try again in" in answer.text
    assert who(session, client) is None and client.get("/people").text == "page /people"
    attempts.forget()
    assert client.get("/", params={"token": token}).status_code == 303 and who(session, client) == "Olga"


def test_sign_ins_that_succeed_are_not_counted(session, client, token):
    for _ in range(attempts.FAILURES + 1):
        assert client.post("/", content=token, headers={HEADER: "1"}).status_code == 204
