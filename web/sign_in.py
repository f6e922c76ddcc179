"""Sign-in by an identity provider (``web.providers``), and by a link: the secret in the address is exchanged for a
cookie, and the browser goes to the clean address.

A page of streamlit cannot set a cookie that scripts cannot read; an answer of the server can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from copl_core.records import CoplError, LinkExpired
from copl_core.serving.bodies import BadRequest, read
from copl_core.study import attempts, sign_in
from web import providers
from web.answers import is_local, later_page, problem_page, question_page, with_cookie
from web.installation import cookie_name, installation

NEXT = "copl_next"  # cookie: the shared address that somebody opened before they signed in
LONGEST_TOKEN, BODY_SECONDS = 500, 30.0  # bytes of a body that holds a token, and the time for it to come
HEADER = "x-copl-sign-in"  # no other site can send it: a foreign page cannot sign anybody in


class SignIn:
    """Middleware: requests that carry a sign-in token are answered here, all others by streamlit."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = None
        if scope["type"] == "http":
            answer = of_provider(scope) or await self._answer(scope, receive)
        await (answer or self.app)(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any) -> Response | None:
        method, query = scope["method"], dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if method == "GET" and query.get("token") and "/_stcore/" not in scope["path"]:
            return await run_sync(by_link, Request(scope), query)
        if method == "POST" and HEADER in Headers(scope=scope):
            return await by_body(Request(scope, receive))
        if method == "PUT" and "/_stcore/upload_file" in scope["path"]:
            return await run_sync(refuse_stranger, Request(scope))
        return None


def of_provider(scope: Any) -> Callable[..., Any] | None:
    """What answers the two addresses of sign-in with an identity provider, where one is set up."""
    if not scope["path"].endswith(("/auth/login", "/oauth2callback")):
        return None
    try:
        settings = providers.provider_settings()
    except CoplError as problem:
        return problem_page(str(problem), 503)
    endpoint = None if settings is None else providers.endpoint_of(scope["path"], settings)
    if settings is None or endpoint is None:
        return PlainTextResponse("No identity provider is set up here.", 404)
    if scope["method"] == "POST" and HEADER not in Headers(scope=scope):  # of another site: it connects nobody
        return PlainTextResponse("Use the button of the page.", 403)
    if endpoint is providers.callback and scope["method"] != "GET":  # Authlib would read a body of any size
        return PlainTextResponse("A provider sends the browser back here with GET; begin again.", 405)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        limited = endpoint is providers.callback
        if limited and (seconds := attempts.seconds_to_wait(client_of(request))):
            found = waiting(problem_page(attempts.too_many(seconds), 429), seconds)
        else:
            found = await endpoint(request, settings)
            if limited and found.status_code == 403:
                attempts.count_failure(client_of(request))
        await found(scope, receive, send)

    return SessionMiddleware(
        answer,
        secret_key=settings.cookie_secret,
        session_cookie=providers.FLOW_COOKIE,
        max_age=providers.FLOW_SECONDS,
        https_only=settings.redirect_uri.startswith("https:"),
    )


def by_link(request: Request, query: dict[str, str]) -> Response:
    """To the same address without the secret, signed in; or with a word that the link does not work.

    Any page can send a browser here: one that is somebody else already is not changed without a click.
    """
    token = query.pop("token")
    if seconds := attempts.seconds_to_wait(client_of(request)):
        return waiting(later_page(attempts.too_many(seconds)), seconds)
    path, why = request.url.path if is_local(request.url.path) else "/", "refused"
    try:
        names = sign_in.changes(installation()[0], token, request.cookies.get(cookie_name(), ""))
        if names is not None:
            return question_page(*names, token, path + (f"?{urlencode(query)}" if query else ""))
        secret = begin(request, token)
    except LinkExpired:
        secret, why = None, "expired"
    except CoplError as problem:
        return PlainTextResponse(str(problem), 503)
    if secret is None:
        query["link"] = why
    address = path + (f"?{urlencode(query)}" if query else "")
    wanted = unquote(request.cookies.get(NEXT, ""))
    if secret is not None and not query and is_local(wanted):
        address = wanted
    answer = RedirectResponse(address, 303)
    answer.delete_cookie(NEXT)
    return with_cookie(request, answer, secret)


async def by_body(request: Request) -> Response:
    """``by_form`` of the token in the body: anybody can send one, so no more of it is read than a token is long."""
    sentence = f"A sign-in token has at most {LONGEST_TOKEN} bytes; send it alone. Nobody was signed in."
    try:
        token = await read(request.stream(), LONGEST_TOKEN, BODY_SECONDS, sentence)
    except BadRequest as problem:
        return PlainTextResponse(str(problem), problem.status, problem.headers)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    return await run_sync(by_form, request, token.decode("latin-1"))


def by_form(request: Request, token: str) -> Response:
    """For a page that has signed somebody in: their token arrives in the body of a request, never in an address."""
    if seconds := attempts.seconds_to_wait(client_of(request)):
        return waiting(PlainTextResponse(attempts.too_many(seconds), 429), seconds)
    try:
        secret = begin(request, token)
    except LinkExpired as problem:
        return with_cookie(request, PlainTextResponse(str(problem), 410), None)
    except CoplError as problem:
        return PlainTextResponse(str(problem), 503)
    return with_cookie(request, Response(status_code=403 if secret is None else 204), secret)


def begin(request: Request, token: str) -> str | None:
    store, _ = installation()
    agent = request.headers.get("user-agent", "")
    secret = sign_in.begin(store, token, request.cookies.get(cookie_name(), ""), agent=agent)
    if secret is None:
        attempts.count_failure(client_of(request))
    return secret


def client_of(request: Request) -> str | None:
    """The address of a visitor; behind a proxy that the server trusts (FORWARDED_ALLOW_IPS), the one that it names."""
    return None if request.client is None else request.client.host


def waiting(answer: Response, seconds: int) -> Response:
    answer.headers["Retry-After"], answer.headers["Cache-Control"] = str(seconds), "no-store"
    return answer


def refuse_stranger(request: Request) -> Response | None:
    """Streamlit keeps what anybody uploads in memory, with or without an upload field on a page."""
    store, _ = installation()
    secret = request.cookies.get(cookie_name(), "")
    if sign_in.may_upload(store, secret):
        return None
    return PlainTextResponse("Owners of a study upload files; sign in as one.", 403)
