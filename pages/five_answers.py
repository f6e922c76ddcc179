"""A part of the reward page: five pairs answered here and now, of somebody of whom nothing else is known."""

from __future__ import annotations

import streamlit as st

from copl_core.records import CoplError, Pair
from copl_core.study import rewards
from pages.common import here, readable

ANSWERS = "answers"  # the option of the list of people
COUNT = 5


def answers() -> list[tuple[int, int]]:
    """(preferred, rejected) response ids given so far; they live in this browser session and are stored nowhere."""
    return st.session_state.setdefault("probe", [])


def five_pairs() -> None:
    """The next pair, chosen as the one that tells most about a person with the answers so far."""
    session, _ = here()
    st.subheader("Five answers")
    given = answers()
    if len(given) >= COUNT:
        st.write(f"All {COUNT} are given; the line “Somebody with these {COUNT} answers” is placed by them alone.")
        st.button("Answer five others", on_click=start_over)
        return
    try:
        pair = rewards.next_query(session, given)
    except CoplError as problem:
        st.error(str(problem))
        return
    if pair is None:
        st.info("The study has no further pair that this snapshot knows.")
        return
    st.write(
        f"Pair {len(given) + 1} of {COUNT}: which answer do you prefer? Nothing of this is stored; the judgement "
        "above follows each answer."
    )
    st.markdown(f"**{readable(pair.prompt)}**")
    for column, mine, other in zip(
        st.columns(2, gap="medium"), (pair.first, pair.second), (pair.second, pair.first), strict=True
    ):
        with column.container(border=True):
            st.markdown(readable(mine.text))
            st.button(
                "I prefer this one",
                key=f"probe-{pair.id}-{mine.id}",
                on_click=choose,
                args=(pair, mine.id, other.id),
                width="stretch",
            )
    if given:
        st.button("Start over", on_click=start_over)


def choose(pair: Pair, preferred: int, rejected: int) -> None:
    given = answers()
    if len(given) < COUNT and (preferred, rejected) not in given:
        st.session_state["probe"] = [*given, (preferred, rejected)]


def start_over() -> None:
    st.session_state["probe"] = []
