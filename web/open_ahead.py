"""Champions are read before somebody waits for them: after a start of the app, and when another snapshot becomes the
champion.  At a million people that takes seconds.

One thread does so for each study that this process serves, beginning with the first request of a browser, or of a
balancer that asks whether the app is ready.  What it cannot read, the pages say.  Another thread begins with it, for
the pages that are open meanwhile (``web.following``).
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Any

from copl_core.records import CoplError
from copl_core.study import ahead
from copl_core.study.session import Session
from web.following import follow
from web.installation import served

log = logging.getLogger("copl.app")
LOOK_SECONDS = 2.0  # between two looks for another champion


class OpenAhead:
    """Middleware that starts both threads with the first request."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self._starting = Lock()
        self._started = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self._start()
        await self.app(scope, receive, send)

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                Thread(target=keep_open, args=(Event(),), name="open ahead", daemon=True).start()
                loop = asyncio.get_running_loop()
                Thread(target=follow, args=(Event(), loop), name="follow the champion", daemon=True).start()


def keep_open(stop: Event) -> None:
    """Read each new champion of the studies that are served, until ``stop`` is set."""
    known: dict[int, object] = {}
    while not stop.is_set():
        try:
            for session in served():
                known[session.id] = open_champion(session, known.get(session.id))
        except CoplError:  # of a database or a snapshot that is away: it is tried again
            pass
        except Exception:  # it must not end the thread
            log.error("a snapshot could not be opened ahead\n%s", traceback.format_exc())
        stop.wait(LOOK_SECONDS)


def open_champion(session: Session, known: object) -> object:
    """Read the champion, unless it is the ``known`` one; returns what says which one it is.

    Raises:
        CoplError: its files are missing or damaged.
    """
    record = session.record
    wanted = (record.champion, record.forgotten, record.include_simulated, record.include_models)
    if wanted != known:
        ahead.read_ahead(session)
    return wanted
