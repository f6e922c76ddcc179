"""A part of the reward page: the visitor answers five pairs, and the model knows nothing else about them."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, Pair
from copl_core.study import rewards
from pages.common import current
from pages.texts import draw_prompt, draw_response

COUNT = 5


def trying() -> bool:
    """Whether the visitor has opened the five answers."""
    return bool(st.session_state.get("trying"))


def asking() -> bool:
    """Whether a pair is on screen: the page then shows it in the place of its own fields."""
    return trying() and len(answers()) < COUNT


def answers() -> list[tuple[int, int]]:
    """(preferred, rejected) response ids given so far; they live in this browser session and are not stored."""
    return st.session_state.setdefault("five answers", []) if trying() else []


def try_button() -> None:
    """The button that opens the five answers."""
    st.button(
        "Try it as yourself: five answers",
        key="try",
        icon=":material/bolt:",
        width="stretch",
        disabled=trying(),
        on_click=begin,
        help="Answer five pairs, and see at once which answers the model expects you to prefer.",
    )


def five_answers() -> None:
    """The next pair, and after the last one what can be done with the answers; nothing until they are opened."""
    if not trying():
        return
    if not asking():
        st.write(f"The row “You by these {COUNT} answers” rests on these answers alone.")
        with st.container(horizontal=True):
            st.button("Answer five other pairs", on_click=begin)
            st.button("Leave them out", on_click=end)
        return
    with st.container(border=True, key="five"):
        next_pair()


def next_pair() -> None:
    """The most informative pair about a person with the answers so far."""
    session, _ = current()
    given = answers()
    try:
        pair = rewards.next_query(session, given)
    except CoplError as problem:
        st.error(str(problem))
        pair = None
    else:
        if pair is None:
            st.info("This snapshot knows no other pair of the study.")
    if pair is not None:
        one_pair(pair, len(given) + 1)
    with st.container(horizontal=True):
        if given:
            st.button("Start over", on_click=begin)
        st.button("Stop", key="stop-trying", on_click=end)


def one_pair(pair: Pair, number: int) -> None:
    st.markdown(
        f"**Pair {number} of {COUNT}: which answer do you prefer?** Your answers here are not stored; the prediction "
        "below changes with each of them."
    )
    draw_prompt(pair.prompt)
    sides = (("A", pair.first, pair.second), ("B", pair.second, pair.first))
    for column, (letter, mine, other) in zip(st.columns(2, gap="medium"), sides, strict=True):
        with column.container(border=True, height="stretch"):
            st.caption(letter)
            draw_response(mine.text)
            st.button(
                f"I prefer {letter}",
                key=f"prefer-{pair.id}-{mine.id}",
                on_click=choose,
                args=(pair, mine.id, other.id),
                width="stretch",
            )


def choose(pair: Pair, preferred: int, rejected: int) -> None:
    given = answers()
    if len(given) < COUNT and (preferred, rejected) not in given:
        st.session_state["five answers"] = [*given, (preferred, rejected)]
        st.session_state["answer wanted"] = len(given) + 1 == COUNT


def begin() -> None:
    st.session_state["trying"], st.session_state["five answers"] = True, []


def end() -> None:
    st.session_state["trying"] = False
