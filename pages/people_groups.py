"""A part of the people page: each group against all others in measured features, typical pairs and typical people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Role, counted, counted_people
from copl_core.study import found_features, group_names, group_profiles, user_map
from copl_core.study.found_features import FoundFeaturesView, Preferred
from copl_core.study.group_profiles import GroupProfile, TypicalPair
from copl_core.study.user_map import UserMap
from pages.common import (
    NO_GROUP_COLOUR,
    current,
    forget_group_names,
    group_colour,
    group_name,
    group_phrase,
    in_a_sentence,
    listing,
    plot_settings,
    source_line,
    too_few_for_groups,
)
from pages.gain import signed
from pages.texts import draw_prompt, draw_response, literal

CAUTION = (
    "The groups were found in the same labels that describe them here, so the descriptions are clearer than they "
    "would be on new labels."
)
BY_LABELS, BY_MODEL = "by their labels", "by the model's predictions"


def groups(view: UserMap) -> None:
    session, _ = current()
    try:
        with st.spinner("Describing the groups"):
            profiles = group_profiles.profiles(session, view.snapshot)
    except CoplError as problem:
        st.error(str(problem))
        return
    if len(profiles) < 2:
        why = too_few_for_groups(sum(view.sizes.values()))
        st.write(why or "There is one group so far, so there is no other group to compare it with.")
        return
    if truth := true_groups(view):
        st.write(truth)
    for profile in profiles:
        card(profile, view)
    measured = profiles[0]
    most = "" if measured.n_texts == measured.all_texts else f" (the {measured.n_texts:,} with the most labels)"
    st.caption(f"Measured on {measured.all_texts:,} texts{most}. {CAUTION}")


def true_groups(view: UserMap) -> str:
    """How the groups that simulated people were made with stand to those that the model sees; empty without them."""
    known = (view.true_groups != "") & (view.group >= 0)
    if view.is_sample or not known.any():
        return ""
    names = np.unique(view.true_groups[known]).tolist()
    inside: dict[int, list[str]] = {}  # group of the map → the true groups most of whose people it holds
    for name in names:
        inside.setdefault(int(np.bincount(view.group[known & (view.true_groups == name)]).argmax()), []).append(name)
    made = (
        f"The {int(known.sum()):,} simulated people were made with {len(names)} tastes (their true groups), which the "
        f"model never sees. From the answers alone it finds {len(view.groups)} groups"
    )
    shared = [
        f"{listing([f'“{literal(name)}”' for name in own])} answer so alike that most of their people are together in "
        f"{group_phrase(group)}"
        for group, own in sorted(inside.items())
        if len(own) > 1
    ]
    return f"{made}: {'; '.join(shared)}." if shared else f"{made}, each with most of the people of one taste."


def card(profile: GroupProfile, view: UserMap) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{group_name(profile.group)}**{small_print(profile)}", width="content")
            rename(profile)
        st.markdown(in_words(profile))
        with st.expander(
            "Effects, typical pairs, typical people", key=f"profile-{profile.group}", on_change="rerun"
        ) as more:
            if not more.open:
                return
            effects(profile)
            st.markdown("**Typical pairs**: pairs on which the group is expected to differ most from the others")
            for pair in profile.pairs:
                typical_pair(pair, profile)
            st.markdown("**Typical people**: " + people(profile, view))
            found_in_texts(profile)


def in_words(profile: GroupProfile) -> str:
    """What the group prefers, in one or two sentences."""
    by_labels, expected = (
        [one.words for one in profile.label_statements],
        [one.words for one in profile.model_statements],
    )
    more = [words for words in expected if words not in by_labels]
    if by_labels:
        text = f"By their labels, they prefer {listing(by_labels, bold=True)} more than the others do"
        return text + (f"; the model also expects {listing(more, bold=True)}." if more else ".")
    if expected:
        return (
            f"The model expects them to prefer {listing(expected, bold=True)} more than the others do; their labels "
            "alone do not show it with certainty."
        )
    if profile.by_labels is None:
        return "The group has too few people for a description."
    return "No measured feature of the texts distinguishes them with certainty."


def small_print(profile: GroupProfile) -> str:
    """The group's number, unless that is its name, and its size."""
    size = f"{profile.people:,} {'people' if profile.people != 1 else 'person'}"
    number = f"Group {profile.group + 1}"
    return f" · {size}" if group_name(profile.group) == number else f" · {number} · {size}"


def rename(profile: GroupProfile) -> None:
    """For owners, a field with the group's name."""
    _, me = current()
    if me.role != Role.OWNER:
        return
    key = f"group-name-{profile.group}"
    st.session_state.setdefault(key, group_name(profile.group))
    saved = st.session_state.get(f"{key}-saved", 0)
    with st.popover("Rename", key=f"rename-{profile.group}-{saved}", width="content"):
        st.text_input(
            "Name of the group",
            max_chars=group_names.NAME_LENGTH,
            key=key,
            on_change=save_name,
            args=(profile.group, key),
            help="Empty the field to have the name made from what the group prefers again.",
        )
        if problem := st.session_state.get(f"{key}-problem"):
            st.error(problem)
        st.caption("The name is used on all pages, for this group in every snapshot. Press Enter to save it.")


@in_a_sentence
def save_name(group: int, key: str) -> None:
    session, me = current()
    st.session_state.pop(f"{key}-problem", None)
    try:
        st.session_state[key] = group_names.rename(session, group, st.session_state[key], by=me.id)
        st.session_state[f"{key}-saved"] = st.session_state.get(f"{key}-saved", 0) + 1  # a new popover, which is closed
    except CoplError as problem:
        if me.role != Role.OWNER:  # any more: the field, with the place for the sentence, is gone
            raise
        st.session_state[f"{key}-problem"] = str(problem)
    forget_group_names()


def found_in_texts(profile: GroupProfile) -> None:
    """Features that nobody counts, by excerpts of answers, where they say more than the counted ones."""
    session, _ = current()
    try:
        view = found_features.found(session, profile.snapshot)
    except CoplError as problem:
        st.error(str(problem))
        return
    if view is None:
        return
    st.markdown("**Found in the texts**: what nobody counts")
    if not view.gain.certain:
        st.caption(gain_in_words(view) + " So none is shown.")
        return
    preferred = view.groups.get(profile.group, ())
    for one in preferred:
        contrast_card(one)
    none = "" if preferred else " None distinguishes this group with certainty."
    source_line(gain_in_words(view) + none, view.snapshot)


def gain_in_words(view: FoundFeaturesView) -> str:
    gain = view.gain
    found = f"features found in {view.n_texts:,} texts"
    lead = f"The {found} tell more" if gain.certain else f"It is not certain that {found} tell more"
    return (
        f"{lead} about preferences than the counted features alone. Of {gain.n:,} held-out answers, "
        f"{gain.before:.1%} are predicted by the counted features and {gain.after:.1%} by both together. "
        f"The difference is between {signed(gain.low)} and {signed(gain.high)} points (95% interval over people)."
    )


def contrast_card(one: Preferred) -> None:
    with st.container(border=True):
        excerpts("Prefer answers like these", "to answers like these", one.more, one.less)
        st.caption(f"d = {one.d:.1f} standard deviations between people, by their labels.")


def excerpts(first: str, second: str, more: Sequence[str], less: Sequence[str]) -> None:
    """Excerpts of answers with more and with less of a found feature, side by side."""
    for column, title, texts in zip(st.columns(2, gap="medium"), (first, second), (more, less), strict=True):
        with column:
            st.caption(title)
            st.markdown("\n".join(f"- {literal(text)}" for text in texts))


def effects(profile: GroupProfile) -> None:
    """Effects with intervals, by the group's labels and by the model's predictions."""
    rows: dict[str, dict] = {}  # words → source → effect
    for source, found in ((BY_LABELS, profile.label_statements), (BY_MODEL, profile.model_statements)):
        for effect in found:
            rows.setdefault(effect.words, {})[source] = effect
    if not rows:
        return
    st.plotly_chart(
        effects_chart(profile, rows),
        width="stretch",
        config=plot_settings(),
        key=f"effects-{profile.group}",
        alt=f"What {group_name(profile.group)} prefers compared with other people",
    )
    source_line(
        "How much more of each feature the preferred answers of the group have than those of other people, in standard "
        "deviations between people (d). The 95% intervals are over people and hold for all features at once. "
        f"{basis(profile)} The effects show what the group's choices have in common, not why people choose.",
        profile.snapshot,
    )
    if along := correlated(rows):
        st.caption(along)


def effects_chart(profile: GroupProfile, rows: dict[str, dict]) -> go.Figure:
    figure = go.Figure()
    for source, colour, symbol in (
        (BY_MODEL, NO_GROUP_COLOUR, "circle-open"),
        (BY_LABELS, group_colour(profile.group), "circle"),
    ):
        found = [(words, effects[source]) for words, effects in reversed(rows.items()) if source in effects]
        figure.add_scatter(
            x=[abs(one.d) for _, one in found],
            y=[words for words, _ in found],
            mode="markers",
            name=source,
            marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2}},
            error_x={"array": [half_in_d(one) for _, one in found], "color": colour, "thickness": 2},
            customdata=[[abs(one.d) - half_in_d(one), abs(one.d) + half_in_d(one)] for _, one in found],
            hovertemplate="%{y}: d = %{x:.1f}, from %{customdata[0]:.1f} to %{customdata[1]:.1f}<extra>"
            + source
            + "</extra>",
        )
    figure.add_vline(x=0, line_width=1, line_color="#888")
    figure.update_layout(
        height=110 + 34 * len(rows), margin={"l": 0, "r": 0, "t": 0, "b": 0}, legend={"orientation": "h", "y": -0.25}
    )
    figure.update_xaxes(rangemode="tozero", title={"text": "more than other people (d)"})
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(rows)))
    return figure


def basis(profile: GroupProfile) -> str:
    """The labels and pairs behind the effects, in a sentence."""
    votes, model = profile.by_labels, profile.by_model
    parts = []
    if votes:
        parts.append(f"{votes.n:,} decided labels of {counted_people(votes.people)} against {votes.others:,} others")
    if model:
        parts.append(f"{model.n:,} pairs with the answers that the model expects")
    return f"From {' and from '.join(parts)}."


def half_in_d(one) -> float:
    """Half the width of the interval of an effect, in standard deviations between people."""
    return (one.high - one.low) / 2 * abs(one.d / one.effect)


def correlated(rows: dict[str, dict]) -> str:
    """The features that go along with those that are named, in a sentence; empty where none does."""
    along = {words: one.correlated for words, effects in rows.items() for one in effects.values() if one.correlated}
    parts = [f"{words} goes along with {listing(others)}" for words, others in along.items()]
    return f"{'; '.join(parts)}." if parts else ""


def typical_pair(pair: TypicalPair, profile: GroupProfile) -> None:
    swap = pair.inside < pair.outside
    sides = (pair.pair.second, pair.pair.first) if swap else (pair.pair.first, pair.pair.second)
    inside, outside = (1 - pair.inside, 1 - pair.outside) if swap else (pair.inside, pair.outside)
    votes = pair.votes[::-1] if swap else pair.votes
    with st.container(border=True):
        draw_prompt(pair.pair.prompt)
        for column, title, response in zip(
            st.columns(2, gap="medium"), ("The group prefers", "over"), sides, strict=True
        ):
            with column:
                st.caption(title)
                draw_response(response.text)
        st.caption(
            f"Expected to prefer the first answer: {inside:.0%} of the group, {outside:.0%} of the others. The group's "
            f"votes: {votes[0]} for it, {votes[1]} against it. Snapshot {profile.snapshot}."
        )


def people(profile: GroupProfile, view: UserMap) -> str:
    if view.is_sample:
        session, _ = current()
        view = user_map.map_of_users(session, None, view.snapshot, profile.typical_users)
    rows = view.rows(profile.typical_users)
    names = [f"{literal(view.marked_name(row))} ({counted(int(view.n_labels[row]), 'label')})" for row in rows.tolist()]
    return (", ".join(names) or "nobody") + "; nearest to the group's centre, among the half with the most labels."
