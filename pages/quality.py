"""Quality: how much people agree, and how carefully each of them answers."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Kind, Role, counted, counted_people
from copl_core.study import access, label_quality
from copl_core.study.views import PersonQuality, QualityView
from pages import alike, quarantine, second_look
from pages.common import (
    NO_GROUP_COLOUR,
    current,
    in_a_sentence,
    in_figure,
    person_name,
    plot_settings,
    training_of,
    who_is_simulated,
)
from pages.find_people import find_people
from pages.gain import ceiling_in_words
from pages.texts import literal

CALM, FLAGGED = "#0072B2", "#D55E00"
MOST_SHOWN = 60  # people in the figure; the table has all
FEW_PAIRS = 20  # answered by two people or more, below which α says little
MOST_NAMED = 12  # people whose flags are listed in sentences


def page() -> None:
    session, me = current()
    st.title("Quality")
    who_is_simulated()
    lead = st.empty()
    people, answers = label_quality.answer_counts(session)
    lead.markdown(f"{people_have(people)} given {answers:,} answers. Computing the figures …")
    try:
        view = label_quality.quality(session, skill=st.session_state.get("skill", False), also=shown_also())
    except CoplError as problem:
        st.error(str(problem))
        st.stop()
    if not view.people:
        lead.info("Nobody has answered a pair yet. Once somebody has, this page shows how carefully people answer.")
        return
    lead.markdown(summary(view))
    flagged(view)
    quarantine.section()
    alike.section()
    st.subheader("Do people agree?")
    agreement(view)
    if allowed := ceiling_in_words():
        st.write(allowed)
    st.subheader("All people")
    shown = table(view)
    if shown:
        st.subheader("Which side of the screen")
        sides(shown)
    second_look.of_the_study()
    if me.role == Role.OWNER:
        st.subheader("Exclude somebody from training")
        exclusion(view)


def summary(view: QualityView) -> str:
    """Whether anybody stands out, in a sentence."""
    count = sum(bool(person.figures.flags) for person in view.people)
    people = f"{people_have(view.n_users)} given {view.n_answers:,} answers"
    models = sum(person.user.kind == Kind.MODEL for person in view.people)
    people += f" ({models:,} {'are language models' if models > 1 else 'is a language model'})." if models else "."
    if view.drawn is not None:
        people += (
            f" These are too many to read for one page: the figures are those of {counted_people(view.drawn)} drawn at "
            "random, and of those who are left out or chosen below."
        )
    if not count:
        return f"{people} **Nobody stands out**: nothing here suggests careless answers."
    return f"{people} **{count} of them {'stand' if count != 1 else 'stands'} out** and may deserve a look:"


def people_have(people: int) -> str:
    return f"{people:,} {'people have' if people != 1 else 'person has'}"


def flagged(view: QualityView) -> None:
    named = sorted((person for person in view.people if person.figures.flags), key=most_flags_first)
    for person in named[:MOST_NAMED]:
        out = "" if person.user.trained else f" {training_of(person.user).capitalize()} from training."
        st.markdown(f"- **{literal(name(person))}.** {' '.join(person.figures.flags)}{out}")
    if len(named) > MOST_NAMED:
        st.write(f"And {len(named) - MOST_NAMED:,} more, at the top of the table below.")
    st.caption(
        "A person is listed only for what preferences cannot explain: different answers to the same pair, wrong "
        "answers to gold pairs, one side chosen too often, or answers faster than anybody can read; and only if the "
        "whole 95% interval is beyond the limit. Disagreeing with others is never a reason."
    )


def agreement(view: QualityView) -> None:
    found = view.agreement
    if math.isnan(found.alpha):
        st.write(
            "All answers are of one kind, so agreement cannot be distinguished from chance."
            if found.n_pairs
            else "No pair has been answered by two people yet, so there is nothing to compare."
        )
        return
    st.metric("Krippendorff's α", number(found.alpha))
    st.write(meaning(view))
    pairs = f"{found.n_pairs:,} {'pair' if found.n_pairs == 1 else 'pairs'}"
    if found.n_pairs < FEW_PAIRS:
        st.write(f"That rests on {pairs} only and says little.")
    # of a few pairs that all look the same, a bootstrap draws nothing else
    narrow = found.n_pairs < FEW_PAIRS and number(found.low) == number(found.high)
    interval = "" if narrow or math.isnan(found.low) else f" (95% interval {number(found.low)} to {number(found.high)})"
    st.caption(
        f"α = {number(found.alpha)}{interval}, over {found.n_labels:,} labels on {pairs} that two "
        f"or more people answered. Two of them give the same answer in {found.observed:.0%} of cases; chance would "
        f"give {found.expected:.0%}. α compares answers, not sides of the screen, and ignores excluded people."
        + (" The pairs are drawn at random." if view.drawn is not None else "")
    )


def number(value: float) -> str:
    """Two digits, with the minus sign of the rest of the page."""
    return f"{value:z.2f}".replace("-", "−")


def meaning(view: QualityView) -> str:
    alpha = view.agreement.alpha
    if alpha >= 0.8:
        return "Nearly everybody prefers the same answers. These pairs contain little personal preference to learn."
    if alpha >= 0.4:
        return "People mostly agree and differ on some pairs: a shared idea of quality plus personal preferences."
    if alpha >= 0.1:
        return (
            "People agree a little more than chance. They differ in their preferences, which is what this study is "
            "about; it is no sign of careless answers."
        )
    below = view.agreement.high < 0 or alpha <= -0.1
    return (
        f"People agree {'less than' if below else 'about as much as'} chance. Their preferences differ on these pairs. "
        "Whether somebody answers carelessly is shown by their own figures below, not by α."
    )


# ---- the table


def table(view: QualityView) -> list[PersonQuality]:
    """A table of all people, those with flags first; returns the people that it shows."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        simulated = st.toggle("Show simulated people and language models", value=False, key="quality-simulated")
        st.toggle(
            "Compute skill",
            key="skill",
            help="How well a person's answers follow one ranking shared by all people (noisy Bradley–Terry), from 0 "
            "to 1. Unusual preferences lower it, so nobody is listed for it. The first time takes a few seconds.",
        )
    if view.drawn is not None:
        choose_also()
    shown = [person for person in view.people if simulated or person.user.kind == Kind.HUMAN]
    if not shown:
        st.info("No human has answered yet. Show simulated people and language models to see their figures.")
        return []
    shown.sort(key=most_flags_first)
    rows = [row(person, with_skill=st.session_state.get("skill", False)) for person in shown]
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        key="people-table",
        alt="Figures of every person",
        placeholder="–",
        column_config=columns(),
    )
    st.caption(
        "left: share of decided answers on the left of the screen, and its interval. same again: share of the repeated "
        "pairs with the same answer as before. gold right: share of the gold pairs answered correctly. seconds: median "
        "per answer. as most do: agreement with the majority, which reflects preferences and is never a flag. Computed "
        f"from the current labels (revision {view.revision:,}), without a snapshot."
    )
    return shown


def shown_also() -> tuple[int, ...]:
    """Ids of the people who are chosen by name, in a study too large for all."""
    return tuple(sorted(st.session_state.get("quality-also", ())))


def choose_also() -> None:
    chosen = shown_also()
    names = {user.id: person_name(user.name, user.kind) for user in find_people("quality-find", chosen=chosen)}
    st.multiselect("Show also", list(names), format_func=names.get, key="quality-also")


def most_flags_first(person: PersonQuality) -> tuple[int, int, str]:
    """The order of people: flags, then labels, then the name."""
    return -len(person.figures.flags), -person.figures.n, name_key(person)


def name_key(person: PersonQuality) -> str:
    return person.user.name.casefold()


def columns() -> dict:
    """Number formats of the table's columns."""
    percent = st.column_config.NumberColumn(format="%.0f%%")
    return dict.fromkeys(("left", "same again", "gold right", "too fast", "as most do"), percent) | {
        "skill": st.column_config.NumberColumn(format="%.2f"),
        "seconds": st.column_config.NumberColumn(format="%.1f"),
    }


def row(person: PersonQuality, *, with_skill: bool) -> dict:
    figures = person.figures
    low, high = figures.left.interval
    cells = {
        "person": name(person),
        "labels": figures.n,
        "left": percent_of(figures.left),
        "left, 95%": f"{low:.0%} to {high:.0%}" if figures.left.n else None,
        "repeats": figures.consistent.n,
        "same again": percent_of(figures.consistent),
        "gold pairs": figures.gold.n,
        "gold right": percent_of(figures.gold),
        "seconds": None if math.isnan(figures.median_seconds) else figures.median_seconds,
        "too fast": percent_of(figures.fast),
        "as most do": percent_of(figures.with_others),
    }
    if with_skill:
        cells["skill"] = person.skill
    cells["flags"] = len(figures.flags)
    cells["training"] = training_of(person.user)
    return cells


def percent_of(share) -> float | None:
    return 100 * share.share if share.n else None


def name(person: PersonQuality) -> str:
    return person_name(person.user.name, person.user.kind)


# ---- side preference


def sides(shown: list[PersonQuality]) -> None:
    rows = [person for person in shown if person.figures.left.n][:MOST_SHOWN]
    if not rows:
        st.write("No decided answers to show of which it is known what was on the left.")
        return
    st.plotly_chart(
        picture(rows), width="stretch", config=plot_settings(), key="sides", alt="Share of left answers by person"
    )
    more = "" if len(rows) == len(shown) else f" The first {len(rows)} of {len(shown)}."
    st.caption(
        "Share of decided answers on the left of the screen, with 95% intervals. Answers of files that do not say "
        f"what was on the left do not count. Sides are shuffled, so one half is expected for everybody.{more} "
        "Orange diamonds are listed above for it. The dashed line is the mean of other people. Computed from all "
        "current labels."
    )


def picture(rows: list[PersonQuality]) -> go.Figure:
    rows = rows[::-1]
    figure = go.Figure()
    named = [any("side" in flag for flag in person.figures.flags) for person in rows]
    for chosen, colour, words in ((False, CALM, "usual"), (True, FLAGGED, "prefers one side")):
        kept = [person for person, out in zip(rows, named, strict=True) if out == chosen]
        if kept:
            shares = [person.figures.left for person in kept]
            figure.add_scatter(
                x=[share.share for share in shares],
                y=[in_figure(name(person)) for person in kept],
                mode="markers",
                name=words,
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 0,
                    "color": colour,
                    "array": [share.interval[1] - share.share for share in shares],
                    "arrayminus": [share.share - share.interval[0] for share in shares],
                },
                marker={"size": 11, "color": colour, "symbol": "diamond" if chosen else "circle"},
                customdata=[[share.hits, share.n] for share in shares],
                hovertemplate="%{y}: %{customdata[0]} of %{customdata[1]}<extra></extra>",
            )
    usual = sum(person.figures.others_left for person in rows) / len(rows)
    figure.add_vline(x=usual, line_width=1.5, line_dash="dash", line_color=NO_GROUP_COLOUR)
    figure.update_xaxes(
        range=[-0.02, 1.02], tickformat=".0%", tickvals=[0, 0.25, 0.5, 0.75, 1], zeroline=False, tickfont={"size": 13}
    )
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[in_figure(name(person)) for person in rows],
        showgrid=False,
        tickfont={"size": 14},
    )
    figure.update_layout(
        height=90 + 30 * len(rows),
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "yref": "container", "y": 0, "x": 0, "font": {"size": 13}},
    )
    return figure


# ---- excluding somebody from training


def exclusion(view: QualityView) -> None:
    st.write(
        "An excluded person keeps their labels and their pages, but their labels do not train further snapshots and do "
        "not count in votes. You can include them again at any time."
    )
    people = {person.user.id: person for person in view.people}
    order = sorted(
        people,
        key=lambda one: (
            -len(people[one].figures.flags),
            people[one].user.kind != Kind.HUMAN,
            people[one].user.name.casefold(),
        ),
    )
    chosen = st.selectbox(
        "Person",
        order,
        index=None,
        placeholder="Choose a person",
        key="exclusion-person",
        format_func=lambda one: option(people[one]),
    )
    if done := st.session_state.pop("exclusion-done", ""):
        st.success(done)
    if problem := st.session_state.pop("exclusion-problem", ""):
        st.error(problem)
    if chosen is not None:
        confirm(people[chosen])


def option(person: PersonQuality) -> str:
    return name(person) + (" (excluded)" if person.user.excluded else "")


def confirm(person: PersonQuality) -> None:
    """A first button that says what will happen, a second one that does it."""
    out, verb = person.user.excluded, "Include again" if person.user.excluded else "Exclude"
    confirming = f"exclusion-confirming-{person.user.id}-{out}"
    if not st.session_state.get(confirming):
        st.button(f"{verb}…", key="exclusion-ask", on_click=st.session_state.update, args=({confirming: True},))
        return
    st.warning(
        f"The {counted(person.figures.n, 'label')} of {literal(name(person))} will "
        + (
            "train the next snapshot and count in votes again."
            if out
            else "not train the next snapshot and not count in votes. Nothing is deleted."
        )
    )
    with st.container(horizontal=True):
        st.button(verb, type="primary", key="exclusion-do", on_click=exclude, args=(person, not out))
        st.button("Cancel", key="exclusion-cancel", on_click=st.session_state.pop, args=(confirming, None))


@in_a_sentence
def exclude(person: PersonQuality, out: bool) -> None:
    session, me = current()
    st.session_state.pop(f"exclusion-confirming-{person.user.id}-{not out}", None)
    try:
        access.exclude(session, person.user.id, out, by=me.id)
    except CoplError as problem:
        if me.role != Role.OWNER:  # any more: the section, with the place for the sentence, is gone
            raise
        st.session_state["exclusion-problem"] = str(problem)
    else:
        st.session_state["exclusion-done"] = f"{literal(name(person))} is {'excluded' if out else 'included again'}."


page()
