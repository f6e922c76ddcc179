"""Headers by which browsers limit what an answer may do, for every server of the studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a program answers with, and its one page of documentation: nothing is loaded, and nobody frames it.
BARE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def security_headers(policy: str, *, framed: bool = False) -> dict[str, str]:
    """Header → value of every answer.

    Args:
        policy: the Content-Security-Policy.
        framed: whether the policy lets other sites show the answer in a frame, which the older header cannot say.
    """
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    } | ({} if framed else {"X-Frame-Options": "DENY"})


class SecurityHeaders:
    """Middleware: every answer has the headers; one that sets a header itself keeps its own.

    Args:
        headers: of the request with this scope.
    """

    def __init__(self, app: ASGIApp, headers: Callable[[Any], dict[str, str]]) -> None:
        self.app, self.headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = MutableHeaders(scope=message)
                for name, value in self.headers(scope).items():
                    present.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)
