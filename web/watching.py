"""How a balancer and a monitor watch this process of the app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request

from copl_core.records import CoplError
from copl_core.serving.watching import Watched, may_read, refusal, routes
from web.installation import installation, open_study

WATCHED = Watched(lambda: installation()[0], open_study)
ROUTES = routes(WATCHED)


class OwnMetrics:
    """Middleware: streamlit's own counts, which it gives to everybody, go where those of the studio go."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        closed = scope["type"] == "http" and "/_stcore/metrics" in scope["path"]
        if closed and not await run_sync(_may_read, Request(scope), limiter=WATCHED.limiter):
            await refusal()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _may_read(request: Request) -> bool:
    try:
        return may_read(WATCHED.opened, request)
    except CoplError:
        return False
