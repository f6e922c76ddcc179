"""The map of users: who answers like whom."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Kind
from copl_core.views import PeopleView, Person
from pages.parts import (
    PLOT,
    group_colour,
    group_name,
    here,
    newer_snapshot,
    no_snapshot,
    person_name,
    source_line,
    trouble,
)


def page() -> None:
    study, me = here()
    st.title("People")
    try:
        view = study.people(live=[me.id])
    except CoplError as problem:
        trouble(problem)
    if view is None:
        no_snapshot("The map of people")
    mine = next((person for person in view.people if person.id == me.id), None)
    st.write(sentence(mine, view))
    st.plotly_chart(picture(view, mine), width="stretch", config=PLOT, key="map",
                    alt="Map of users, coloured by group")
    source_line(f"Each dot is a person, near those who answer alike; learned from {view.n_labels:,} labels by UMAP of "
                "the embeddings. Nearness means alike; the distance between islands and the directions mean nothing.",
                view.snapshot)
    simulated_switch()
    with st.expander("Everybody in a table"):
        st.dataframe(table(view), hide_index=True, width="stretch")
    with st.expander("How the map was made"):
        st.json({**view.parameters, "silhouette of the groups": round(view.silhouette, 3)})
    newer_snapshot(view.snapshot)


def sentence(mine: Person | None, view: PeopleView) -> str:
    """The answer first: where you are."""
    groups = f"{len(view.groups)} groups of people who answer alike." if len(view.groups) > 1 else "one group so far."
    if mine is None or mine.n_labels == 0:
        return f"The model sees {groups} Label some pairs, and you appear among them at once."
    if mine.group is None:
        return f"The model sees {groups} Nobody has labelled the responses you labelled, so you have no place yet."
    alike = sum(person.group == mine.group for person in view.people) - 1
    return (f"The model sees {groups} By your {mine.n_labels} labels you stand in **{group_name(mine.group)}**, with "
            f"{alike:,} others.")


def picture(view: PeopleView, mine: Person | None) -> go.Figure:
    figure = go.Figure()
    for group in view.groups:
        for kind, symbol in ((Kind.SIMULATED, "circle-open"), (Kind.HUMAN, "circle")):
            members = [p for p in view.people if p.group == group and p.kind == kind and p is not mine]
            if members:
                figure.add_scattergl(
                    x=[p.x for p in members], y=[p.y for p in members], mode="markers",
                    name=group_name(group) + (" (simulated)" if kind == Kind.SIMULATED else ""),
                    marker={"symbol": symbol, "color": group_colour(group), "size": 9, "line": {"width": 2}},
                    customdata=[[p.id] for p in members],
                    text=[f"{person_name(p.name, p.kind)}<br>{group_name(p.group)}<br>{p.n_labels} labels"
                          for p in members],
                    hovertemplate="%{text}<extra></extra>")
    if mine is not None and mine.x is not None:
        figure.add_scatter(x=[mine.x], y=[mine.y], mode="markers", name="You",
                           hovertemplate=f"You<br>{group_name(mine.group)}<extra></extra>",
                           marker={"symbol": "star", "size": 20, "color": group_colour(mine.group),
                                   "line": {"width": 1.5, "color": "white"}})
        figure.add_annotation(x=mine.x, y=mine.y, text="<b>You</b>", showarrow=False, yshift=20)
    figure.update_layout(height=560, margin={"l": 0, "r": 0, "t": 8, "b": 0}, dragmode="pan",
                         legend={"orientation": "h", "y": -0.02})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure


def table(view: PeopleView) -> list[dict]:
    return [{"person": person_name(p.name, p.kind), "group": group_name(p.group), "labels": p.n_labels,
             "placed by": p.source} for p in view.people]


def simulated_switch() -> None:
    study, me = here()
    now = study.record.include_simulated
    wanted = st.toggle("Include simulated people", value=now, help="Off, they are in no picture, and the next snapshot "
                       "is learned without them. Their labels are kept, so on brings them back.")
    if wanted != now:
        study.include_simulated(wanted, by=me.id)
        st.rerun()


page()
