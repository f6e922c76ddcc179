"""My taste: what the model has learned about the person who looks, in words, and everything they answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.study import label_quality, user_map, user_profile
from copl_core.study.user_map import PeopleMap
from copl_core.study.views import Evidence, Leaning, UserProfile
from pages.answer_history import answers, day, two_texts
from pages.common import (
    NO_GROUP_COLOUR,
    PLOT,
    group_colour,
    group_name,
    here,
    newer_snapshot,
    readable,
)

INK = "#0072B2"
EXAMPLES = 5  # labels shown for a statement, and against it
LAST = 50  # forecasts looked back on
UNIT = "1 is the typical difference between two answers of this study"


def page() -> None:
    session, me = here()
    st.title("My taste")
    view = user_profile.profile(session, me.id)
    if view.n_labels == 0:
        st.info(
            "You have not compared any answers yet. After your first few, this page says where you stand; after "
            "some more, what you like, in words."
        )
        return
    words, spot = st.columns([5, 3], gap="large")
    with words:
        st.markdown(standing(view))
        st.markdown(liked(view))
        if view.leanings:
            strengths(view)
    with spot:
        little_map(view)
    if view.leanings:
        st.subheader("What speaks for it")
        for leaning in view.leanings:
            statement(leaning)
    st.subheader("How well you are known")
    known(view)
    st.subheader("Your answers")
    answers()
    if view.snapshot:
        newer_snapshot(view.snapshot)


# ---- where they stand and what they like


def standing(view: UserProfile) -> str:
    """The answer first."""
    labels = f"{view.n_labels:,} label{'s' * (view.n_labels != 1)}"
    if view.problem:
        return f"You have given {labels}. What the model makes of them cannot be read: {view.problem}"
    place = view.place
    if place is None:
        return (
            f"You have given {labels}. The model has not been trained yet; where you stand appears with its first "
            "snapshot."
        )
    if place.group is None:
        return (
            f"By your {labels} you have no place among others yet: nobody else has judged the answers that you judged."
        )
    alike = f"{place.n_neighbours:,} {'people' if place.n_neighbours != 1 else 'person'}"
    return (
        f"By your {labels} you answer most like **{group_name(place.group)}**. The model is "
        f"{place.group_share:.0%} sure of that, from {alike} who judged some of the same answers."
    )


def liked(view: UserProfile) -> str:
    """What they like, in a sentence or two."""
    by_labels, by_model = (
        [leaning.words for leaning in view.leanings if leaning.source == source] for source in ("labels", "model")
    )
    if not view.leanings:
        return (
            f"What you like is **not certain yet**. Your {view.n_decided:,} decided labels on {view.n_prompts:,} "
            "questions do not settle any of the features that are measured in the texts; a few dozen labels "
            "usually do."
        )
    sentences = []
    if by_labels:
        sentences.append(f"Your labels say that you like {listing(by_labels, bold=True)}.")
    if by_model:
        also = "also " if by_labels else ""
        sentences.append(
            f"From people who answer like you, the model {also}expects you to like {listing(by_model, bold=True)}."
        )
    return " ".join(sentences + ["Nothing else is certain yet."] * (len(view.leanings) == 1))


def statement(leaning: Leaning) -> None:
    """What they like, and the labels behind it one click away."""
    chosen, against, _ = leaning.votes
    who = "by your labels" if leaning.source == "labels" else "expected by the model"
    title = f"**{leaning.words.capitalize()}**, {who}: {chosen} of your labels for it, {against} against"
    with st.expander(title, key=f"evidence-{leaning.feature}", on_change="rerun") as behind:
        if behind.open:
            st.markdown(reason(leaning))
            evidence(leaning)


def reason(leaning: Leaning) -> str:
    chosen, against, same = leaning.votes
    along = f" Where these texts have it they often have {listing(leaning.along)} too." if leaning.along else ""
    counted = f"{chosen} of your labels prefer the answer that leans this way, {against} the other one" + (
        f", and in {same} both are alike" if same else ""
    )
    doubt = "" if leaning.source == "labels" else " That alone does not settle it; the model goes by people like you."
    low, high = sorted(abs(end) for end in (leaning.low, leaning.high))
    basis = "labels" if leaning.source == "labels" else "pairs, as the model expects you to answer them"
    return (
        f"{counted}.{doubt}{along} Strength {abs(leaning.effect):.2f} (95 % interval {low:.2f} to {high:.2f}, from "
        f"{leaning.n:,} {basis})."
    )


def listing(words: Sequence[str], *, bold: bool = False) -> str:
    words = [f"**{word}**" if bold else word for word in words]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def evidence(leaning: Leaning) -> None:
    """The labels that speak for and against a statement, texts side by side."""
    session, me = here()
    try:
        rows = user_profile.evidence(session, me.id, leaning.feature)
    except CoplError as problem:
        st.error(str(problem))
        return
    rows = rows if leaning.effect > 0 else rows[::-1]
    sign = 1 if leaning.effect > 0 else -1
    speaks_for = [row for row in rows if sign * row.ahead > 1e-9]
    against = [row for row in reversed(rows) if sign * row.ahead < -1e-9]
    sides = {f"For it ({len(speaks_for)})": speaks_for, f"Against it ({len(against)})": against}
    side = st.segmented_control(
        "Labels that speak", list(sides), default=next(iter(sides)), required=True, key=f"side-{leaning.feature}"
    )
    listed = sides[side]
    if not listed:
        st.caption("None of your labels.")
    for row in listed[:EXAMPLES]:
        example(row, leaning.words)
    if len(listed) > EXAMPLES:
        st.caption(f"The {EXAMPLES} clearest of {len(listed)}.")


def example(row: Evidence, words: str) -> None:
    with st.container(border=True):
        st.markdown(f"**{readable(row.prompt)}**")
        two_texts(("You preferred", row.preferred.text), ("You did not prefer", row.rejected.text))
        st.caption(f"Apart by {abs(row.ahead):.1f} typical differences; answered {day(row.label.created_at)}.")


def strengths(view: UserProfile) -> None:
    st.plotly_chart(
        forest(view),
        width="stretch",
        config=PLOT | {"displayModeBar": False},
        key="leanings",
        alt="Each statement's strength with its interval, by your labels and by the model",
    )
    st.caption(
        f"How strongly each of them shows: {UNIT}. Bars are 95 % intervals. It says what the answers you prefer "
        f"have more of, not why you prefer them. {source(view)}"
    )


def forest(view: UserProfile) -> go.Figure:
    """Strengths and intervals, each turned so that more is further right."""
    rows = list(reversed(view.leanings))
    names = [row.words for row in rows]
    sign = [1 if row.effect > 0 else -1 for row in rows]
    figure = go.Figure()
    figure.add_vline(x=0, line_width=1, line_color="#8a8a8a")
    most = [(row.words, s * row.of_most) for row, s in zip(rows, sign, strict=True) if row.of_most is not None]
    if most:
        figure.add_scatter(
            x=[x for _, x in most],
            y=[y for y, _ in most],
            mode="markers",
            name="most people here, says the model",
            marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": NO_GROUP_COLOUR}},
            hovertemplate="most people: %{x:.2f}<extra></extra>",
        )
    for source_name, name, symbol in (
        ("labels", "you, by your labels", "circle"),
        ("model", "you, says the model", "circle-open"),
    ):
        kept = [(row, s) for row, s in zip(rows, sign, strict=True) if row.source == source_name]
        if kept:
            ends = [sorted((s * row.low, s * row.high)) for row, s in kept]
            values = [s * row.effect for row, s in kept]
            figure.add_scatter(
                x=values,
                y=[row.words for row, _ in kept],
                mode="markers",
                name=name,
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 0,
                    "array": [high - x for (_, high), x in zip(ends, values, strict=True)],
                    "arrayminus": [x - low for (low, _), x in zip(ends, values, strict=True)],
                },
                marker={"symbol": symbol, "size": 12, "color": INK, "line": {"width": 2, "color": INK}},
                customdata=[[row.n] for row, _ in kept],
                hovertemplate="%{x:.2f}, n = %{customdata[0]}<extra></extra>",
            )
    figure.update_yaxes(categoryorder="array", categoryarray=names, showgrid=False)
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(tickfont={"size": 14})
    figure.update_xaxes(tickfont={"size": 13})
    figure.update_layout(
        height=100 + 36 * len(rows),
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "x": 0,
            "font": {"size": 13},
            "traceorder": "reversed",
        },
    )
    return figure


def source(view: UserProfile) -> str:
    labels = f"From your {view.n_decided:,} decided labels on {view.n_prompts:,} questions"
    return labels + (
        f" and {view.n_pairs:,} pairs of the study. Snapshot {view.snapshot}."
        if view.snapshot
        else "; no snapshot yet."
    )


# ---- the map


def little_map(view: UserProfile) -> None:
    session, me = here()
    if view.place is None:
        return
    try:
        people = user_map.map_of_users(session, me.id)
    except CoplError:
        return  # the sentence above says what is wrong with the snapshot
    if people is None or view.place.xy is None:
        return
    st.plotly_chart(
        picture(people),
        width="stretch",
        config=PLOT | {"displayModeBar": False},
        key="spot",
        alt="Your place on the map of people",
    )
    placed, simulated = int(people.placed.sum()), int((people.placed & people.simulated).sum())
    marked = f" ({simulated:,} of them simulated)" if simulated else ""
    st.caption(
        f"You among {placed:,} people{marked}; near means answering alike. Snapshot {people.snapshot}, "
        f"{people.total_labels:,} labels."
    )


def picture(view: PeopleMap) -> go.Figure:
    figure = go.Figure()
    others = view.placed.copy()
    if view.me is not None:
        others[view.me] = False
    groups = [None if group < 0 else group for group in view.group.tolist()]
    rows = np.flatnonzero(others)
    figure.add_scatter(
        x=view.xy[rows, 0],
        y=view.xy[rows, 1],
        mode="markers",
        opacity=0.55,
        marker={"color": [group_colour(groups[row]) for row in rows], "size": 7},
        text=[group_name(groups[row]) for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )
    if view.me is not None and view.placed[view.me]:
        x, y = view.xy[view.me]
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers+text",
            text=["You"],
            textposition="top center",
            textfont={"size": 15},
            hovertemplate=f"You<br>{group_name(groups[view.me])}<extra></extra>",
            marker={
                "symbol": "star",
                "size": 19,
                "color": group_colour(groups[view.me]),
                "line": {"width": 1.5, "color": "white"},
            },
        )
    figure.update_layout(height=300, margin={"l": 0, "r": 0, "t": 8, "b": 0}, showlegend=False, dragmode=False)
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    return figure


# ---- how well they are known


def known(view: UserProfile) -> None:
    session, me = here()
    foretold = label_quality.prequential(session, me.id, last=LAST)
    model, crowd, own = st.columns(3, gap="medium")
    with model:
        figure(
            "The model foresaw you",
            foretold.model,
            f"of your last {foretold.model.n} answers to pairs drawn by chance, said before you gave them",
            "None of your answers to pairs drawn by chance was foretold yet. About one pair in five is drawn that "
            "way, once there is a snapshot.",
        )
    with crowd:
        figure(
            "The majority foresaw you",
            foretold.crowd,
            "of the same answers, by what most others chose",
            "Nothing to compare with yet.",
        )
    with own:
        figure(
            "You agree with yourself",
            view.consistent,
            "of pairs that came a second time, sides swapped",
            "No pair has come a second time yet.",
        )
    if foretold.model.n:
        versions = foretold.snapshots
        told = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
        st.caption(f"Ties are left out. Forecasts by snapshot {told}. {verdict(foretold.apart)}")


def figure(title: str, share, words: str, nothing: str) -> None:
    if not share.n:
        st.metric(title, "–")
        st.caption(nothing)
        return
    low, high = share.interval
    st.metric(title, f"{share.share:.0%}")
    st.caption(f"{share.hits} of {share.n} {words} (95 % interval {low:.0%} to {high:.0%}).")


def verdict(apart) -> str:
    """Which of the two knows them better, by the labels on which they differ (a sign test)."""
    low, high = apart.interval
    if low > 0.5:
        return "The model knows you better than the majority does."
    if high < 0.5:
        return "The majority still knows you better than the model does."
    return "With so few answers on which they differ, the two cannot be told apart."


page()
