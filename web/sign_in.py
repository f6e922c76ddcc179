"""Sign-in by a link: the secret in the address is exchanged for a cookie, and the browser goes to the clean address.

A page of streamlit cannot set a cookie that scripts cannot read; an answer of the server can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from copl_core.records import CoplError
from copl_core.study import sign_in
from web.installation import cookie_name, has_provider, installation

KEPT_SECONDS = 400 * 24 * 3600  # the longest that browsers keep a cookie
NEXT = "copl_next"  # cookie: the shared address that somebody opened before they signed in
HEADER = "x-copl-sign-in"  # no other site can send it: a foreign page cannot sign anybody in


class SignIn:
    """Middleware: requests that carry a sign-in token are answered here, all others by streamlit."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answer = await self._answer(scope, receive) if scope["type"] == "http" else None
        await (answer or self.app)(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any) -> Response | None:
        method, query = scope["method"], dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if method == "GET" and query.get("token") and "/_stcore/" not in scope["path"]:
            return await run_sync(by_link, Request(scope), query)
        if method == "POST" and HEADER in Headers(scope=scope):
            token = (await Request(scope, receive).body())[:500].decode("latin-1")
            return await run_sync(by_form, Request(scope), token)
        if method == "PUT" and "/_stcore/upload_file" in scope["path"]:
            return await run_sync(refuse_stranger, Request(scope))
        return None


def by_link(request: Request, query: dict[str, str]) -> Response:
    """To the same address without the secret, signed in; or with a word that the link does not work."""
    token = query.pop("token")
    try:
        secret = begin(request, token)
    except CoplError as problem:
        return PlainTextResponse(str(problem), 503)
    if secret is None:
        query["link"] = "refused"
    path = request.url.path if is_local(request.url.path) else "/"
    address = path + (f"?{urlencode(query)}" if query else "")
    wanted = unquote(request.cookies.get(NEXT, ""))
    if secret is not None and not query and is_local(wanted):
        address = wanted
    answer = RedirectResponse(address, 303)
    answer.delete_cookie(NEXT)
    return with_cookie(request, answer, secret)


def by_form(request: Request, token: str) -> Response:
    """For a page that has signed somebody in: their token arrives in the body of a request, never in an address."""
    try:
        secret = begin(request, token)
    except CoplError as problem:
        return PlainTextResponse(str(problem), 503)
    return with_cookie(request, Response(status_code=403 if secret is None else 204), secret)


def begin(request: Request, token: str) -> str | None:
    store, _ = installation()
    return sign_in.begin(store, token, request.cookies.get(cookie_name(), ""))


def with_cookie(request: Request, answer: Response, secret: str | None) -> Response:
    answer.headers["Cache-Control"], answer.headers["Referrer-Policy"] = "no-store", "no-referrer"
    if secret is not None:
        encrypted = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
        answer.set_cookie(cookie_name(), secret, max_age=KEPT_SECONDS, httponly=True, samesite="lax", secure=encrypted)
    return answer


def refuse_stranger(request: Request) -> Response | None:
    """Streamlit stores what anybody uploads, with or without an upload field on a page."""
    store, _ = installation()
    secret = request.cookies.get(cookie_name(), "")
    if has_provider() or (secret and sign_in.session_of(store, secret) is not None):
        return None
    return PlainTextResponse("Sign in to upload a file.", 403)


def is_local(address: str) -> bool:
    """Whether an address is a path of this site."""
    return address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
