"""The open pages of this process that follow the champion: each one notes which snapshot it shows.

``web.following`` looks at the database for all of them, and runs those again that show another snapshot.  So a page at
rest costs its browser nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamlit.runtime.scriptrunner_utils.script_run_context import ThreadState, get_script_run_ctx

from copl_core.study.session import Session


@dataclass(slots=True)
class OpenPage:
    """A page in a tab of a browser."""

    tab: str  # streamlit's name of it
    fragment: str  # that is run again, and decides what that changes
    session: Session
    shown: str | None  # version of the snapshot; None: there is none yet
    sent: str | None = None  # the champion for which it has been run again


_PAGES: dict[str, OpenPage] = {}  # by tab


def follow(session: Session, shown: str | None) -> None:
    """Note, in a fragment of a page, which snapshot the page shows."""
    context, fragment = get_script_run_ctx(), ThreadState.get().fragment_id
    assert context is not None and fragment is not None  # a page runs it
    _PAGES[context.session_id] = OpenPage(context.session_id, fragment, session.acting(None), shown)


def open_pages() -> list[OpenPage]:
    return list(_PAGES.values())


def forget(tab: str) -> None:
    """The page in this tab is closed, or was left."""
    _PAGES.pop(tab, None)
