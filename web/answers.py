"""Answers of the server itself, beside the pages: a session's cookie, and a page with one sentence."""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from web.installation import cookie_name

KEPT_SECONDS = 400 * 24 * 3600  # the longest that browsers keep a cookie
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>CoPL Studio</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 17px/1.5 sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1.2rem;
  color: light-dark(#15171b, #e4e2dc); background: light-dark(#fdfcf9, #15181c); }}
h1 {{ font: 600 2rem/1.2 serif; }}
a {{ color: light-dark(#005f94, #7cc0ea); }}
</style>
<h1>The sign-in did not work</h1>
<p>{sentence}</p>
<p><a href="{back}">Back to the studio</a></p>
</html>"""


def problem_page(sentence: str, status: int, back: str = "/") -> Response:
    """A page of its own, for what goes wrong between two pages of the studio."""
    return HTMLResponse(_PAGE.format(sentence=escape(sentence), back=back), status, {"Cache-Control": "no-store"})


def with_cookie(request: Request, answer: Response, secret: str | None) -> Response:
    answer.headers["Cache-Control"], answer.headers["Referrer-Policy"] = "no-store", "no-referrer"
    if secret is not None:
        encrypted = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
        answer.set_cookie(cookie_name(), secret, max_age=KEPT_SECONDS, httponly=True, samesite="lax", secure=encrypted)
    return answer


def is_local(address: str) -> bool:
    """Whether an address is a path of this site."""
    return address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
