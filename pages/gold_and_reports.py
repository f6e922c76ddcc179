"""Parts of the settings page: gold pairs, which have a known answer, reported problems, and withdrawn pairs."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from copl_core.records import Pair, User
from copl_core.study import access, contents, labelling
from copl_core.study_settings import Report
from pages.common import current
from pages.members import perform, when
from pages.texts import brief, draw_prompt, draw_response, draw_words, literal

FOUND = 5  # search results shown
LISTED = 20  # withdrawn pairs shown
WITHDRAWN = "From now on nobody gets it. Its labels stay."


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
        search(wanted, {one.pair_id for one in known}, choose)


def search(wanted: str, known: set[int], draw: Callable[[Pair, bool], None]) -> None:
    """Pairs with these words; ``draw`` shows the buttons of one, and knows whether it is one of ``known``."""
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
            draw(pair, pair.id in known)


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
    reported()
    withdrawn_pairs()


def reported() -> None:
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
                decide(one)
            else:
                st.caption(f"Resolved {when(one.resolved_at)} by {name(people, one.resolved_by)}.")


def decide(one: Report) -> None:
    """The buttons of an open report."""
    session, _ = current()
    pairs, withdrawn = labelling.pairs_with(session, one.response_id), labelling.withdrawn_pairs(session)
    handed_out = sorted(set(pairs) - {pair.pair_id for pair in withdrawn})
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Resolve",
            key=f"resolve-{one.id}",
            on_click=perform,
            args=(labelling.resolve, one.id),
            kwargs={"done": "The report is resolved."},
        )
        if handed_out:
            n = len(handed_out)
            st.button(
                "Withdraw its pair" if n == 1 else f"Withdraw its {n} pairs",
                key=f"withdraw-reported-{one.id}",
                on_click=perform,
                args=(labelling.withdraw_pairs, handed_out),
                kwargs={"done": WITHDRAWN},
                help="Nobody gets a pair with this answer any more. Labels stay, and the report is open until you "
                "resolve it.",
            )
        elif pairs:
            st.caption("Nobody gets a pair with this answer any more.")


# ---- withdrawn pairs


def withdrawn_pairs() -> None:
    """The pairs that nobody is handed, and a search for others to withdraw."""
    session, _ = current()
    st.subheader("Withdrawn pairs")
    st.write("A withdrawn pair is handed out no more. Its labels stay, and the model learns from them.")
    every = labelling.withdrawn_pairs(session)
    st.caption(f"{len(every):,} pair{'s are' if len(every) != 1 else ' is'} withdrawn.")
    for one in every[:LISTED]:
        pair = contents.pair(session, one.pair_id)
        with st.expander(
            f"**{literal(brief(pair.prompt, 60))}** {literal(brief(pair.first.text, 50))}", key=f"withdrawn-{pair.id}"
        ):
            texts(("A", pair.first.text), ("B", pair.second.text))
            st.caption(f"Pair {pair.id}, withdrawn {when(one.at)}.")
            hand_out_button(pair.id)
    if len(every) > LISTED:
        st.caption(f"And {len(every) - LISTED:,} earlier ones; `pair` in a terminal lists them all.")
    wanted = st.text_input(
        "Withdraw a pair", key="withdraw-search", placeholder="a few words of the question or answers"
    )
    if wanted.strip():
        search(wanted, {one.pair_id for one in every}, choose_to_withdraw)


def hand_out_button(pair_id: int) -> None:
    st.button(
        "Hand out again",
        key=f"again-{pair_id}",
        on_click=perform,
        args=(labelling.hand_out_again, [pair_id]),
        kwargs={"done": "The pair is handed out again."},
    )


def choose_to_withdraw(pair: Pair, withdrawn: bool) -> None:
    if withdrawn:
        st.caption("This pair is withdrawn.")
        return
    st.button(
        "Withdraw this pair",
        key=f"withdraw-{pair.id}",
        on_click=perform,
        args=(labelling.withdraw_pairs, [pair.id]),
        kwargs={"done": WITHDRAWN},
    )


def name(people: dict[int, User], user_id: int | None) -> str:
    user = people.get(user_id)
    return "somebody" if user is None else user.name
