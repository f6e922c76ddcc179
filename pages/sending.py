"""An answer on its way into the database: it is kept here, and sent again, while the database takes none."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from copl_core.records import Choice, CoplError, StoreUnavailable, User
from copl_core.study import labelling
from copl_core.study.session import Session
from copl_core.study.views import Feedback
from pages.common import current, errors_raised, rerun

TAGS = ("clearer", "more correct", "more helpful", "kinder", "better length", "better example", "style")
RETRY_SECONDS = 3  # between two tries


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as it was given, until it is stored."""

    task_id: int
    choice: Choice
    strength: int
    guidelines: int
    reason: str
    tags: tuple[str, ...]
    milliseconds: int | None


def waits() -> bool:
    """Whether an answer is not stored yet.  Until it is, a key does nothing: a skip or a second answer that reached the
    database first would take its place."""
    return "unsaved" in st.session_state


def store(given: Given) -> bool:
    """Store an answer, or keep it here while the database is busy, full or away; whether it is done with.

    It may be sent any number of times: the study stores one answer to a task.
    """
    again = "unsaved" in st.session_state
    try:
        with errors_raised():
            session, me = current()
        receipt = labelling.submit(
            session,
            given.task_id,
            me.id,
            given.choice,
            strength=given.strength,
            reason=given.reason,
            tags=given.tags,
            milliseconds=given.milliseconds,
            guidelines=given.guidelines,
        )
    except StoreUnavailable as problem:
        st.session_state["unsaved"] = given, str(problem)
        return False
    except CoplError:
        st.session_state.pop("unsaved", None)
        raise
    st.session_state.pop("unsaved", None)
    st.session_state["guidelines read"] = given.guidelines
    if receipt.feedback is not None:
        set_message(verdict(receipt.feedback))
    elif again:
        set_message(outcome := outcome_of_retry(session, me, given.task_id))
        st.toast(outcome)
    elif receipt.label is None:
        set_message("That pair was closed already, so the key did nothing.")
    return True


def outcome_of_retry(session: Session, me: User, task_id: int) -> str:
    """A try may have stored the answer although its own answer was lost on the way."""
    if any(label.task_id == task_id for label in labelling.history(session, me.id)):
        return "Your answer is saved now."
    return "That pair was closed meanwhile, so your answer was not stored."


@st.fragment(run_every=RETRY_SECONDS)
def try_again() -> None:
    """In place of the next pair: the answer that is not stored yet, sent again until it is."""
    given, problem = st.session_state.get("unsaved") or (None, "")
    if given is None:
        rerun()
    st.warning(
        "**Not saved yet, trying again.** Your answer is kept here and sent again every few seconds. Keep this page "
        "open: a reload loses this one answer, and its pair comes back.",
        icon=":material/cloud_off:",
    )
    reason = problem.partition("; ")[0].removesuffix(", so nothing was saved")  # the rest says to try again
    st.caption(reason.rstrip(".") + ".")
    tries = st.session_state["tries"] = st.session_state.get("tries", 0) + 1
    try:
        stored = tries > 1 and store(given)  # the click itself has just tried
    except CoplError as refused:
        set_message(str(refused))
        stored = True
    if stored:
        st.session_state.pop("tries")
        rerun()


def set_message(sentence: str) -> None:
    """A sentence for the next run to show."""
    st.session_state["message"] = sentence


def verdict(feedback: Feedback) -> str:
    return "Practice: that is the known answer." if feedback.right else "Practice: the other answer is the known one."
