"""The reward server: a process of its own that answers other programs over HTTP.

A request carries a token of one study, as ``Authorization: Bearer TOKEN``, or in the address, http://copl:TOKEN@host,
for clients that can only be given an address.  Everything it answers is computed by the study's own verbs from the
champion of that moment, so a new champion needs no restart.  It writes nothing into the database.  A bad request is
answered with 4xx and ``{"error": one sentence}``.
"""

from __future__ import annotations

import logging
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from copl_core.config import Settings
from copl_core.limits import RateLimiter
from copl_core.logs import note
from copl_core.records import CoplError, SnapshotAway, StoreUnavailable
from copl_core.serving import bodies, metrics, openapi
from copl_core.serving.bodies import BadRequest
from copl_core.serving.headers import BARE_POLICY, SecurityHeaders, security_headers
from copl_core.serving.secrets import secret_of
from copl_core.serving.service import Service
from copl_core.serving.watching import may_read, refusal
from copl_core.store import Store
from copl_core.study.service_tokens import token_of
from copl_core.study_settings import ServiceRole, ServiceToken

_MAY: dict[ServiceRole, frozenset[ServiceRole]] = {
    ServiceRole.GROUPS: frozenset({ServiceRole.GROUPS}),
    ServiceRole.REWARDS: frozenset({ServiceRole.GROUPS, ServiceRole.REWARDS}),
    ServiceRole.PEOPLE: frozenset(ServiceRole),
}
_SNAPSHOT = "X-Copl-Snapshot"
BODY_SECONDS = 30.0  # for a whole body to come
STOP_SECONDS = 30  # for the requests that are being answered, once the server is to end
HEADERS = security_headers(BARE_POLICY)
log = logging.getLogger("copl")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What every request may use."""

    service: Service
    limiter: RateLimiter
    metrics: metrics.Metrics
    quick: CapacityLimiter  # threads for questions to the database alone, which wait for no model
    exact: bool  # whether tokens of every role get numbers that are not rounded


Answer = Callable[[_Parts, ServiceToken, Request, bytes], Response]


def make_app(
    store: Store, settings: Settings, embed: Callable[..., np.ndarray] | None = None, *, exact: bool = False
) -> Starlette:
    """The server of an installation, for uvicorn or another ASGI server.

    Args:
        embed: as in ``Service``.
        exact: rewards are not rounded for any token; else they are exact for those that also get embeddings.
    """
    parts = _Parts(Service(store, settings, embed), RateLimiter(), metrics.Metrics(), CapacityLimiter(8), exact)
    routes = [
        _route(parts, "/v1/rewards", "POST", ServiceRole.GROUPS, _rewards),
        _route(parts, "/v1/rewards/batch", "POST", ServiceRole.GROUPS, _batch),
        _route(parts, "/get_reward", "POST", ServiceRole.GROUPS, _get_reward),
        _route(parts, "/v1/users/{id}/embedding", "GET", ServiceRole.PEOPLE, _embedding),
        Route("/healthz", _healthz(parts)),
        Route("/metrics", _metrics(parts)),
        Route("/openapi.json", lambda request: JSONResponse(openapi.DOCUMENT)),
        Route("/docs", lambda request: HTMLResponse(openapi.page())),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _no_route},
        middleware=[Middleware(SecurityHeaders, lambda scope: HEADERS)],
    )
    app.router.redirect_slashes = False  # an address with a slash at its end is refused in a sentence too
    return app


def server_of(app: Starlette, address: str, port: int) -> Server:
    """The process that answers; a signal ends it after the requests that it is answering."""
    config = Config(
        app,
        host=address,
        port=port,
        log_level="warning",
        access_log=False,
        log_config=None,  # it logs as this process does
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return Server(config)


# ---- answers


def _rewards(parts: _Parts, token: ServiceToken, request: Request, body: bytes) -> Response:
    wanted = bodies.reward_request(bodies.json_of(body))
    only_large = _only_groups(token, wanted.user is not None or wanted.labels)
    found = parts.service.rewards(token.study_id, wanted, only_large=only_large, exact=_exact(parts, token))
    parts.metrics.answered(token.study_id, found["snapshot"], len(wanted.responses))
    return JSONResponse(found, headers={_SNAPSHOT: found["snapshot"]})


def _batch(parts: _Parts, token: ServiceToken, request: Request, body: bytes) -> Response:
    wanted = bodies.reward_requests(bodies.json_of(body))
    only_large = _only_groups(token, any(one.user is not None or one.labels for one in wanted))
    _take(parts, token, len(wanted) - 1)  # one is taken already
    exact = _exact(parts, token)
    found = [parts.service.rewards(token.study_id, one, only_large=only_large, exact=exact) for one in wanted]
    for one, answer in zip(wanted, found, strict=True):
        parts.metrics.answered(token.study_id, answer["snapshot"], len(one.responses))
    return JSONResponse({"answers": found})


def _get_reward(parts: _Parts, token: ServiceToken, request: Request, body: bytes) -> Response:
    user, group = (_parameter(request, name) for name in ("user", "group"))
    if (user is None) == (group is None):
        raise BadRequest(
            422, "The address says not whose reward is wanted; add ?user=NAME or ?group=NAME, one of them."
        )
    only_large = _only_groups(token, user is not None)
    wanted = bodies.queries(bodies.json_of(body))
    found, snapshot = parts.service.pointwise(
        token.study_id, wanted, user, group, only_large=only_large, exact=_exact(parts, token)
    )
    parts.metrics.answered(token.study_id, snapshot, len(wanted))
    return JSONResponse({"rewards": found}, headers={_SNAPSHOT: snapshot})


def _exact(parts: _Parts, token: ServiceToken) -> bool:
    """Who has embeddings computes rewards as finely as they like."""
    return parts.exact or token.role is ServiceRole.PEOPLE


def _only_groups(token: ServiceToken, about_a_person: object) -> bool:
    """Whether a token may ask for large groups alone.

    Raises:
        BadRequest: it does, and the request is about a single person.
    """
    if token.role is not ServiceRole.GROUPS:
        return False
    if about_a_person:
        raise BadRequest(
            403,
            f"The token {token.name!r} may ask for groups only, not for single people; give group, or none of them.",
        )
    return True


def _parameter(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise BadRequest(422, f"The address has {name} {len(values)} times; give it once.")
    return values[0] if values else None


def _embedding(parts: _Parts, token: ServiceToken, request: Request, body: bytes) -> Response:
    found = parts.service.embedding(token.study_id, request.path_params["id"])
    return JSONResponse(found, headers={_SNAPSHOT: found["snapshot"]})


def _healthz(parts: _Parts) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            studies = await run_sync(parts.service.store.studies, limiter=parts.quick)
            return JSONResponse({"status": "ok", "studies": len(studies)})
        except CoplError as problem:
            return JSONResponse({"status": "failing", "error": str(problem)}, 503)

    return answer


def _metrics(parts: _Parts) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            allowed = await run_sync(may_read, lambda: parts.service.store, request, limiter=parts.quick)
        except CoplError:  # the database cannot say whose the token is
            allowed = False
        return PlainTextResponse(parts.metrics.text(), media_type=metrics.CONTENT_TYPE) if allowed else refusal()

    return answer


# ---- around every answer


def _route(parts: _Parts, path: str, method: str, role: ServiceRole, answer: Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        started = time.monotonic()
        try:
            response = await _respond(parts, role, answer, request)
        except ClientDisconnect:
            response = Response(status_code=400)  # nobody reads it
        except CancelledError:  # the server ends, and this answer has taken longer than STOP_SECONDS
            response = JSONResponse({"error": "The server is being stopped; ask again when it runs."}, 503)
        except Exception:
            log.exception("A request to %s failed", path)
            response = JSONResponse({"error": "The server failed; its log says why."}, 500)
        parts.metrics.request(path, response.status_code, time.monotonic() - started)
        return response

    return Route(path, endpoint, methods=[method])


async def _respond(parts: _Parts, role: ServiceRole, answer: Answer, request: Request) -> Response:
    """Who may not ask is refused before anything of the body is kept."""
    try:
        try:
            token = await run_sync(_admitted, parts, role, request, limiter=parts.quick)
        except BadRequest:
            await _body(request, keep=False)  # so that the client reads the refusal
            raise
        note(study=token.study_id)
        body = await _body(request)
        return await run_sync(answer, parts, token, request, body)
    except BadRequest as problem:
        return JSONResponse({"error": str(problem)}, problem.status, problem.headers)
    except (StoreUnavailable, SnapshotAway) as problem:
        return JSONResponse({"error": str(problem)}, 503, {"Retry-After": "1"})
    except CoplError as problem:  # the state of the studio, not the request
        return JSONResponse({"error": str(problem)}, 503)


def _admitted(parts: _Parts, role: ServiceRole, request: Request) -> ServiceToken:
    """The token of a request that may be answered; it is counted."""
    token = _token(parts.service.store, request)
    if role not in _MAY[token.role]:
        raise BadRequest(403, f"The token {token.name!r} may ask for {token.role} only; use one of the role {role}.")
    _take(parts, token, 1)
    return token


async def _body(request: Request, *, keep: bool = True) -> bytes:
    most = bodies.LARGEST_BODY
    sentence = f"The body is larger than {most // 2**20} MiB; send fewer texts at once."
    return await bodies.read(request.stream(), most, BODY_SECONDS, sentence, keep=keep)


def _token(store: Store, request: Request) -> ServiceToken:
    secret = secret_of(request.headers.get("authorization", ""))
    token = token_of(store, secret) if secret else None
    if token is None:
        why = "unknown or revoked" if secret else "missing"
        raise BadRequest(
            401,
            f"The token is {why}; send Authorization: Bearer TOKEN with one made by: copl token make NAME",
            {"WWW-Authenticate": "Bearer"},
        )
    return token


def _take(parts: _Parts, token: ServiceToken, cost: int) -> None:
    seconds = parts.limiter.take(token.id, token.per_minute, cost) if cost else 0
    if seconds:
        raise BadRequest(
            429,
            f"The token {token.name!r} may ask {token.per_minute:,} times a minute, and a batch counts each of its "
            f"requests; try again in {seconds} s.",
            {"Retry-After": str(seconds)},
        )


def _no_route(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    sentences = {
        404: "There is nothing at this address; the addresses are listed at /docs.",
        405: f"This address does not answer {request.method}; the methods are listed at /docs.",
    }
    sentence = sentences.get(problem.status_code, f"{problem.detail}.")
    return JSONResponse({"error": sentence}, problem.status_code, dict(problem.headers or {}))
