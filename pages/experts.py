"""Who is served by which expert of the reward model."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.views import ExpertsView
from pages.parts import (
    GATES,
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
    study, _ = here()
    st.title("Experts")
    try:
        view = study.experts()
    except CoplError as problem:
        trouble(problem)
    if view is None:
        no_snapshot("The picture of experts")
    m = len(view.load.share)
    st.write(f"{m - view.load.dead} of {m} experts serve {len(view.names):,} people. The load is "
             f"{view.load.entropy:.2f} bits even, of {math.log2(m):.2f} at best.")
    st.plotly_chart(heat(view), width="stretch", config=PLOT, key="gates", alt="Gate weights, users by experts")
    source_line("Rows are people, columns experts; darker means the person's gate gives that expert more weight. The "
                "darkest one answers for them. It shows who shares an expert, not what the expert has learned. "
                f"Reward model fitted in {view.fitted_in}.", view.snapshot)
    st.subheader("Load")
    st.plotly_chart(loads(view), width="stretch", config=PLOT, key="load", alt="People per expert, by group")
    source_line("People whose top expert this is, coloured by their group on the map.", view.snapshot)
    newer_snapshot(view.snapshot)


def heat(view: ExpertsView) -> go.Figure:
    names = [person_name(name, kind) for name, kind in zip(view.names, view.kinds, strict=True)]
    columns = [f"E{i + 1}" for i in range(view.gates.shape[1])]
    figure = go.Figure(go.Heatmap(
        z=view.gates, x=columns, y=list(range(len(names))), colorscale=GATES, zmin=0, zmax=1,
        customdata=[[name] * len(columns) for name in names],
        hovertemplate="%{customdata}<br>%{x}: %{z:.2f}<extra></extra>", colorbar={"title": "gate weight"}))
    figure.update_layout(height=520, margin={"l": 0, "r": 0, "t": 8, "b": 0})
    figure.update_yaxes(visible=False, autorange="reversed")
    figure.update_xaxes(side="top")
    return figure


def loads(view: ExpertsView) -> go.Figure:
    figure = go.Figure()
    top = view.gates.argmax(1)
    columns = [f"E{i + 1}" for i in range(view.gates.shape[1])]
    for group in sorted({g for g in view.groups if g is not None}) + [None]:
        counts = [sum(1 for expert, g in zip(top, view.groups, strict=True) if expert == i and g == group)
                  for i in range(len(columns))]
        if any(counts):
            figure.add_bar(x=columns, y=counts, name=group_name(group), marker_color=group_colour(group))
    figure.update_layout(barmode="stack", height=280, margin={"l": 0, "r": 0, "t": 8, "b": 0}, yaxis_title="people")
    return figure


page()
