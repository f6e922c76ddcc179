"""Join the study without a sign-in link: with an invite, or by name if the study is open to anybody."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError
from copl_core.study import access, labelling
from pages.common import current, rerun


def page() -> None:
    session, _ = current()
    secret = st.query_params.get("invite") or st.session_state.get("invite")
    invite = access.find_invite(session, secret) if secret else None
    st.title("Which answer is better?")
    if secret and invite is None:
        st.error(
            "This invite is not valid: it was used, revoked, or has expired. Ask the person who sent it for a new one."
        )
        st.stop()
    if invite is None and not labelling.assignment_settings(session).open:
        st.info(
            "This study is for invited people only. Open the link that you were sent, or ask the study's owner for one."
        )
        st.stop()
    st.session_state["invite"] = secret
    st.write(
        "You will see a question and two answers. Choose the one that you prefer. There is no right or wrong: "
        "people differ, and this study is about how they differ."
    )
    with st.form("join", border=False):
        name = st.text_input("Your name or a nickname", max_chars=80)
        if st.form_submit_button("Begin", type="primary"):
            begin(name, secret if invite else None)


def begin(name: str, secret: str | None) -> None:
    session, _ = current()
    try:
        user, token = access.accept_invite(session, secret, name) if secret else access.enter(session, name)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.session_state.update(user=user, token=token, invite=None)
    st.query_params.clear()
    rerun()


page()
