"""What several pages share: who is here, the colours, and the lines that say where a figure comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import urlencode

import streamlit as st

from copl_core.records import CoplError, Kind, User
from copl_core.study import runs
from copl_core.study.session import Session

# Okabe & Ito's colour-blind-safe palette, less black, which is lost on a dark page; a group keeps its colour on every
# page and in every snapshot.
GROUP_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
NO_GROUP_COLOUR = "#9A9A9A"
GATES = None  # sequential, from the theme: it has one for light and one for dark
DIFFERENCES = "RdBu"  # diverging, centred on zero
# Numbers that points wear: one hue, which colour-blind readers see as others do, without the end that is lost on the
# page's ground.
NUMBERS = {
    "light": ("#569eca", "#3488bd", "#1772ac", "#085a8c", "#05416a"),
    "dark": ("#1a6d99", "#2f83b1", "#4f99c4", "#76b0d4", "#a2c9e2", "#d3e5f1"),
}
# Chosen segments, and buttons under the pointer, are drawn in the accent; in the dark no accent is light enough for
# that and yet dark enough for the white on the main buttons, and the theme has no word for the one without the other.
LEGIBLE = """<style>
[data-testid=stButtonGroup] [data-selected],
button:is([kind=secondary], [kind=tertiary]):is(:hover, :focus, :active, [aria-expanded=true]):enabled {
  color: light-dark(#005f94, #7cc0ea) !important;
}
</style>"""
PLOT = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 2}}


def enter(session: Session, user: User | None) -> None:
    """Let the page that runs next know where it is and for whom."""
    st.session_state["session"], st.session_state["user"] = session, user
    st.html(LEGIBLE)
    if user is not None:
        st.sidebar.caption(f"{session.record.name}  \nSigned in as {user.name}")


def here() -> tuple[Session, User]:
    """The study and the user of this session.

    The very first visit to a fresh server runs a page of the ``pages`` folder by itself, before the front door can
    say which pages there are.  Naming any page ends that mode, and the browser then asks again, through the front door.
    """
    if "session" not in st.session_state:
        st.navigation([st.Page(lambda: None, title="CoPL Studio")], position="hidden")
        asked_for = json.dumps(f"{st.context.url}?{urlencode(st.query_params.to_dict())}").replace("<", "\\u003c")
        st.html(f"<script>location.replace({asked_for})</script>", unsafe_allow_javascript=True)
        st.stop()
    return st.session_state["session"], st.session_state["user"]


@contextmanager
def drawing() -> Iterator[None]:
    """A run of a page, which knows whether the one before it was broken off."""
    st.session_state["broken off"] = st.session_state.get("drawing", False)
    st.session_state["drawing"] = True
    yield
    st.session_state["drawing"] = False


def again() -> NoReturn:
    """Run the page anew by its own wish, which breaks nothing off."""
    st.session_state["drawing"] = False
    st.rerun()


def tell_again(*keys: str) -> None:
    """Widgets that were given a value get it once more where the run before this one was broken off.

    A value that a page puts into a widget is told the browser in one run.  A click on a page that still loads breaks
    that run off: the browser may never have drawn the widget with its value, shows it empty, and sends that back.
    """
    if st.session_state.get("broken off"):
        for key in keys:
            if key in st.session_state:
                st.session_state[key] = st.session_state[key]


def group_name(group: int | None) -> str:
    return "No group yet" if group is None else f"Group {group + 1}"


def group_colour(group: int | None) -> str:
    return NO_GROUP_COLOUR if group is None else GROUP_COLOURS[group % len(GROUP_COLOURS)]


def numbers() -> tuple[str, ...]:
    """The scale for numbers in the theme of who looks."""
    return NUMBERS["dark" if st.context.theme.type == "dark" else "light"]


def person_name(name: str, kind: Kind) -> str:
    return f"{name} (simulated)" if kind == Kind.SIMULATED else name


def readable(text: str) -> str:
    """Markdown of a stored text with dollar signs as themselves, since prices are commoner here than formulas."""
    return text.replace("$", "\\$")


def trouble(problem: CoplError) -> None:
    """A mishap as a sentence, and the end of the page."""
    st.error(str(problem))
    st.stop()


def no_snapshot(what: str) -> None:
    """The honest empty state before the first snapshot, and the end of the page."""
    session, _ = here()
    status = runs.trainer_status(session)
    if status.run is not None:
        st.info(
            f"{what} comes from a snapshot, and the first one is being made right now "
            f"({status.run.phase or 'starting'}). This page fills itself when it is done."
        )
        _wait_for_snapshot()
    elif status.alive:
        st.info(
            f"{what} comes from a snapshot, and there is none yet. The trainer makes the first one as soon as the "
            "study holds 10 labels."
        )
        _wait_for_snapshot()
    else:
        st.info(
            f"{what} comes from a snapshot, and there is none yet. No trainer is running; start one in a terminal "
            "with `python -m copl_core worker`."
        )
    st.stop()


@st.fragment(run_every=2)
def _wait_for_snapshot() -> None:
    session, _ = here()
    if session.record.champion is not None:
        again()


@st.fragment(run_every=5)
def newer_snapshot(shown: str) -> None:
    """Draw the page again when the trainer has moved the champion."""
    session, _ = here()
    if session.record.champion != shown:
        again()


def source_line(text: str, snapshot: str) -> None:
    """One line under a figure: what it shows, what it does not, and from which snapshot."""
    st.caption(f"{text} Snapshot {snapshot}.")
