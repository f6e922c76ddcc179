"""Open pages change soon after the champion does, in every process that shares the database.

One thread of the process looks a few times a second, with one query for all of its open pages, which do not look
themselves (``pages.following``).  Once the files of another champion are on this machine, each page that shows an
older one runs a fragment again, as if its browser requested that: it looks up who is signed in, and draws the page.
"""

from __future__ import annotations

import logging
import traceback
from asyncio import AbstractEventLoop
from threading import Event

from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime import Runtime

from copl_core.records import CoplError
from copl_core.study import runs
from pages import following
from pages.following import OpenPage
from web.installation import installation

log = logging.getLogger("copl.app")
LOOK_SECONDS = 0.25  # between two looks for another champion


def follow(stop: Event, loop: AbstractEventLoop) -> None:
    """Run pages again that show an older champion, until ``stop`` is set.

    Args:
        loop: of the server.
    """
    while not stop.wait(LOOK_SECONDS):
        try:
            look(loop)
        except CoplError:  # the database is away: it is tried again
            pass
        except Exception:  # it must not end the thread
            log.error("open pages could not follow the champion\n%s", traceback.format_exc())


def look(loop: AbstractEventLoop) -> None:
    """One look; without open pages nobody looks at the database.

    Raises:
        CoplError: the database does not answer.
    """
    pages = [page for page in following.open_pages() if _is_open(page)]
    if not pages:
        return
    store, _ = installation()
    champions = {study.id: study.champion for study in store.studies()}
    for page in pages:
        champion = champions.get(page.session.id)
        if champion not in (None, page.shown, page.sent) and _is_decided(page):
            loop.call_soon_threadsafe(run_again, page, champion)


def _is_open(page: OpenPage) -> bool:
    there = Runtime.exists() and Runtime.instance().get_app_session(page.tab) is not None
    if not there:
        following.forget(page.tab)
    return there


def _is_decided(page: OpenPage) -> bool:
    """Whether the files of the champion are here, or cannot be had, which the page then says."""
    away = runs.champion_away(page.session)
    return away is None or away.failed


def run_again(page: OpenPage, champion: str) -> None:
    """Run the page's fragment, on the loop of the server, unless a script of that tab runs: then at a later look."""
    tab = Runtime.instance().get_app_session(page.tab)
    if tab is None or tab._scriptrunner is not None:
        return
    state = ClientState()
    state.CopyFrom(tab._client_state)  # what the browser has sent last: without it, its widgets would be reset
    state.fragment_id, state.is_auto_rerun = page.fragment, True
    page.sent = champion
    tab.request_rerun(state)
