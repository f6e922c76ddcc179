"""A part of My taste: everything the person has answered, with search and in-place editing."""

from __future__ import annotations

import math
from dataclasses import replace

import streamlit as st

from copl_core.records import Choice, CoplError, Label, counted
from copl_core.study import labelling, user_profile
from copl_core.study.views import CHOICE_WORDS, PastAnswer, day_and_time
from pages.common import current, rerun
from pages.sending import TAGS
from pages.texts import brief, draw_prompt, draw_response, literal

A_PAGE = 10  # answers
STRENGTHS = {1: "slightly better", 2: "better", 3: "much better"}
SWAPPED = {Choice.LEFT: Choice.RIGHT, Choice.RIGHT: Choice.LEFT}


@st.fragment
def answers() -> None:
    session, me = current()
    everything = user_profile.answer_history(session, me.id)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input("Search the texts and your reasons", key="past-search", width=320)
        choices = st.pills(
            "Answer", list(Choice), selection_mode="multi", format_func=CHOICE_WORDS.get, key="past-choices"
        )
        marks = st.pills("Only", ["edited", "with a reason"], selection_mode="multi", key="past-marks")
    found = [one for one in everything if matches(one, wanted, choices, marks)]
    if message := st.session_state.pop("past-message", ""):
        st.success(message)
    pages = max(1, math.ceil(len(found) / A_PAGE))
    number = min(st.session_state.get("past-page", 1), pages)
    all_of_them = f"{counted(len(everything), 'answer')}, newest first."
    st.caption(
        f"{len(found):,} of {all_of_them}"
        if len(found) < len(everything)
        else f"{all_of_them} When you change an answer, the new one counts; the old one is kept as superseded and does "
        "not train the model."
    )
    for one in found[(number - 1) * A_PAGE : number * A_PAGE]:
        answer(one)
    if pages > 1:
        st.pagination(pages, key="past-page")


def matches(one: PastAnswer, wanted: str, choices: list[Choice], marks: list[str]) -> bool:
    label = one.label
    text = " ".join((one.prompt, one.left.text, one.right.text, label.reason, *label.tags)).casefold()
    return (
        all(word in text for word in wanted.casefold().split())
        and (not choices or label.choice in choices)
        and ("edited" not in marks or bool(one.superseded))
        and ("with a reason" not in marks or bool(label.reason or label.tags))
    )


def answer(one: PastAnswer) -> None:
    label = one.label
    title = f"{literal(brief(one.prompt))} — {in_words(label)}{', when shown again' * one.again}"
    with st.expander(title, key=f"past-{label.id}", on_change="rerun") as whole:
        if not whole.open:
            return
        draw_prompt(one.prompt)
        two_texts(
            *(
                (title + (", preferred" if label.preferred_id == response.id else ""), response.text)
                for title, response in (("A", one.left), ("B", one.right))
            )
        )
        st.caption(past(one))
        edit_form(label)


def edit_form(label: Label, area: str = "") -> None:
    """The choice, strength and reason of one answer, to be changed in place; ``area`` begins the keys of its widgets,
    where a page shows the form twice."""
    with st.form(f"{area}change-{label.id}", border=False):
        with st.container(horizontal=True):
            choice = st.segmented_control(
                "Your answer",
                list(Choice),
                default=label.choice,
                required=True,
                format_func=CHOICE_WORDS.get,
                key=f"{area}choice-{label.id}",
            )
            strength = st.segmented_control(
                "How much (for A and B)",
                list(STRENGTHS),
                default=label.strength,
                required=True,
                format_func=STRENGTHS.get,
                key=f"{area}strength-{label.id}",
            )
        tags = st.pills(
            "What is better about it?",
            (*TAGS, *(tag for tag in label.tags if tag not in TAGS)),
            selection_mode="multi",
            default=list(label.tags),
            key=f"{area}tags-{label.id}",
        )
        reason = st.text_input("Reason", label.reason, key=f"{area}reason-{label.id}")
        if st.form_submit_button("Change this answer", key=f"{area}save-{label.id}"):
            save(label, choice, strength, reason, tuple(tags))


def save(label: Label, choice: Choice, strength: int, reason: str, tags: tuple[str, ...]) -> None:
    session, me = current()
    decided = choice in (Choice.LEFT, Choice.RIGHT)
    if not decided:
        strength = 1
    if not decided or (choice != label.choice and set(tags) == set(label.tags)):
        tags = ()  # they are about the answer that is no longer preferred
    if (choice, strength, reason, set(tags)) == (label.choice, label.strength, label.reason, set(label.tags)):
        st.info("Nothing was changed.")
        return
    try:
        labelling.edit(session, label.id, me.id, choice, strength=strength, reason=reason, tags=tags)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.session_state["past-message"] = (
        "Changed. From now on the new answer counts; the old one is kept as superseded, "
        "and the next snapshot does not learn from it."
        + " The tags, which were about the other answer, are gone."
        * bool(label.tags and not tags)
    )
    rerun()


def in_words(label: Label) -> str:
    words = CHOICE_WORDS[label.choice]
    return f"{words}, {STRENGTHS[label.strength]}" if label.preferred_id is not None else words


def past(one: PastAnswer) -> str:
    """When the person answered, why, and what they answered before."""
    label = one.label
    parts = [f"Answered {day_and_time(label.created_at)}."]
    if label.reason or label.tags:
        parts.append(f"Your reason: {'; '.join(filter(None, (', '.join(label.tags), label.reason.rstrip('.'))))}.")
    parts += [other_time(label, other) for other in one.other_times]
    if not label.position_known:
        parts.append("Which answer was on the left is not known; the order here is drawn.")
    if one.superseded:
        changed = "" if label.edited_at is None else f" {day_and_time(label.edited_at)}"
        parts.append(
            f"Changed{changed}; before: {'; '.join(in_words(older) for older in one.superseded)} (superseded)."
        )
    return literal(" ".join(parts))


def other_time(label: Label, other: Label) -> str:
    """What the person answered to the same pair at another time, in the order of sides of this one."""
    swapped = other.left_id != label.left_id
    choice = SWAPPED.get(other.choice, other.choice) if swapped else other.choice
    when = f"This pair was also shown on {day_and_time(other.created_at)}{', with the sides swapped' * swapped}"
    same = "the same" if choice == label.choice else in_words(replace(other, choice=choice))
    return f"{when}; your answer was {same}. Each answer counts, and together they tell how consistent you are."


def two_texts(*sides: tuple[str, str]) -> None:
    for column, (title, text) in zip(st.columns(len(sides), gap="medium"), sides, strict=True):
        with column:
            st.caption(title)
            draw_response(text)
