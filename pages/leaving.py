"""A person's own data, to download, and their way out of the study; on the Study page the same for anybody."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, User, counted
from copl_core.study import forget
from copl_core.study.session import Session
from pages.common import current, download
from pages.texts import literal

LEFT = "left the study"  # in the state of a tab: what happened, in sentences


def own() -> None:
    """The part of My taste: what is stored of the person, and the button that deletes it."""
    session, me = current()
    st.subheader("Your data")
    st.download_button(
        "Download my data",
        download(_file),
        file_name="my-data.json",
        mime="application/json",
        key="my-data",
        on_click="ignore",
        help="One file that people can read: your answers with their texts and reasons, dates, sign-ins, and what the "
        "model believes of you.",
    )
    with st.expander("Delete me", key="delete-me", on_change="rerun") as opened:
        if opened.open:
            _ask(session, me, "Type your name to delete all of it")


def of_person(user: User) -> None:
    """The part of an owner's list of people."""
    session, _ = current()
    with st.expander(f"Delete {literal(user.name)}", key=f"delete-{user.id}", on_change="rerun") as opened:
        if opened.open:
            _ask(session, user, "Type the name to delete all that is this person's")


def show_outcome() -> None:
    """What happened when somebody left, shown once."""
    for sentence in st.session_state.pop(LEFT, ()):
        st.success(literal(sentence))


def _ask(session: Session, user: User, words: str) -> None:
    _, me = current()
    try:
        n, happens = forget.leaving(session, user.id, own=user.id == me.id)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.markdown(f"{counted(n, 'answer')}. {happens}")
    if problem := st.session_state.pop("leaving-problem", ""):
        st.error(problem)
    st.text_input(f"{words}: {literal(user.name)}", key=f"leaving-name-{user.id}", autocomplete="off")
    st.button("Delete for good", key=f"leave-{user.id}", on_click=_leave, args=(user.id, user.name))


def _leave(user_id: int, name: str) -> None:
    session, me = current()
    if st.session_state.get(f"leaving-name-{user_id}", "").strip() != name:
        st.session_state["leaving-problem"] = f"Nothing is deleted: the name to type is {literal(name)}."
        return
    try:
        done = forget.forget(session, user_id, by=me.id)
    except CoplError as problem:
        st.session_state["leaving-problem"] = str(problem)
        return
    st.session_state[LEFT] = [forget.to_the_person(done)] if user_id == me.id else forget.in_words(done)


def _file(session: Session, me: User) -> bytes:
    return forget.my_data_file(forget.my_data(session, me.id))
