"""A part of My taste and of Quality: labels that the model would not expect, as a question to look at them again."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, counted_people
from copl_core.study import suspects
from copl_core.study.suspects import SuspectLabel, SuspectView
from copl_core.study.views import day_and_time
from pages.answer_history import edit_form, in_words, two_texts
from pages.common import current, in_a_sentence, person_name, source_line
from pages.texts import brief, draw_prompt, literal

ROW = 72  # pixels: three lines, so that a text can be read where it stands
TEXT = 230  # pixels of a column of texts: all columns are in sight on a screen of 1440


def own() -> None:
    """Up to three of the person's own labels, each with a button to change it; nothing where there is none."""
    session, me = current()
    try:
        found = suspects.own_suspects(session, me.id)
    except CoplError:
        return  # the top of the page says that the snapshot is damaged
    if not found:
        return
    st.subheader("Would you look at this again?" if len(found) == 1 else "Would you look at these again?")
    st.caption(
        "Your other answers let the model expect something else here. It may well be wrong, and tastes have "
        "exceptions: only you know."
    )
    for one in found:
        question(one)


def question(one: SuspectLabel) -> None:
    with st.expander(f"{literal(brief(one.prompt))} — {in_words(one.label)}", key=f"second-look-{one.label.id}"):
        draw_prompt(one.prompt)
        two_texts(("You preferred", one.preferred.text), ("The other answer", one.other.text))
        st.caption(
            f"By your other answers, the model expects {one.expected:.0%} for the other answer. "
            f"Answered {day_and_time(one.label.created_at)}."
        )
        with st.container(horizontal=True):
            with st.popover("Change my answer", icon=":material/edit:"):
                st.caption(f"A is the answer that {'you preferred' if first(one) else 'you did not prefer'}.")
                edit_form(one.label, "again-")
            st.button("It is right", key=f"keep-{one.label.id}", on_click=keep, args=(one.label.id,))


def first(one: SuspectLabel) -> bool:
    return one.label.preferred_id == one.label.left_id


@in_a_sentence
def keep(label_id: int) -> None:
    """The person's word that a label is right, for good."""
    session, me = current()
    suspects.confirm(session, label_id, me.id)


def of_the_study() -> None:
    """The few most suspect labels of the study, as a table."""
    session, _ = current()
    st.subheader("Would you look at this again?")
    try:
        view = suspects.suspect_labels(session)
    except CoplError as problem:
        st.error(str(problem))
        return
    if view is None:
        st.write("The model has not been trained yet; it will name labels here that it does not expect.")
        return
    st.write(summary(view))
    if view.items:
        st.dataframe(
            [row(one) for one in view.items],
            hide_index=True,
            width="stretch",
            height="content",
            row_height=ROW,
            key="second-look",
            alt="Labels that the model does not expect",
            column_config={"expected": st.column_config.NumberColumn("other expected", format="%.0f%%")}
            | dict.fromkeys(("question", "preferred", "the other answer"), st.column_config.TextColumn(width=TEXT)),
        )
        st.caption(
            "“Other expected” is the probability that this person prefers the other answer, by their other labels. "
            "People see their own labels of this kind on My taste and may change them, or say that they are right: "
            "then they leave this list. Nobody is listed for them above, and they train the model as all others do."
        )
    source_line("Each label is judged by a model without it.", view.snapshot)


def summary(view: SuspectView) -> str:
    if not view.n_users:
        return "The model does not yet predict anybody's answers better than chance, so it names no label here."
    among = f"{view.n_labels:,} labels of {counted_people(view.n_users)} whom the model predicts better than chance"
    if not view.n_suspect:
        return f"None of the {among} is clearly different from what it expects and still to be looked at."
    some = "1 label is" if view.n_suspect == 1 else f"{view.n_suspect:,} labels are"
    shown = f" The {len(view.items)} most unexpected are listed." if len(view.items) < view.n_suspect else ""
    return (
        f"Of {among}, **{some} clearly different from what the model expects of the same person**. Each may be a "
        f"mistake, or a preference that the model does not know. Labels that their person has changed or confirmed are "
        f"not among them.{shown}"
    )


def row(one: SuspectLabel) -> dict:
    return {
        "person": person_name(one.user.name, one.user.kind),
        "expected": 100 * one.expected,
        "question": brief(one.prompt),
        "preferred": brief(one.preferred.text),
        "the other answer": brief(one.other.text),
    }
