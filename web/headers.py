"""The Content-Security-Policy of the app: its own files, its own scripts by their hashes, nothing of other sites but
pictures of the hosts that owners have named (``web.pictures``).
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import streamlit
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from copl_core.config import Settings
from copl_core.records import CoplError
from copl_core.serving.headers import security_headers
from pages import scripts
from web.pictures import HOSTS

_HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?")
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def app_headers(scope: Any) -> dict[str, str]:
    """The headers of an answer to a request."""
    host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
    framed_by = _framed_by()
    return security_headers(policy(host, framed_by, scope.get(HOSTS, ())), framed=bool(framed_by))


@lru_cache(64)
def policy(host: str, framed_by: str = "", pictures: tuple[str, ...] = ()) -> str:
    """The policy for visitors who reach the app by this host, with pictures of other ones.

    Plotly compiles its WebGL programs with ``Function`` (unsafe-eval), and Streamlit's styles stand in the page
    (unsafe-inline, for styles alone).  Browsers before 2022 do not take a WebSocket for one of the same site.
    """
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    parts = {
        "default-src": "'self'",
        "script-src": " ".join(["'self'", "'unsafe-eval'", *(f"'sha256-{one}'" for one in hashes())]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": " ".join(["'self' data: blob:", *(f"https://{one}" for one in pictures)]),
        "font-src": "'self' data:",
        "connect-src": f"'self' data: blob:{sockets}",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-src": "'self'",
        "frame-ancestors": framed_by or "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


@cache
def hashes() -> tuple[str, ...]:
    """SHA-256, as base64, of every script that may run: those of the pages, and the one in Streamlit's own page."""
    page = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    every = (*scripts.EVERY, *_INLINE.findall(page))
    return tuple(base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in every)


@cache
def _framed_by() -> str:
    try:
        return Settings.from_environment().framed_by
    except CoplError:  # the pages say what is wrong with the settings
        return ""


async def failed(request: Request, problem: Exception) -> Response:
    """The answer to a request on which the server failed, outside of every middleware."""
    logging.getLogger("copl").error("A request to %s failed", request.url.path, exc_info=problem)
    return PlainTextResponse("The studio failed; its log says why.", 500, app_headers(request.scope))
