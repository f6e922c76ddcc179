"""A part of Quality: people whose answers wait for an owner, with the reasons, and what was decided about others."""

from __future__ import annotations

import streamlit as st

from copl_core.records import Quarantine, Role, counted
from copl_core.study import quarantine
from copl_core.study.views import day_and_time
from pages.common import current, in_a_sentence, page_link, person_name
from pages.texts import literal

MOST_SHOWN = 12  # people with buttons; the others follow once some are decided
_DECIDED = {
    "counted": "counts",
    "left out": "left out",
    "shown": "counts, by their own repeated pairs",
    "promoted": "counts, as an owner",
}


def section() -> None:
    """Nothing where nobody has ever been left out."""
    session, me = current()
    waiting, decided = quarantine.waiting(session), quarantine.decided(session)
    if waiting:
        st.subheader("Left out until an owner decides")
        labels = counted(sum(one.labels for one in waiting), "label")
        st.markdown(
            f"**{counted(len(waiting), 'person waits', 'people wait')}**, with {labels}. "
            "Their labels are stored and stay on their own pages; until the decision they train no snapshot and count "
            "in no vote. Each reason is a figure and no verdict: somebody in a hurry looks the same. The figures are "
            "those of now."
        )
    if done := st.session_state.pop("quarantine-done", ""):
        st.success(done)
    for one in waiting[:MOST_SHOWN]:
        person(one, may_decide=me.role == Role.OWNER)
    if len(waiting) > MOST_SHOWN:
        st.write(f"And {len(waiting) - MOST_SHOWN:,} more, once some of these are decided.")
    if decided:
        with st.expander(f"Left out earlier, and decided: {len(decided):,}"):
            st.dataframe(
                [row(one) for one in decided], hide_index=True, width="stretch", key="quarantine-decided", alt="Decided"
            )


def person(one: Quarantine, *, may_decide: bool) -> None:
    with st.container(border=True, key=f"quarantine-{one.user.id}"):
        reasons = " ".join(ground.sentence for ground in one.grounds)
        labels, since = counted(one.labels, "label"), day_and_time(one.since)
        st.markdown(f"**{literal(name(one))}**, {labels}, since {since}. {literal(reasons)}")
        if may_decide:
            with st.container(horizontal=True):
                st.button("Count them", key=f"count-{one.user.id}", on_click=decide, args=(one.user.id, True))
                st.button("Leave them out", key=f"leave-out-{one.user.id}", on_click=decide, args=(one.user.id, False))


@in_a_sentence
def decide(user_id: int, count: bool) -> None:
    session, me = current()
    user = quarantine.decide(session, user_id, count, by=me.id)
    words = "counts in training and votes again" if count else "stays left out of training and votes"
    st.session_state["quarantine-done"] = f"{literal(person_name(user.name, user.kind))} {words}."


def notice() -> None:
    """One line for owners on the first page; nothing where nobody waits."""
    session, me = current()
    waiting = quarantine.n_waiting(session) if me.role == Role.OWNER else 0
    if waiting:
        people = f"{waiting:,} people are" if waiting != 1 else "1 person is"
        st.info(f"{people} left out of training until you decide.", icon=":material/person_alert:")
        page_link("quality", "Quality: who, and why")


def row(one: Quarantine) -> dict:
    return {
        "person": name(one),
        "labels": one.labels,
        "decided": _DECIDED.get(one.decided, one.decided),
        "at": one.decided_at,
        "reasons": " ".join(ground.sentence for ground in one.grounds),
    }


def name(one: Quarantine) -> str:
    return person_name(one.user.name, one.user.kind)
