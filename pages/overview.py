"""Overview, the first page of owners and researchers: what this is, who answers alike, what it gains, where to go."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Role, counted, counted_people
from copl_core.study import controversy, personalisation, user_map
from copl_core.study.controversy import GroupValue
from copl_core.study.personalisation import PersonalisationGain
from copl_core.study.user_map import UserMap
from pages import quarantine
from pages.common import (
    champion_here,
    count_people,
    current,
    group_colour,
    group_name,
    in_figure,
    no_snapshot,
    source_line,
    watch_champion,
    who_is_simulated,
)
from pages.gain import ceiling_in_words, gain_in_words, signed
from pages.people_map import OPEN, SHOWN_AS, marker_of

POINT = 7  # pixels of a point
MOST_POINTS = 2000  # on the small map; more are an even sample
# Each way: title, what is there, page.
WAYS = (
    ("Label pairs", "Choose between two answers, and see where you stand among people.", "pages/label.py"),
    ("Ask for rewards", "Type a question and some answers, and see who would prefer which.", "pages/reward.py"),
    ("See people", "The map of people, their groups, and what each group prefers.", "pages/people.py"),
)
INVITE = ("Invite people", "Links for the people whose preferences you want to learn.", "pages/settings.py")


def page() -> None:
    session, _ = current()
    st.title("Overview")
    who_is_simulated()
    st.write(
        "**People compare two answers; CoPL Studio learns from every click who prefers what**, and predicts which "
        "answer each person and each group would choose, also for texts that nobody has seen."
    )
    quarantine.notice()
    area = st.container()
    ways()
    champion = session.record.champion
    with area:
        the_map, numbers = st.columns([5, 4], gap="large")
    with numbers:
        what_it_gains()
    with the_map:
        if champion is None:
            no_snapshot("The map of people")
        champion_here()
        people()
    watch_champion(champion)


# ---- where to go


def ways() -> None:
    _, me = current()
    every = (*WAYS, INVITE) if me.role == Role.OWNER else WAYS
    for column, (title, about, target) in zip(st.columns(len(every), gap="medium"), every, strict=True):
        with column.container(border=True, height="stretch"):
            kind = "primary" if target == WAYS[0][2] else "secondary"
            if st.button(title, key=f"to-{target}", type=kind, width="stretch"):
                st.switch_page(target)
            st.caption(about)


# ---- who answers alike


def people() -> None:
    session, me = current()
    st.subheader("Who answers alike")
    try:
        view = user_map.map_of_users(session, me.id)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.plotly_chart(
        small_map(view),
        width="stretch",
        config={"staticPlot": True},
        key="small-map",
        alt="Map of people, coloured by group",
    )
    groups = f" in {counted(len(view.groups), 'group')}" if len(view.groups) > 1 else ""
    mine = " The star is you." if view.me is not None and view.placed[view.me] else ""
    people = count_people(*view.n_placed)
    open_points = f" {SHOWN_AS}." if view.simulated.any() else ""
    source_line(
        f"{people}{groups}; people who answer alike stand near each other.{open_points}{mine}",
        f"{view.snapshot}, {counted(view.total_labels, 'label')}",
    )


def small_map(view: UserMap) -> go.Figure:
    """A still map: one colour per group, and a star for the viewer."""
    figure, rows = go.Figure(), shown_rows(view)
    for group in [*view.groups, -1]:
        own = rows[view.group[rows] == group]
        known = None if group < 0 else int(group)
        if len(own):
            add_group(figure, view, own, known)
    if view.me is not None and view.placed[view.me]:
        marker = {"size": 20, "symbol": "star", "color": group_colour(view.my_group), "line": {"width": 2}}
        figure.add_scatter(x=[view.xy[view.me, 0]], y=[view.xy[view.me, 1]], name="You", marker=marker)
    figure.update_traces(mode="markers")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(
        height=300, margin={"l": 0, "r": 0, "t": 0, "b": 0}, legend={"orientation": "h", "y": -0.02, "yanchor": "top"}
    )
    return figure


def add_group(figure: go.Figure, view: UserMap, own: np.ndarray, group: int | None) -> None:
    """The people of a group, rows (n,), drawn by their kinds as on the large map, the commonest in the legend."""
    kinds, counts = np.unique(view.kinds[own], return_counts=True)
    for number, kind in enumerate(kinds[np.argsort(-counts, kind="stable")].tolist()):
        rows = own[view.kinds[own] == kind]
        marker = marker_of(len(view.ids), {"symbol": f"circle{OPEN[kind]}", "color": group_colour(group)})
        figure.add_scatter(
            x=view.xy[rows, 0],
            y=view.xy[rows, 1],
            name=in_figure(group_name(group)),
            legendgroup=str(group),
            showlegend=number == 0,
            marker=marker | {"size": POINT},
        )


def shown_rows(view: UserMap) -> np.ndarray:
    """Rows of placed people with labels, without the viewer; an even sample of many."""
    shown = view.placed & (view.n_labels > 0)
    if view.me is not None:
        shown[view.me] = False
    rows = np.flatnonzero(shown)
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_POINTS)).astype(int)]


# ---- what it gains


def what_it_gains() -> None:
    session, _ = current()
    st.subheader("What personalisation gains here")
    found = personalisation.personalisation_gain(session)
    st.markdown(f"## {headline(found)}")
    if found is None:
        st.write(
            "A run of graph and reward model measures it: it holds out up to a tenth of the decided labels and "
            "predicts them with the personal model and with baselines that know nobody's taste. The trainer starts "
            "one by itself when there are enough labels; the Training page starts one at once."
        )
    else:
        st.write(gain_in_words(found))
        if allowed := ceiling_in_words():
            st.write(allowed)
        if not found.left_out:
            st.caption(f"Measured by the run that made {found.fitted_in}; the Training page has all figures.")
    try:
        value = controversy.group_value(session)
    except CoplError:
        return  # the map says that the snapshot is damaged
    if value is not None:
        st.write(value_in_words(value))


def headline(found: PersonalisationGain | None) -> str:
    if found is None or found.left_out:
        return "Not measured yet"
    if found.answer == "yes":
        return f"{signed(found.gain)} points"
    return "No gain here" if found.answer == "no" else "No certain gain yet"


def value_in_words(value: GroupValue) -> str:
    return (
        f"Expected by the model, over {value.n_pairs:,} pairs: **one answer for all pleases {value.for_all:.0%}** of "
        f"{counted_people(value.n_users)}, **each group its own {value.for_groups:.0%}**."
    )


page()
