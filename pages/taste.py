"""My taste: what the model has learned about the signed-in person, in words, and everything they have answered."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, counted
from copl_core.study import label_quality, user_map, user_profile
from copl_core.study.user_map import UserMap
from copl_core.study.views import Evidence, Leaning, UserProfile, day_and_time
from pages import leaving, second_look, shared
from pages.answer_history import answers, two_texts
from pages.common import (
    NO_GROUP_COLOUR,
    champion_here,
    count_people,
    current,
    group_colour,
    group_name,
    group_phrase,
    listing,
    nearest_group,
    people_have,
    plot_settings,
    watch_champion,
)
from pages.people_groups import contrast_card
from pages.texts import draw_prompt

INK = "#0072B2"
EXAMPLES = 5  # labels shown for a statement, and as many against it
LAST = 50  # predictions that the accuracy is computed from
SETTLED = 40  # labels; with fewer, a first picture is called that
UNIT = "1 is the typical difference between two answers in this study"


def page() -> None:
    session, me = current()
    st.title("My taste")
    champion_here(needed=False)  # the answers stay in sight
    view = user_profile.profile(session, me.id)
    if view.n_labels == 0:
        st.info(
            "You have not compared any answers yet. After your first labels, this page shows your group; after some "
            "more, it describes what you like in words."
        )
        leaving.own()
        return
    words, map_area = st.columns([5, 3], gap="large")
    with words:
        st.markdown(position(view))
        st.markdown(liked(view))
        uncounted()
        if view.leanings:
            strengths(view)
    with map_area:
        small_map(view)
    if view.leanings:
        st.subheader("The labels behind it")
        for leaning in view.leanings:
            statement(leaning)
    st.subheader("How well the model knows you")
    accuracy(view)
    second_look.own()
    shared.results()
    st.subheader("Your answers")
    answers()
    leaving.own()
    if view.snapshot:
        watch_champion(view.snapshot)


# ---- position and preferences


def position(view: UserProfile) -> str:
    """The group that the person answers most like, in a sentence."""
    labels = counted(view.n_labels, "label")
    if view.problem:
        return f"You have given {labels}. The model's results for them cannot be read: {view.problem}"
    place = view.position
    if place is None:
        return (
            f"You have given {labels}. The model has not been trained yet; your group appears with its first snapshot."
        )
    if place.group is None:
        return f"By your {labels} you have no group yet: nobody else has labelled the answers that you labelled."
    phrase = group_phrase(place.group)
    known = f"{people_have(place.n_neighbours)} labelled some of the same answers."
    if place.n_groups <= 1:
        return (
            f"You have given {labels}. There is one group of people so far, {phrase}, and none to tell it from. {known}"
        )
    if not place.clear:
        lead, more = (
            ("**A first picture, still rough.** ", " Each further label makes it clearer.")
            if view.n_labels < SETTLED
            else ("", "")
        )
        return (
            f"{lead}Your {labels} {'does' if view.n_labels == 1 else 'do'} not clearly fit one group yet. "
            f"{nearest_group(place.group, place.group_probability)}{more} {known}"
        )
    return (
        f"By your {labels} you answer most like {phrase}. The probability that you are one of them, and not of another "
        f"group or of none, is {place.group_probability:.0%}. {known}"
    )


def liked(view: UserProfile) -> str:
    """What the person likes, in one or two sentences."""
    by_labels, by_model = (
        [leaning.words for leaning in view.leanings if leaning.source == source] for source in ("labels", "model")
    )
    if not view.leanings:
        return (
            f"What you like is **not certain yet**. Your {counted(view.n_decided, 'decided label')} on "
            f"{counted(view.n_prompts, 'question')} {'does' if view.n_decided == 1 else 'do'} not show it "
            "for any of the features measured in the texts. Where you stand among people shows after about ten labels; "
            "what you like, feature by feature, usually takes a few dozen."
        )
    sentences = []
    if by_labels:
        sentences.append(f"Your labels say that you like {listing(by_labels, bold=True)}.")
    if by_model:
        also = "also " if by_labels else ""
        alone = view.position is not None and view.position.n_neighbours == 0
        basis = "From your answers and those of everybody" if alone else "Based on people who answer like you"
        sentences.append(f"{basis}, the model {also}expects you to like {listing(by_model, bold=True)}.")
    return " ".join(sentences + ["Nothing else is certain yet."] * (len(view.leanings) == 1))


def uncounted() -> None:
    """What the person's group prefers beyond all counted features, by excerpts of answers; mostly nothing."""
    session, me = current()
    try:
        found = user_profile.uncounted(session, me.id)
    except CoplError:
        return  # the top of the page says that the snapshot is damaged
    if found:
        st.markdown("Your group also prefers something that nobody counts, **more clearly than anything counted**:")
        contrast_card(found[0])


def statement(leaning: Leaning) -> None:
    """One statement; the expander shows the labels behind it."""
    chosen, against, _ = leaning.votes
    who = "by your labels" if leaning.source == "labels" else "expected by the model"
    title = f"**{leaning.words.capitalize()}**, {who}: {chosen} of your labels for it, {against} against"
    with st.expander(title, key=f"evidence-{leaning.feature}", on_change="rerun") as behind:
        if behind.open:
            st.markdown(reason(leaning))
            evidence(leaning)


def reason(leaning: Leaning) -> str:
    chosen, against, same = leaning.votes
    along = f" Texts with this feature often also have {listing(leaning.correlated)}." if leaning.correlated else ""
    counted = f"{chosen} of your labels prefer the answer with more of it, {against} the other one" + (
        f", and in {same} both have as much" if same else ""
    )
    limit = "" if leaning.source == "labels" else " Your labels alone do not show it; it comes from people like you."
    low, high = sorted(abs(end) for end in (leaning.low, leaning.high))
    basis = "labels" if leaning.source == "labels" else "pairs with the answers that the model expects of you"
    return (
        f"{counted}.{limit}{along} Strength {abs(leaning.effect):.2f} (95% interval {low:.2f} to {high:.2f}, from "
        f"{leaning.n:,} {basis})."
    )


def evidence(leaning: Leaning) -> None:
    """The labels for and against a statement, the two texts side by side."""
    session, me = current()
    try:
        rows = user_profile.evidence(session, me.id, leaning.feature)
    except CoplError as problem:
        st.error(str(problem))
        return
    rows = rows if leaning.effect > 0 else rows[::-1]
    speaks_for = [row for row in rows if sign(leaning) * row.ahead > 1e-9]
    against = [row for row in reversed(rows) if sign(leaning) * row.ahead < -1e-9]
    sides = {f"For it ({len(speaks_for)})": speaks_for, f"Against it ({len(against)})": against}
    side = st.segmented_control(
        "Labels", list(sides), default=next(iter(sides)), required=True, key=f"side-{leaning.feature}"
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
        draw_prompt(row.prompt)
        two_texts(("You preferred", row.preferred.text), ("You did not prefer", row.rejected.text))
        st.caption(
            f"They differ by {abs(row.ahead):.1f} typical differences; answered {day_and_time(row.label.created_at)}."
        )


def strengths(view: UserProfile) -> None:
    st.plotly_chart(
        strength_chart(view),
        width="stretch",
        config=plot_settings() | {"displayModeBar": False},
        key="leanings",
        alt="Each statement's strength with its interval, by your labels and by the model",
    )
    st.caption(
        f"How strong each preference is: {UNIT}. Bars are 95% intervals. The figure shows what the answers you prefer "
        f"have more of, not why you prefer them. {source(view)}"
    )


def strength_chart(view: UserProfile) -> go.Figure:
    """Strengths and intervals, each with its sign turned so that more of the feature is further right."""
    rows = list(reversed(view.leanings))
    figure = go.Figure()
    figure.add_vline(x=0, line_width=1, line_color="#8a8a8a")
    add_most_people(figure, rows)
    add_leanings(figure, [row for row in rows if row.source == "labels"], "you, by your labels", "circle")
    add_leanings(figure, [row for row in rows if row.source == "model"], "you, by the model", "circle-open")
    figure.update_yaxes(
        categoryorder="array", categoryarray=[row.words for row in rows], showgrid=False, tickfont={"size": 14}
    )
    figure.update_xaxes(zeroline=False, tickfont={"size": 13})
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


def sign(row: Leaning) -> int:
    return 1 if row.effect > 0 else -1


def add_most_people(figure: go.Figure, rows: list[Leaning]) -> None:
    known = [row for row in rows if row.of_population is not None]
    if known:
        figure.add_scatter(
            x=[sign(row) * row.of_population for row in known],
            y=[row.words for row in known],
            mode="markers",
            name="most people, by the model",
            marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": NO_GROUP_COLOUR}},
            hovertemplate="most people: %{x:.2f}<extra></extra>",
        )


def add_leanings(figure: go.Figure, rows: list[Leaning], name: str, symbol: str) -> None:
    if not rows:
        return
    ends = [sorted((sign(row) * row.low, sign(row) * row.high)) for row in rows]
    values = [sign(row) * row.effect for row in rows]
    figure.add_scatter(
        x=values,
        y=[row.words for row in rows],
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
        customdata=[[row.n] for row in rows],
        hovertemplate="%{x:.2f}, n = %{customdata[0]}<extra></extra>",
    )


def source(view: UserProfile) -> str:
    labels = f"From your {counted(view.n_decided, 'decided label')} on {counted(view.n_prompts, 'question')}"
    return labels + (
        f" and {view.n_pairs:,} pairs of the study. Snapshot {view.snapshot}."
        if view.snapshot
        else "; no snapshot yet."
    )


# ---- the map


def small_map(view: UserProfile) -> None:
    session, me = current()
    if view.position is None:
        return
    try:
        people = user_map.own_map(session, me.id)
    except CoplError:
        return  # ``position`` reports the broken snapshot
    if people is None or view.position.xy is None:
        return
    st.plotly_chart(
        picture(people),
        width="stretch",
        config=plot_settings() | {"displayModeBar": False},
        key="spot",
        alt="Your position on the map of people",
    )
    among = count_people(*people.n_placed)
    st.caption(
        f"You among {among}; people who answer alike are close together. Snapshot {people.snapshot}, "
        f"{counted(people.total_labels, 'label')}."
    )


def picture(view: UserMap) -> go.Figure:
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
            hovertemplate=f"You{f'<br>{group_name(groups[view.me])}' * view.my_group_is_clear}<extra></extra>",
            marker={
                "symbol": "star",
                "size": 19,
                "color": group_colour(view.my_group),
                "line": {"width": 1.5, "color": "white"},
            },
        )
    figure.update_layout(height=300, margin={"l": 0, "r": 0, "t": 8, "b": 0}, showlegend=False, dragmode=False)
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    return figure


# ---- how well the model knows the person


def accuracy(view: UserProfile) -> None:
    """Accuracy of the model's and the majority's predictions, and the person's consistency."""
    session, me = current()
    predicted = label_quality.prequential(session, me.id, last=LAST)
    model, crowd, own = st.columns(3, gap="medium")
    with model:
        figure(
            "Predicted by the model",
            predicted.model,
            f"of your last {predicted.model.n} answers to randomly drawn pairs, predicted before you gave them",
            "None of your answers to randomly drawn pairs has a prediction yet. Once there is a snapshot, about one "
            "pair in five is drawn at random.",
        )
    with crowd:
        figure(
            "Predicted by the majority",
            predicted.crowd,
            "of the same answers, predicted by what most others chose",
            "Nothing to compare with yet.",
        )
    with own:
        figure(
            "Your consistency",
            view.consistent,
            "of your answers to repeated pairs, sides swapped, agree with the first time",
            "No pair has been repeated yet.",
        )
    if predicted.model.n:
        versions = predicted.snapshots
        made_by = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
        st.caption(f"Ties are excluded. Predictions by snapshot {made_by}. {verdict(predicted.apart)}")


def figure(title: str, share, words: str, nothing: str) -> None:
    if not share.n:
        st.metric(title, "–")
        st.caption(nothing)
        return
    low, high = share.interval
    st.metric(title, f"{share.share:.0%}")
    st.caption(f"{share.hits} of {share.n} {words} (95% interval {low:.0%} to {high:.0%}).")


def verdict(apart) -> str:
    """Whether the model or the majority predicts better, by the labels on which they differ (a sign test)."""
    low, high = apart.interval
    if low > 0.5:
        return "The model predicts your answers better than the majority does."
    if high < 0.5:
        return "The majority still predicts your answers better than the model does."
    return "With so few answers on which the two differ, neither is shown to be better."


page()
