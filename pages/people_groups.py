"""A part of the people page: each group against the rest, in measured features, typical pairs and typical people."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.study import group_profiles
from copl_core.study.group_profiles import GroupProfile, TypicalPair
from copl_core.study.user_map import PeopleMap
from pages.common import NO_GROUP_COLOUR, PLOT, group_colour, group_name, here, readable, source_line

CAUTION = (
    "The groups were found in the same labels that they are described by, so a description is clearer here than "
    "it would be on fresh labels."
)


def groups(view: PeopleMap) -> None:
    session, _ = here()
    try:
        with st.spinner("Describing the groups"):
            every = group_profiles.profiles(session, view.snapshot)
    except CoplError as problem:
        st.error(str(problem))
        return
    if len(every) < 2:
        st.write("There is one group so far, and nothing to set it apart from.")
        return
    for portrait in every:
        one(portrait, view)
    measured = every[0]
    most = "" if measured.n_texts == measured.all_texts else f" (the {measured.n_texts:,} with most labels)"
    st.caption(f"Measured on {measured.all_texts:,} texts{most}. {CAUTION}")


def one(portrait: GroupProfile, view: PeopleMap) -> None:
    with st.container(border=True):
        st.markdown(in_words(portrait))
        with st.expander(
            "Effects, typical pairs, typical people", key=f"portrait-{portrait.group}", on_change="rerun"
        ) as more:
            if not more.open:
                return
            effects(portrait)
            st.markdown("**Typical pairs**: where the group is expected to answer most unlike the others")
            for pair in portrait.pairs:
                typical_pair(pair, portrait)
            st.markdown("**Typical people**: " + people(portrait, view))


def in_words(portrait: GroupProfile) -> str:
    head = f"**{group_name(portrait.group)}**, {portrait.people:,} {'people' if portrait.people != 1 else 'person'}."
    said, expected = [one.words for one in portrait.said], [one.words for one in portrait.expected]
    more = [words for words in expected if words not in said]
    if said:
        text = f"More than the others they prefer {listing(said)}, by their labels"
        return f"{head} {text}" + (f"; the model also expects {listing(more)}." if more else ".")
    if expected:
        return (
            f"{head} The model expects them to prefer {listing(expected)} more than the others; their labels "
            "alone do not settle it."
        )
    if portrait.by_labels is None:
        return f"{head} Too few people to describe."
    return f"{head} No measured feature of the texts sets them apart with certainty."


def listing(words: list[str]) -> str:
    bold = [f"**{word}**" for word in words]
    return bold[0] if len(bold) == 1 else f"{', '.join(bold[:-1])} and {bold[-1]}"


def effects(portrait: GroupProfile) -> None:
    """Effects with intervals, by labels and as the model expects."""
    rows = {}
    for name, told in (("by their labels", portrait.said), ("as the model expects", portrait.expected)):
        for statement in told:
            rows.setdefault(statement.words, {})[name] = statement
    if not rows:
        return
    figure = go.Figure()
    for name, colour, symbol in (
        ("as the model expects", NO_GROUP_COLOUR, "circle-open"),
        ("by their labels", group_colour(portrait.group), "circle"),
    ):
        found = [(words, told[name]) for words, told in reversed(rows.items()) if name in told]
        figure.add_scatter(
            x=[abs(one.effect) for _, one in found],
            y=[words for words, _ in found],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2}},
            error_x={"array": [(one.high - one.low) / 2 for _, one in found], "color": colour, "thickness": 2},
            customdata=[[one.d, *sorted((abs(one.low), abs(one.high)))] for _, one in found],
            hovertemplate="%{y}: %{x:.2f}, from %{customdata[1]:.2f} to %{customdata[2]:.2f}<br>"
            "%{customdata[0]:.1f} standard deviations between people<extra>" + name + "</extra>",
        )
    figure.add_vline(x=0, line_width=1, line_color="#888")
    figure.update_layout(
        height=110 + 34 * len(rows), margin={"l": 0, "r": 0, "t": 0, "b": 0}, legend={"orientation": "h", "y": -0.25}
    )
    figure.update_xaxes(rangemode="tozero", title={"text": "ahead of the others, in typical differences"})
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(rows)))
    st.plotly_chart(
        figure,
        width="stretch",
        config=PLOT,
        key=f"effects-{portrait.group}",
        alt=f"What {group_name(portrait.group)} prefers against the rest",
    )
    votes, model = portrait.by_labels, portrait.by_model
    behind = (
        [f"{votes.n:,} decided labels of {votes.people:,} people against {votes.others:,} others"] if votes else []
    ) + ([f"{model.n:,} pairs as the model expects them to be answered"] if model else [])
    source_line(
        f"How much more of each feature the preferred answer has than in other people's choices; 1 is the "
        f"typical difference between two answers. 95 % intervals over people, for all features at once. From "
        f"{' and from '.join(behind)}. It shows what goes with their choices, not why they choose.",
        portrait.snapshot,
    )
    st.caption(
        "Effect sizes: "
        + "; ".join(
            f"{words} d = {abs(one.d):.1f} {name}" + (f", along with {', '.join(one.along)}" if one.along else "")
            for words, told in rows.items()
            for name, one in told.items()
        )
        + "."
    )


def typical_pair(pair: TypicalPair, portrait: GroupProfile) -> None:
    swap = pair.inside < pair.outside
    sides = (pair.pair.second, pair.pair.first) if swap else (pair.pair.first, pair.pair.second)
    inside, outside = (1 - pair.inside, 1 - pair.outside) if swap else (pair.inside, pair.outside)
    votes = pair.votes[::-1] if swap else pair.votes
    with st.container(border=True):
        st.markdown(f"**{readable(pair.pair.prompt)}**")
        for column, title, response in zip(
            st.columns(2, gap="medium"), ("The group prefers", "over"), sides, strict=True
        ):
            with column:
                st.caption(title)
                st.markdown(readable(response.text))
        st.caption(
            f"Expected to prefer the first: {inside:.0%} of the group, {outside:.0%} of the others. The group's "
            f"own votes: {votes[0]} for it, {votes[1]} against. Snapshot {portrait.snapshot}."
        )


def people(portrait: GroupProfile, view: PeopleMap) -> str:
    rows = view.rows(portrait.typical)
    names = [
        f"{readable(str(view.names[row]))}{' (simulated)' if view.simulated[row] else ''} ({view.n_labels[row]} labels)"
        for row in rows.tolist()
    ]
    return (", ".join(names) or "nobody") + "; nearest to the group's middle, among the half with most labels."
