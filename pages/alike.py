"""A part of Quality for owners: people whose answers are more alike than taste explains; nobody is left out for it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from copl_core.records import Role, User
from copl_core.study import access, label_quality
from copl_core.study.views import AcceptedAlike, AlikePerson
from pages.common import current, in_a_sentence, listing, person_name
from pages.texts import literal

MOST_SHOWN = 12  # people with a button; the others follow once some of these are left out
MOST_NAMED = 3  # others whom a card names


def section() -> None:
    """Nothing where nobody is named, and for those who are no owners."""
    session, me = current()
    done = st.session_state.pop("alike-done", "")
    people = label_quality.alike_people(session) if me.role == Role.OWNER else ()
    if people:
        st.subheader("Answers more alike than taste explains")
        many = f"**{len(people):,} {'people give' if len(people) != 1 else 'person gives'}** answers"
        st.markdown(
            f"{many} that follow those of others more exactly than careful people follow their own. Either may have "
            "copied the other; somebody with two accounts, people who answer together, or a file that was imported "
            "twice look the same. **Nobody is left out for it**: their labels count unless you leave somebody out."
        )
    if done:
        st.success(done)
    for one in people[:MOST_SHOWN]:
        person(one)
    if len(people) > MOST_SHOWN:
        st.write(f"And {len(people) - MOST_SHOWN:,} more, once some of these are left out.")
    accepted(label_quality.accepted_alike(session) if me.role == Role.OWNER else ())


def accepted(known: Sequence[AcceptedAlike]) -> None:
    """Those who are not named any more, and the way back."""
    if not known:
        return
    with st.expander(f"Accepted as alike: {len(known):,}"):
        for number, one in enumerate(known):
            names = listing([f"**{literal(name(user))}**" for user in one.users])
            with st.container(border=True, key=f"alike-accepted-{number}"):
                st.markdown(f"{names} {'answer alike' if one.users[1:] else 'answers like others'}.")
                st.button("Name them again", key=f"alike-again-{number}", on_click=name_again, args=(one.accounts,))


def person(one: AlikePerson) -> None:
    with st.container(border=True, key=f"alike-{one.user.id}"):
        st.markdown(f"**{literal(name(one.user))}.** {sentence(one)}")
        with st.container(horizontal=True):
            st.button("Leave them out", key=f"alike-out-{one.user.id}", on_click=leave_out, args=(one.user.id,))
            st.button("Do not ask again", key=f"alike-keep-{one.user.id}", on_click=accept, args=(one.user.id,))


def sentence(one: AlikePerson) -> str:
    figures = one.figures
    words = (
        f"Answers of others forecast {figures.hits:,} of {figures.n:,} ({figures.hits / figures.n:.1%}); of a careful "
        f"person it would be {figures.bound:.1%} at most."
    )
    if not one.others:
        return words
    named = [f"**{literal(name(other))}**" for other in one.others[:MOST_NAMED]]
    if len(one.others) > MOST_NAMED:
        named.append(f"{len(one.others) - MOST_NAMED:,} more")
    return f"{words} Most alike: {listing(named)}."


@in_a_sentence
def leave_out(user_id: int) -> None:
    session, me = current()
    user = access.exclude(session, user_id, True, by=me.id)
    st.session_state["alike-done"] = (
        f"{literal(name(user))} is left out of training and votes. Under “Exclude somebody from training” you can "
        "include them again."
    )


@in_a_sentence
def accept(user_id: int) -> None:
    session, me = current()
    user = access.user(session, user_id)
    label_quality.accept_alike(session, user_id, by=me.id)
    st.session_state["alike-done"] = (
        f"The answers of {literal(name(user))} and of those most like them count, and this page names them no more "
        "unless another account answers like them. “Accepted as alike” below takes that back."
    )


@in_a_sentence
def name_again(accounts: frozenset[int]) -> None:
    session, me = current()
    label_quality.end_alike(session, accounts, by=me.id)
    st.session_state["alike-done"] = "These accounts are named again while their answers are too much alike."


def name(user: User) -> str:
    return person_name(user.name, user.kind)
