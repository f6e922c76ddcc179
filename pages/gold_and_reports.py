"""A part of the settings page: gold pairs, which have a known answer, and problems that people reported."""

from __future__ import annotations

import streamlit as st

from copl_core.records import Pair, User
from copl_core.study import access, contents, labelling
from pages.common import current
from pages.members import perform, when
from pages.texts import brief, draw_prompt, draw_response, draw_words, literal

FOUND = 5  # search results shown


# ---- gold pairs


def gold_pairs() -> None:
    session, _ = current()
    known = labelling.gold(session)
    share = labelling.assignment_settings(session).gold
    st.write(
        "A gold pair has a known answer. People get one from time to time, which shows whether they read "
        "carefully; their answers to it are not preferences and never train the model. Choose pairs that leave no room "
        "for preference."
    )
    st.caption(
        f"{len(known)} gold pair{'s' * (len(known) != 1)}; {share:.0%} of the assigned pairs are gold pairs"
        + (" (set under Assignment)." if known else ", once there are some.")
    )
    for one in known:
        pair = contents.pair(session, one.pair_id)
        right, wrong = (pair.first, pair.second) if one.preferred_id == one.first_id else (pair.second, pair.first)
        with st.expander(
            f"**{literal(brief(pair.prompt, 60))}** {literal(brief(right.text, 50))}", key=f"gold-{pair.id}"
        ):
            texts(("Known to be better", right.text), ("The other answer", wrong.text))
            st.button(
                "Remove from gold pairs",
                key=f"ungold-{pair.id}",
                on_click=perform,
                args=(labelling.set_gold, pair.id, None),
                kwargs={"done": "The pair is not gold; people answer it by preference again."},
            )
    st.markdown("##### Make a pair gold")
    wanted = st.text_input("Search the texts", key="gold-search", placeholder="a few words of the question or answers")
    if wanted.strip():
        search(wanted, {one.pair_id for one in known})


def search(wanted: str, known: set[int]) -> None:
    session, _ = current()
    pairs, count = contents.find_pairs(session, wanted, FOUND)
    st.caption(
        f"{count:,} pair{'s' * (count != 1)} found."
        + (f" The first {FOUND}; more words narrow it down." if count > FOUND else "")
    )
    for pair in pairs:
        with st.container(border=True):
            draw_prompt(pair.prompt)
            texts(("A", pair.first.text), ("B", pair.second.text))
            choose(pair, pair.id in known)


def choose(pair: Pair, known: bool) -> None:
    if known:
        st.caption("This pair is already gold.")
        return
    with st.container(horizontal=True):
        for letter, response in (("A", pair.first), ("B", pair.second)):
            st.button(
                f"{letter} is known to be better",
                key=f"gold-{letter}-{pair.id}",
                on_click=perform,
                args=(labelling.set_gold, pair.id, response.id),
                kwargs={"done": "The pair is now a gold pair."},
            )


def texts(*sides: tuple[str, str]) -> None:
    for column, (title, text) in zip(st.columns(len(sides), gap="medium"), sides, strict=True):
        with column:
            st.caption(title)
            draw_response(text)


# ---- reports


def reports() -> None:
    session, _ = current()
    resolved = st.toggle("Show resolved reports too", key="reports-resolved")
    every = labelling.reports(session, resolved=resolved)
    if not every:
        st.write("No reported problem is open.")
        return
    people = access.users_of(session, (id for one in every for id in (one.user_id, one.resolved_by)))
    found = contents.responses(session, [one.response_id for one in every])
    for one in every:
        with st.container(border=True):
            draw_words(one.text)
            st.caption(f"{name(people, one.user_id)}, {when(one.at)}, about this answer:")
            response = found.get(one.response_id)
            if response:
                draw_response(response.text)
            else:
                st.markdown("*The answer is not in the study.*")
            if one.resolved_at is None:
                st.button(
                    "Resolve",
                    key=f"resolve-{one.id}",
                    on_click=perform,
                    args=(labelling.resolve, one.id),
                    kwargs={"done": "The report is resolved."},
                )
            else:
                st.caption(f"Resolved {when(one.resolved_at)} by {name(people, one.resolved_by)}.")


def name(people: dict[int, User], user_id: int | None) -> str:
    user = people.get(user_id)
    return "somebody" if user is None else user.name
