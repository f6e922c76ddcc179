"""A part of the settings page: simulated people, and the studies of the installation: new ones, imports, exports."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, Kind
from copl_core.study import access, deletion
from pages.account import address, open_study
from pages.bundles import bundle_button, bundle_part
from pages.common import current, rerun
from pages.exports import export_part
from pages.imports import import_part
from pages.members import perform
from pages.texts import literal


def studies() -> None:
    simulated()
    models()
    export_part()
    import_part()
    bundle_part()
    st.subheader("A new study")
    st.write("A new study is for invited people only, and its owner is you. Nothing changes in this one.")
    new_study()
    newcomers()
    delete_part()


def simulated() -> None:
    session, me = current()
    st.subheader("Simulated people")
    included = session.record.include_simulated
    wanted = st.toggle(
        "Include simulated people",
        value=included,
        key="settings-simulated",
        help="When this is off, no page shows them and the next snapshot does not learn from them. Their labels are "
        "kept, so you can switch it on again.",
    )
    if wanted != included:
        access.include_simulated(session, wanted, by=me.id)
        rerun()


def models() -> None:
    """The switch for language models, where the study has any."""
    session, me = current()
    if not access.user_counts(session).get(Kind.MODEL):
        return
    st.subheader("Language models")
    wanted = st.toggle(
        "Learn from language models too",
        value=session.record.include_models,
        key="settings-models",
        help="Some labels were made by language models. When this is off, the next snapshot and all votes leave them "
        "out, and only lists show them, marked. Their labels are kept.",
    )
    if wanted != session.record.include_models:
        access.include_models(session, wanted, by=me.id)
        rerun()


def new_study() -> None:
    session, me = current()
    with st.form("new-study"):
        name = st.text_input("Name of an empty study", key="new-study-name", max_chars=200)
        if st.form_submit_button("Create", key="new-study-make"):
            try:
                made = access.create_study(session, name, browser=st.session_state.get("browser", ""), by=me.id)
            except CoplError as problem:
                st.error(str(problem))
            else:
                open_study(made.id)


def delete_part() -> None:
    """The end of this study, which its name confirms; a copy of it is offered first."""
    session, me = current()
    with st.expander("Delete this study", key="delete-study", on_change="rerun") as opened:
        if not opened.open:
            return
        name = session.record.name
        st.markdown(literal(deletion.before_deletion(session)))
        bundle_button("bundle-before-deletion")
        with st.form("delete-study-form", border=False):
            typed = st.text_input(
                f"Type the name of the study to delete all of it: {literal(name)}",
                key="delete-study-name",
                autocomplete="off",
            )
            pressed = st.form_submit_button("Delete the study for good", key="delete-study-make")
        if pressed:
            delete_study(typed)


def delete_study(typed: str) -> None:
    """Delete this study and open another one of the visitor, or else what anybody sees."""
    session, me = current()
    try:
        with st.spinner("Deleting"):
            done = deletion.delete_study(session, typed, by=me.id)
    except CoplError as problem:
        st.error(literal(str(problem)))
        return
    for sentence in done.sentences():
        st.success(literal(sentence))
    others = [study.id for study in st.session_state.get("studies", tuple)() if study.id != session.id]
    st.link_button("Go on", f"{address()}/?study={others[0]}" if others else f"{address()}/", type="primary")
    st.stop()  # what follows is of a study that is there


def newcomers() -> None:
    session, _ = current()
    st.subheader("People without a link")
    if access.is_front(session):
        st.write("People who come to the address of the studio without a link see this study.")
        return
    st.write(
        "People who come to the address of the studio without a link see one study. Everybody who has joined another "
        "one stays there."
    )
    st.button(
        "Show them this study",
        key="make-front",
        on_click=perform,
        args=(access.make_front,),
        kwargs={"done": "People without a link now see this study."},
    )
