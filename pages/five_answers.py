"""A part of the reward page: somebody answers five pairs on the spot, and the model knows nothing else about them."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, Pair
from copl_core.study import rewards
from pages.common import current
from pages.texts import draw_prompt, draw_response

ANSWERS = "answers"  # the option for this in the list of people
COUNT = 5


def answers() -> list[tuple[int, int]]:
    """(preferred, rejected) response ids given so far; they live in this browser session and are not stored."""
    return st.session_state.setdefault("five answers", [])


def five_pairs() -> None:
    """The next pair: the most informative one about a person with the answers so far."""
    session, _ = current()
    st.subheader("Five answers")
    given = answers()
    if len(given) >= COUNT:
        st.write(f"All {COUNT} answers are given; the row “Somebody with these {COUNT} answers” rests on them alone.")
        st.button("Answer five other pairs", on_click=start_over)
        return
    try:
        pair = rewards.next_query(session, given)
    except CoplError as problem:
        st.error(str(problem))
        return
    if pair is None:
        st.info("This snapshot knows no other pair of the study.")
        return
    st.write(
        f"Pair {len(given) + 1} of {COUNT}: which answer do you prefer? Your answers here are not stored; the "
        "prediction above changes with each of them."
    )
    draw_prompt(pair.prompt)
    for column, mine, other in zip(
        st.columns(2, gap="medium"), (pair.first, pair.second), (pair.second, pair.first), strict=True
    ):
        with column.container(border=True):
            draw_response(mine.text)
            st.button(
                "I prefer this one",
                key=f"prefer-{pair.id}-{mine.id}",
                on_click=choose,
                args=(pair, mine.id, other.id),
                width="stretch",
            )
    if given:
        st.button("Start over", on_click=start_over)


def choose(pair: Pair, preferred: int, rejected: int) -> None:
    given = answers()
    if len(given) < COUNT and (preferred, rejected) not in given:
        st.session_state["five answers"] = [*given, (preferred, rejected)]


def start_over() -> None:
    st.session_state["five answers"] = []
