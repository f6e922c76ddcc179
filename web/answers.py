"""Answers of the server itself, beside the pages: a session's cookie, and a page with one sentence."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from pages import scripts
from web.installation import cookie_name

KEPT_SECONDS = 400 * 24 * 3600  # the longest that browsers keep a cookie
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>CoPL Studio</title>
<style>
{fonts}
:root {{ color-scheme: light dark; }}
body {{ font: 17px/1.5 copl-sans, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1.2rem;
  color: light-dark(#15171b, #e4e2dc); background: light-dark(#fdfcf9, #15181c); }}
h1 {{ font: 600 2rem/1.2 copl-serif, serif; }}
a {{ color: light-dark(#005f94, #7cc0ea); }}
button {{ font: inherit; padding: .4rem 1rem; border: 0; border-radius: .4rem; cursor: pointer; overflow-wrap: anywhere;
  color: light-dark(#fff, #10202c); background: light-dark(#005f94, #7cc0ea); }}
p, h1 {{ overflow-wrap: anywhere; }}
</style>
<h1>{title}</h1>
<p>{sentence}</p>
{more}<p><a href="{back}">{stay}</a></p>
{script}</html>"""


def problem_page(sentence: str, status: int, back: str = "/") -> Response:
    """A page of its own, for what goes wrong between two pages of the studio."""
    return _page("The sign-in did not work", sentence, "Back to the studio", back, status)


def later_page(sentence: str) -> Response:
    """A page for a sign-in that was not looked at: its link opens the same address again."""
    answer = _page("Not signed in yet", sentence, "Try again", "", 429)
    answer.headers["Referrer-Policy"] = "no-referrer"  # the address has the secret
    return answer


def question_page(me: str, other: str, token: str, address: str) -> Response:
    """What a browser of somebody gets for a link that is for somebody else: who one is stays until a click."""
    sentence = (
        f"This browser is signed in as {me}, and the link that was opened is for {other}. Change only if the link is "
        "yours; your later answers count as those of that person."
    )
    more = f'<p><button>Sign in as {escape(other)}</button></p>\n<p role="status"></p>\n'
    script = f'<script data-token="{escape(token)}" data-address="{escape(address)}">{scripts.TAKE_LINK}</script>\n'
    answer = _page("A link for somebody else", sentence, f"Stay signed in as {me}", address, 200, more, script)
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


def _page(title: str, sentence: str, stay: str, back: str, status: int, more: str = "", script: str = "") -> Response:
    words = {"title": title, "sentence": sentence, "stay": stay, "back": back}
    parts = {name: escape(one) for name, one in words.items()}
    page = _PAGE.format(**parts, more=more, script=script, fonts=_fonts())
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})


@cache
def _fonts() -> str:
    """The fonts of the pages, as Streamlit serves them; their files have other names in each of its versions."""
    media = Path(streamlit.__file__).parent / "static" / "static" / "media"
    rules = []
    for family, pattern in (("copl-sans", "SourceSansVF-Upright.*"), ("copl-serif", "SourceSerifVariable-Roman.*")):
        for file in sorted(media.glob(pattern))[:1]:
            where = f"/static/media/{file.name}"
            rules.append(f'@font-face {{ font-family: {family}; src: url("{where}"); font-weight: 200 900; }}')
    return "\n".join(rules)


def with_cookie(request: Request, answer: Response, secret: str | None) -> Response:
    answer.headers["Cache-Control"], answer.headers["Referrer-Policy"] = "no-store", "no-referrer"
    if secret is not None:
        encrypted = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
        answer.set_cookie(cookie_name(), secret, max_age=KEPT_SECONDS, httponly=True, samesite="lax", secure=encrypted)
    return answer


def is_local(address: str) -> bool:
    """Whether an address is a path of this site."""
    return address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
