"""A part of the people page: one person's nearest neighbours, and the pairs on which two people would disagree."""

from __future__ import annotations

import numpy as np
import streamlit as st

from copl_core.records import CoplError, counted
from copl_core.study import user_map
from copl_core.study.user_map import Disagreement, UserMap
from pages.common import current, group_name, group_phrase, nearest_group, person_name
from pages.find_people import find_people
from pages.texts import draw_prompt, draw_response, literal

VOTED = {
    "first": "answered: the first",
    "second": "answered: the second",
    "neither": "answered: neither",
    "": "has not answered it",
}


def persons(view: UserMap) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        one = choose(view, "Find a person", "found")
    with right:
        other = choose(view, "Compare with", "other")
    if one is None:
        st.caption("The person found here is marked on the map and listed with the people who answer most like them.")
        return
    try:
        neighbours(view, one)
        if other is not None:
            comparison(view, one, other)
    except CoplError as problem:
        st.info(str(problem))


def choose(view: UserMap, title: str, key: str) -> int | None:
    """The chosen person's user id; a very large study is searched by name first."""
    if view.is_sample:
        found = find_people(f"{key}-search", f"{title}: part of the name", [st.session_state.get(key)])
        names = {user.id: person_name(user.name, user.kind) for user in found}
    else:
        names = {int(view.ids[row]): name(view, row) for row in by_name(view).tolist()}
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)
    return st.selectbox(title, list(names), index=None, format_func=names.get, key=key, placeholder="A name")


def by_name(view: UserMap) -> np.ndarray:
    """Rows (N,) of the map in the order of names, humans before simulated people and language models."""
    return np.lexsort((np.char.lower(view.names), view.simulated + 2 * view.models.astype(int)))


def name(view: UserMap, row: int) -> str:
    return view.marked_name(row)


def named(view: UserMap, user_id: int) -> str:
    return literal(name(view, int(view.rows([user_id])[0])))


def neighbours(view: UserMap, user_id: int) -> None:
    session, _ = current()
    row = int(view.rows([user_id])[0])
    if not view.placed[row]:
        st.write(
            f"{named(view, user_id)} has no labels in snapshot {view.snapshot}, so they have no position on the map."
        )
        return
    st.write(f"{membership(view, user_id)} The people nearest to them, by the answers that are expected of both:")
    near = user_map.nearest(session, user_id, view.snapshot)
    if view.is_sample:  # they may not be among those who are drawn
        me, ids = None if view.me is None else int(view.ids[view.me]), [user_id, *(one.id for one in near)]
        view = user_map.map_of_users(session, me, view.snapshot, ids)
    rows = [(one, int(found[0])) for one in near if len(found := view.rows([one.id]))]
    if not rows:
        st.caption("Nobody yet: their labels are not enough for a position.")
        return
    st.dataframe(
        [
            {
                "person": name(view, at),
                "group": group_name(int(view.group[at])) if view.group[at] >= 0 else "",
                "labels": int(view.n_labels[at]),
                "same answer expected": 100 * one.same,
            }
            for one, at in rows
        ],
        hide_index=True,
        width="stretch",
        alt="Nearest neighbours",
        key="neighbours",
        column_config={
            "same answer expected": st.column_config.NumberColumn(
                format="%.0f%%",
                help="Share of the study's pairs on which the model expects both to prefer the same answer.",
            )
        },
    )
    st.caption(f"Groups and numbers of labels in the table are those of snapshot {view.snapshot}.")


def membership(view: UserMap, user_id: int) -> str:
    """A person's group by their present labels, with the certainty that their own pages state."""
    session, _ = current()
    place, who = user_map.membership(session, user_id, view.snapshot), f"**{named(view, user_id)}**"
    if place is None or place.group is None:
        return f"{who} has no group yet."
    labels = counted(place.n_labels, "label")
    if place.n_groups <= 1:
        return f"{who} has given {labels}, and there is one group so far."
    if not place.clear:
        nearest = nearest_group(place.group, place.group_probability)
        return f"The {labels} of {who} do not clearly fit one group yet. {nearest}"
    return (
        f"By {labels}, {who} answers most like {group_phrase(place.group)}, with a probability of "
        f"{place.group_probability:.0%}."
    )


def comparison(view: UserMap, one: int, other: int) -> None:
    session, _ = current()
    found = user_map.compare(session, one, other, view.snapshot)
    names = named(view, one), named(view, other)
    st.write(
        f"**{names[0]}** and **{names[1]}** are expected to prefer the same answer on {found.same:.0%} of "
        f"{found.n_pairs:,} pairs. They would disagree most here:"
    )
    for pair in found.pairs:
        apart(pair, names)
    by = {
        "trained": "comes from the snapshot's training",
        "neighbours": "comes from people who answer alike, because of labels newer than the snapshot",
    }
    st.caption(
        f"The position of {names[0]} {by[found.sources[0]]}; that of {names[1]} {by[found.sources[1]]}. Percentages "
        "are predictions of the model, not votes; with few labels they are close to what most people prefer. Snapshot "
        f"{found.snapshot}."
    )


def apart(row: Disagreement, names: tuple[str, str]) -> None:
    with st.container(border=True):
        draw_prompt(row.pair.prompt)
        for column, title, response in zip(
            st.columns(2, gap="medium"), ("First", "Second"), (row.pair.first, row.pair.second), strict=True
        ):
            with column:
                st.caption(title)
                draw_response(response.text)
        st.caption(
            ". ".join(
                f"{who}: {p:.0%} for the first ({VOTED[vote]})"
                for who, p, vote in zip(names, (row.one, row.other), row.votes, strict=True)
            )
            + "."
        )
