"""Pairs that divide people most."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.views import DividedPair
from pages.parts import (
    PLOT,
    group_colour,
    group_name,
    here,
    newer_snapshot,
    no_snapshot,
    readable,
    trouble,
)

SHOWN = 10


def page() -> None:
    study, _ = here()
    st.title("Controversy")
    wanted = st.session_state.get("order", "Divided")
    try:
        view = study.controversy(SHOWN, consensus=wanted == "Agreed")
    except CoplError as problem:
        trouble(problem)
    if view is None:
        no_snapshot("The list of pairs that divide people")
    st.write(f"The {len(view.pairs)} of {view.n_pairs:,} pairs on which the groups are "
             f"{'closest together' if wanted == 'Agreed' else 'furthest apart'}.")
    for pair in view.pairs:
        show(pair, view.snapshot)
    st.segmented_control("Show pairs that are", ["Divided", "Agreed"], default="Divided", key="order", required=True)
    newer_snapshot(view.snapshot)


def show(pair: DividedPair, snapshot: str) -> None:
    with st.container(border=True):
        st.markdown(f"**{readable(pair.prompt)}**")
        first, second = st.columns(2, gap="medium")
        with first:
            st.caption("A")
            st.markdown(readable(pair.first.text))
        with second:
            st.caption("B")
            st.markdown(readable(pair.second.text))
        st.plotly_chart(split(pair), width="stretch", config=PLOT, key=f"split-{pair.pair_id}",
                        alt="Share of each group expected to prefer A")
        st.caption(f"Between groups {pair.between:.3f}, within groups {pair.within:.3f}, each person's own coin "
                   f"{pair.noise:.3f} (variances of the preference; ¼ is the most). Votes cast: {votes(pair)}. "
                   f"Bars are what the model expects, not votes. Snapshot {snapshot}.")


def split(pair: DividedPair) -> go.Figure:
    figure = go.Figure()
    for group, share in reversed(pair.by_group):
        figure.add_bar(x=[share - 0.5], y=[group_name(group)], base=0.5, orientation="h", showlegend=False,
                       marker_color=group_colour(group), hovertemplate=f"{share:.0%} prefer A<extra></extra>",
                       text=f"{share:.0%}", textposition="outside", cliponaxis=False)
    figure.add_vline(x=0.5, line_width=1, line_color="#888")
    figure.update_xaxes(range=[-0.05, 1.05], tickvals=[0, 0.5, 1], ticktext=["all prefer B", "even", "all prefer A"])
    figure.update_layout(height=60 + 28 * len(pair.by_group), margin={"l": 0, "r": 0, "t": 0, "b": 0}, bargap=0.35)
    return figure


def votes(pair: DividedPair) -> str:
    if not pair.votes:
        return "none yet"
    ordered = sorted(pair.votes.items(), key=lambda item: (item[0] is None, item[0]))
    return "; ".join(f"{group_name(group)} A {a}, B {b}" + (f", neither {n}" if n else "")
                     for group, (a, b, n) in ordered)


page()
