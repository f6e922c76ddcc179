"""Addresses by which a balancer and a monitor watch a process, the app as well as the trainer.

``/healthz``: the process answers.  ``/readyz``: a balancer may send people here.  ``/metrics``: counts, as Prometheus
reads them.
The first two are open and answer with a word.  Why a process is not ready goes to this machine alone, and the counts to
everybody who brings a token of a study, too.  Studies are numbers there, and no person has a name.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from threading import Lock, Thread
from typing import Generic, TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

from copl_core.records import CoplError, Run, RunState, StoreUnavailable, StudyRecord
from copl_core.serving.headers import BARE_POLICY, SecurityHeaders, security_headers
from copl_core.serving.metrics import CONTENT_TYPE, head
from copl_core.serving.secrets import secret_of
from copl_core.store import Store
from copl_core.study.service_tokens import token_of
from copl_core.study.session import Session

RECENT_SECONDS = 300.0  # of labels that are recent
KINDS = ("graph", "full")  # of runs
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")  # headers of a proxy: the caller is somebody else
_READY_SECONDS, _COUNTED_SECONDS = 1.0, 5.0  # that an answer is kept, so that asking often costs nothing
_THREADS = 4  # for all questions at once: where the database hangs, they wait and take no thread of the pages
Made = TypeVar("Made")


class Watched:
    """A process that is watched.

    Args:
        opened: the store, opened at the first question.
        study: a study of it, with its open snapshots.
    """

    def __init__(self, opened: Callable[[], Store], study: Callable[[int], Session]) -> None:
        self.opened, self._study = opened, study
        self.limiter = CapacityLimiter(_THREADS)
        self._problems = _Kept(self._look, _READY_SECONDS)
        self._has_been_ready = False
        self.text = _Kept(self._text, _COUNTED_SECONDS)  # its counts

    def problem(self) -> str:
        """Why it cannot do all of its work; empty where it can."""
        own, shared = self._problems()
        return own or shared

    def unready(self) -> str:
        """Why a balancer should send nobody here; empty where it may.

        Once a process has been ready, only tables of another version close it.  Database and storage are shared: while
        they are away every app would be closed, with the open pages and the answers that these send again.
        """
        own, shared = self._problems()
        self._has_been_ready |= not (own or shared)
        return own or ("" if self._has_been_ready else shared)

    def _look(self) -> tuple[str, str]:
        """(what is wrong with this process or its tables, what is wrong with what all processes share)."""
        try:
            store = self.opened()
            own = store.schema_problem()
        except StoreUnavailable as away:
            return "", str(away)
        except CoplError as error:
            return str(error), ""
        return own, "" if own else self._closed_champions(store)

    def _closed_champions(self, store: Store) -> str:
        """Why no champion opens; one damaged study does not close the others."""
        try:
            closed = [self._closed(study) for study in store.studies() if study.champion]
        except CoplError as error:
            return str(error)
        return next(filter(None, closed), "") if all(closed) else ""

    def _closed(self, study: StudyRecord) -> str:
        """Why a champion does not open; empty where it does."""
        try:
            self._study(study.id).snapshot()
            return ""
        except CoplError as problem:
            return str(problem)

    def _text(self) -> str:
        lines = _family("copl_ready", "Whether the process can do its work.", {"": int(not self.problem())})
        with suppress(CoplError):  # then copl_ready is 0
            lines += self._counts(self.opened())
        return "\n".join(lines) + "\n"

    def _counts(self, store: Store) -> list[str]:
        studies, recent = store.studies(), store.recent_labels(RECENT_SECONDS)
        champions = [study for study in studies if study.champion]
        return [
            *_family("copl_labels", "Labels that training learns from.",
                     {_by(study=one.id): store.label_count(one.id) for one in studies}),
            *_family("copl_labels_recent", "Labels of the last five minutes, at most 20,000.",
                     {_by(study=one.id): recent.get(one.id, 0) for one in studies}),
            *_run_lines(store.active_runs()),
            *_family("copl_run_seconds", "Seconds that the last finished run took.", _durations(store, studies)),
            *_family("copl_champion_info", "The snapshot that serves a study.",
                     {_by(study=one.id, snapshot=one.champion): 1 for one in champions}),
            *_family("copl_champion_opens", "Whether it could be opened.",
                     {_by(study=one.id): int(not self._closed(one)) for one in champions}),
            *_family("copl_trainer_heartbeat_age_seconds", "Seconds since a trainer's last heartbeat.", _ages(store)),
        ]  # fmt: skip


class _Kept(Generic[Made]):
    """The result of a function, made again after some seconds, by one thread at a time."""

    def __init__(self, make: Callable[[], Made], seconds: float) -> None:
        self._make, self._seconds, self._lock = make, seconds, Lock()
        self._made: tuple[float, Made] | None = None

    def __call__(self) -> Made:
        with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > self._seconds:
                made = self._make()
                self._made = time.monotonic(), made
            return self._made[1]


# ---- counts as text


def _by(**labels: object) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def _family(name: str, text: str, values: dict[str, float]) -> list[str]:
    return [*head(name, "gauge", text), *(f"{name}{labels} {value}" for labels, value in values.items())]


def _run_lines(active: Iterable[Run]) -> Iterator[str]:
    counts = Counter((run.state, run.kind) for run in active)
    for state, text in ((RunState.QUEUED, "Runs that wait for a trainer."), (RunState.RUNNING, "Runs in a trainer.")):
        yield from _family(f"copl_runs_{state.value}", text, {_by(kind=kind): counts[state, kind] for kind in KINDS})


def _durations(store: Store, studies: Iterable[StudyRecord]) -> dict[str, float]:
    found = {_by(study=one.id, kind=kind): _seconds(store.runs(one.id, kind=kind)) for one in studies for kind in KINDS}
    return {labels: seconds for labels, seconds in found.items() if seconds is not None}


def _seconds(newest_first: Iterable[Run]) -> float | None:
    for run in newest_first:
        if run.state == RunState.DONE and run.started_at and run.ended_at:
            return (run.ended_at - run.started_at).total_seconds()
    return None


def _ages(store: Store) -> dict[str, float]:
    """Of the trainer that was seen last, by the clock of the database."""
    seen = store.trainers()
    return {"": round(max(0.0, seen[0].silent_seconds), 3)} if seen else {}


# ---- over HTTP


def routes(watched: Watched) -> list[Route]:
    """The three addresses, for any ASGI application."""
    return [
        Route("/healthz", _healthz),
        Route("/readyz", _readyz(watched)),
        Route("/metrics", _metrics(watched)),
    ]


def answer_beside(watched: Watched, address: str, port: int) -> None:
    """Answer from a thread of its own until the process ends; ``install.launcher.check_port`` looks first."""
    headers = Middleware(SecurityHeaders, lambda scope: security_headers(BARE_POLICY))
    app = Starlette(routes=routes(watched), middleware=[headers])
    server = Server(Config(app, host=address, port=port, log_level="warning", access_log=False, log_config=None))
    Thread(target=server.run, name="health", daemon=True).start()


def may_read(opened: Callable[[], Store], request: Request) -> bool:
    """Whether somebody may read counts: from this machine and not through a proxy, or with a token of any study.

    Raises:
        CoplError: the database cannot say whether the token is one.
    """
    secret = secret_of(request.headers.get("authorization", ""))
    return is_near(request) or bool(secret and token_of(opened(), secret))


def is_near(request: Request) -> bool:
    """Whether a program of this machine asks, by itself."""
    try:
        loopback = request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:  # a Unix socket has no such address
        return False
    return loopback and not any(name in request.headers for name in _FORWARDED)


def refusal() -> Response:
    sentence = "Counts go to this machine alone, or with Authorization: Bearer TOKEN, made by: copl token make NAME"
    return PlainTextResponse(sentence, 403)


async def _healthz(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _readyz(watched: Watched) -> Callable[[Request], Awaitable[Response]]:
    def answer(request: Request) -> Response:
        problem = watched.unready()
        if not problem:
            return JSONResponse({"status": "ready"})
        why = {"error": problem} if is_near(request) else {}
        return JSONResponse({"status": "not ready"} | why, 503)

    return _in_a_thread(watched, answer)


def _metrics(watched: Watched) -> Callable[[Request], Awaitable[Response]]:
    def answer(request: Request) -> Response:
        if not may_read(watched.opened, request):
            return refusal()
        return PlainTextResponse(watched.text(), media_type=CONTENT_TYPE)

    return _in_a_thread(watched, answer)


def _in_a_thread(watched: Watched, answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await run_sync(answer, request, limiter=watched.limiter)
        except CoplError as problem:
            return PlainTextResponse(str(problem) if is_near(request) else "not ready", 503)

    return endpoint
