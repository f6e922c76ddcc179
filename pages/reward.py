"""How would these people judge these answers?  Live, for texts never seen before."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.views import Judgement, RewardView
from pages.parts import PLOT, group_colour, here, newer_snapshot, no_snapshot, person_name, source_line

MOST = 6
LETTERS = "ABCDEF"
SHADES = (1.0, 0.35, 0.8, 0.25, 0.65, 0.45)  # of a group's colour, so that neighbouring answers stand apart


def page() -> None:
    study, me = here()
    st.title("Reward")
    if study.record.champion is None:
        no_snapshot("A reward")
    st.write("How would these people judge these answers? Type any question and two or more answers to it.")
    begin_with_an_example()
    prompt, responses = texts()
    names = {user.id: person_name(user.name, user.kind) for user in study.users()}
    chosen = st.multiselect("People", list(names), default=[me.id] if me.id in names else [], format_func=names.get,
                            help="Each group of the map is shown as well.", key="people")
    if st.button("Judge", type="primary"):
        st.session_state["asked"] = (prompt, responses, chosen)
    asked = st.session_state.get("asked")
    if asked:
        answer(*asked)


def begin_with_an_example() -> None:
    """On the first visit, show the pair of the study that divides the groups most."""
    if "asked" in st.session_state:
        return
    study, me = here()
    st.session_state["asked"] = None
    try:
        divided = study.controversy(1)
    except CoplError:
        return  # the judgement below says what is wrong with the snapshot
    if divided and divided.pairs:
        pair = divided.pairs[0]
        st.session_state.update({"prompt": pair.prompt, "response-0": pair.first.text, "response-1": pair.second.text,
                                 "asked": (pair.prompt, [pair.first.text, pair.second.text], [me.id])})


def texts() -> tuple[str, list[str]]:
    """The prompt and the responses as typed."""
    prompt = st.text_area("Question", key="prompt", height=70, placeholder="How do I get my cat to take a pill?")
    count = st.session_state.setdefault("count", 2)
    columns = st.columns(2)
    responses = [columns[i % 2].text_area(f"Answer {LETTERS[i]}", key=f"response-{i}", height=160)
                 for i in range(count)]
    with st.container(horizontal=True):
        if st.button("One answer more", disabled=count >= MOST):
            st.session_state["count"] = count + 1
            st.rerun()
        if st.button("One answer less", disabled=count <= 2):
            st.session_state["count"] = count - 1
            st.rerun()
    return prompt, responses


def answer(prompt: str, responses: list[str], users: list[int]) -> None:
    study, _ = here()
    try:
        with st.spinner("Reading the answers"):
            view = study.reward(prompt, responses, users=users)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.subheader("Who would prefer which")
    st.write(winners(view))
    st.plotly_chart(picture(view), width="stretch", config=PLOT, key="wins", alt="Win probability by person and group")
    source_line(f"{view.basis} Bars are the probability that the person would prefer that answer to all the others "
                "shown, from calibrated pairwise odds; a reward compares answers to one question and nothing else.",
                view.snapshot)
    st.dataframe([row_of(row, len(responses)) for row in view.rows], hide_index=True, width="stretch")


def winners(view: RewardView) -> str:
    best = {LETTERS[int(row.win.argmax())] for row in view.rows if row.kind == "group"}
    mine = [row for row in view.rows if row.kind != "group"]
    parts = [f"{row.name}: **{LETTERS[int(row.win.argmax())]}** ({row.win.max():.0%})" for row in mine[:4]]
    parts.append("every group prefers the same answer" if len(best) == 1 else "the groups differ")
    return "; ".join(parts) + "."


def picture(view: RewardView) -> go.Figure:
    rows = list(reversed(view.rows))
    names = [row.name for row in rows]
    figure = go.Figure()
    ink = "white" if st.context.theme.type == "dark" else "#20242B"
    for i in range(len(rows[0].win)):
        figure.add_bar(y=names, x=[row.win[i] for row in rows], orientation="h", name=f"Answer {LETTERS[i]}",
                       marker={"color": [group_colour(row.group) for row in rows], "opacity": SHADES[i]},
                       insidetextfont={"color": "white" if SHADES[i] > 0.6 else ink}, insidetextanchor="middle",
                       hovertemplate=f"Answer {LETTERS[i]}: %{{x:.0%}}<extra>%{{y}}</extra>",
                       text=[f"{LETTERS[i]} {row.win[i]:.0%}" if row.win[i] > 0.07 else "" for row in rows],
                       textposition="inside", textangle=0)
    figure.update_layout(barmode="stack", bargap=0.3, height=90 + 34 * len(rows), showlegend=False,
                         margin={"l": 0, "r": 0, "t": 0, "b": 0})
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    return figure


def row_of(row: Judgement, count: int) -> dict:
    cells = {"who": row.name, "kind": row.kind, "people": row.n, "placed by": row.source}
    for i in range(count):
        cells[f"reward {LETTERS[i]}"] = round(float(row.reward[i]), 2)
        cells[f"wins {LETTERS[i]}"] = f"{row.win[i]:.0%}"
    cells["expert"] = None if row.expert is None else f"E{row.expert + 1}"
    cells["gate weight"] = None if row.gate is None else round(row.gate, 2)
    return cells


page()
newer_snapshot(here()[0].record.champion)
