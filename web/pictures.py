"""Whose pictures a page may load: those of the hosts that the owners of a person's studies have named.

The policy of a page is fixed when the browser loads it, and a person may go from one study to another within it.  So it
names the hosts of all studies that the browser's session may open, looked up at that moment; a page of somebody who is
not signed in loads no picture of another site.  Which pictures a text shows is decided once more when it is drawn, by
the hosts of its own study (``pages.texts``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio import CapacityLimiter, move_on_after
from anyio.to_thread import run_sync
from starlette.requests import Request

from copl_core.records import CoplError
from copl_core.study import sign_in
from web.installation import cookie_name, installation

HOSTS = "copl.picture_hosts"  # of a request, in its scope
MOST = 50  # hosts of one policy: a header of a few kilobytes
SECONDS = 2.0  # for the database; after that the page loads without pictures


class Pictures:
    """Middleware: a request for a page learns the hosts of its pictures."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.limiter = CapacityLimiter(4)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and is_page(scope):
            with move_on_after(SECONDS):
                scope[HOSTS] = await run_sync(hosts_for, Request(scope), limiter=self.limiter, abandon_on_cancel=True)
        await self.app(scope, receive, send)


def is_page(scope: Any) -> bool:
    """Whether a request is for a page, and not for one of streamlit's files or addresses."""
    path = scope["path"]
    return scope["method"] == "GET" and "/_stcore/" not in path and "." not in path.rpartition("/")[2]


def hosts_for(request: Request) -> tuple[str, ...]:
    """The hosts of the studies that the browser of a request may open; none where the database does not answer."""
    if not request.cookies:
        return ()
    try:
        store, _ = installation()
        secret = request.cookies.get(cookie_name(), "")
        session = sign_in.session_of(store, secret) if secret else None
        studies = session.studies if session is not None else ()
        found = {host for study in studies for host in store.assignment_settings(study.id).picture_hosts}
        return tuple(sorted(found)[:MOST])
    except CoplError:
        return ()
