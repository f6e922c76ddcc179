"""What divides people, and what they agree on: pairs and responses."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.study import access, contents, controversy, labelling
from copl_core.study.controversy import SMALL, ControversyItem, ControversyView, Query
from copl_core.study_settings import PinnedPair
from pages.common import (
    PLOT,
    current,
    group_colour,
    group_name,
    no_snapshot,
    readable,
    resend_values,
    stop_with_error,
    watch_champion,
)

A_PAGE = 8
ORDERS = {"divided": "ControversyItem", "agreed": "Agreed"}
KINDS = {"pairs": "Pairs", "responses": "Answers"}
MARK = "background:rgba(86,180,233,.28);text-decoration:underline;text-decoration-thickness:2px;color:inherit"
NUMBERS = (
    (
        "Between groups",
        "How far the groups' expected answers lie apart: 100 % is two halves, each of one mind, against "
        "each other. The list is ranked by it.",
    ),
    (
        "Within people",
        "What is left inside a group: its members differ, and each of them might answer otherwise on "
        "another day. High where the two answers are equally good.",
    ),
    (
        "Unknown",
        "What the model does not know: its graphs, trained apart, disagree. More labels on these texts make it "
        "smaller.",
    ),
)


def page() -> None:
    session, _ = current()
    st.title("Controversy")
    answer = st.container()
    wanted = controls()
    chosen = the_chosen()
    try:
        found = controversy.ranked(session, A_PAGE, query=wanted, skip=A_PAGE * (st.session_state.get("at", 1) - 1))
        one = controversy.item(session, chosen) if chosen is not None else None
    except CoplError as problem:
        stop_with_error(problem)
    if found is None:
        no_snapshot("The list of what divides people")
    with answer:
        said(found, wanted)
    asks = {ask.pair_id: ask for ask in labelling.pinned_pairs(session)}
    if chosen is not None:
        selected(one, chosen, found, asks)
    many(found, wanted, asks)
    watch_champion(found.snapshot)


# ---- what is asked of the list


def controls() -> Query:
    session, _ = current()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = st.segmented_control(
            "Order",
            list(ORDERS),
            default="divided",
            format_func=ORDERS.get,
            key="order",
            required=True,
            bind="query-params",
            on_change=first_page,
        )
        kind = st.segmented_control(
            "Of",
            list(KINDS),
            default="pairs",
            format_func=KINDS.get,
            key="kind",
            required=True,
            bind="query-params",
            on_change=first_page,
        )
        votes = st.number_input(
            "People who answered, at least",
            0,
            step=1,
            key="votes",
            width=190,
            bind="query-params",
            on_change=first_page,
        )
        titles = dict(contents.prompts(session))
        told = st.query_params.get("prompt", "")
        if "in-prompt" not in st.session_state and told.isdecimal() and int(told) in titles:
            st.session_state["in-prompt"] = int(told)
        resend_values("in-prompt")
        prompt = st.selectbox(
            "Prompt",
            list(titles),
            index=None,
            placeholder="every prompt",
            key="in-prompt",
            format_func=lambda number: brief(titles[number]),
            width=260,
            on_change=in_prompt,
        )
        known = contents.sources(session)
        source = (
            st.selectbox(
                "Source",
                known,
                index=None,
                placeholder="every source",
                key="source",
                width=190,
                bind="query-params",
                on_change=first_page,
            )
            if known
            else None
        )
    return Query(kind, order == "agreed", prompt, source, votes)


def first_page() -> None:
    st.session_state.pop("at", None)


def in_prompt() -> None:
    """Keep the address in step with the chosen prompt."""
    first_page()
    if (chosen := st.session_state["in-prompt"]) is None:
        st.query_params.pop("prompt", None)
    else:
        st.query_params["prompt"] = str(chosen)


def the_chosen() -> int | None:
    """The pair that the address names."""
    told = st.query_params.get("pair", "")
    return int(told) if told.isdecimal() and len(told) < 10 else None


# ---- the answer


def said(view: ControversyView, wanted: Query) -> None:
    things = "pairs" if wanted.kind == "pairs" else "answers"
    if not view.groups:
        st.info(
            "The snapshot holds no group of people yet, so nothing can divide them. Groups appear once several "
            "people have labelled."
        )
        return
    if len(view.groups) == 1:
        st.info(
            "The snapshot sees one group of people so far, so nothing divides groups. The list below tells within "
            "people and unknown apart all the same."
        )
    elif wanted.kind == "pairs":
        first = "agree most surely" if wanted.consensus else "are furthest apart"
        st.write(
            f"On **{view.n_split:,}** of {view.n_matching:,} pairs the groups are expected to prefer different "
            f"answers, by more than the model's doubt. Below, those on which they {first} come first."
        )
    else:
        st.write(
            f"**{view.n_split:,}** of {view.n_matching:,} answers are expected to win in one group and to lose in "
            f"another, against the other answers to their prompt. Below, those "
            f"{'judged most alike' if wanted.consensus else 'that divide most'} come first."
        )
    for column, (name, meaning) in zip(st.columns(3, gap="medium"), NUMBERS, strict=True):
        column.caption(f"**{name}.** {meaning}")
    members = (
        "One graph only, so *unknown* cannot be told apart. "
        if view.members == 1
        else f"*Unknown* is read from {view.members} graphs. "
    )
    people = sum(view.groups.values())
    sample = f"a sample of {view.n_evaluated:,} of {people:,}" if view.n_evaluated < people else f"{people:,}"
    st.caption(
        f"The numbers add up to the variance of one {things[:-1]}'s answer, in per cent of the largest there "
        f"can be. {members}Expected from {sample} people in {len(view.groups)} groups. Snapshot "
        f"{view.snapshot}."
    )


# ---- cards


def selected(one: ControversyItem | None, pair_id: int, view: ControversyView, asks: dict[int, PinnedPair]) -> None:
    """The pair of the address, above the list."""
    if one is None:
        st.warning(f"Snapshot {view.snapshot} knows no pair {pair_id}; the list below has those it knows.")
    else:
        st.subheader(f"Pair {pair_id}")
        card(one, view, "chosen", asks)
    st.button(
        "Back to the list alone",
        key="unchoose",
        icon=":material/close:",
        on_click=lambda: st.query_params.pop("pair", None),
    )


def many(view: ControversyView, wanted: Query, asks: dict[int, PinnedPair]) -> None:
    session, _ = current()
    things = "pairs" if wanted.kind == "pairs" else "answers"
    if not view.n_matching:
        st.info(
            f"No {things} pass these filters; {view.n_pairs:,} pairs are known to the snapshot. Take a filter "
            "away, or lower the number of people."
        )
        return
    pages = math.ceil(view.n_matching / A_PAGE)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"{view.n_matching:,} {things}", width="stretch")
        st.toggle("Highlight what differs", True, key="marks", bind="query-params")
        st.download_button(
            "All of them as CSV",
            lambda: controversy.export_csv(session, wanted),
            f"controversy-{things}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key="csv",
        )
    for one in view.items:
        card(one, view, "list", asks)
    if pages > 1:
        st.pagination(pages, key="at")


def card(one: ControversyItem, view: ControversyView, place: str, asks: dict[int, PinnedPair]) -> None:
    with st.container(border=True, key=f"card-{place}-{one.id}"):
        st.markdown(f"**{readable(one.prompt)}**")
        if one.second is None:
            st.caption("This answer, against the others to the same prompt" + came(one.first.source))
            st.markdown(readable(one.first.text))
        else:
            texts(one)
        numbers(one, view)
        side = "the first answer" if one.second else "this answer"
        st.plotly_chart(
            split(one),
            width="stretch",
            config=PLOT,
            key=f"split-{place}-{one.id}",
            alt=f"Share of each group expected to prefer {side}, and as observed",
        )
        st.caption(
            f"Bars: how many of a group the model expects to prefer {'A' if one.second else 'it'}. Dots: what "
            f"people really chose, with a 95 % interval. {votes(one)} Snapshot {view.snapshot}."
        )
        steps(one, place, asks)


def texts(one: ControversyItem) -> None:
    session, _ = current()
    marks = st.session_state.get("marks", True)
    found, more, fewer = controversy.compare_texts(session, one.first.text, one.second.text)
    for column, letter, response, pieces in zip(
        st.columns(2, gap="medium"), "AB", (one.first, one.second), (found.first, found.second), strict=True
    ):
        with column:
            st.caption(letter + came(response.source))
            if marks and found.comparable:
                st.html(marked(pieces))
            else:
                st.markdown(readable(response.text))
    told = [f"{letter} has {', '.join(words)}" for letter, words in (("A", more), ("B", fewer)) if words]
    shared = (
        ""
        if found.comparable or not marks
        else (f"Only {found.shared:.0%} of the words are shared, too few to highlight single ones. ")
    )
    if shared or told:
        st.caption(f"{shared}{'; '.join(told)}{'.' if told else ''}")


def came(source: str | None) -> str:
    return f" · from {readable(source)}" if source else ""


def marked(pieces) -> str:
    """A text as HTML that shows every character as itself, with the differing stretches marked."""
    whole = "".join(
        f'<mark style="{MARK}">{escape(text)}</mark>' if differs else escape(text) for text, differs in pieces
    )
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{whole}</div>'


def numbers(one: ControversyItem, view: ControversyView) -> None:
    values = (one.between, one.within + one.aleatoric, one.epistemic if view.members > 1 else None)
    with st.container(horizontal=True, gap="medium"):
        for (name, meaning), value in zip(NUMBERS, values, strict=True):
            st.markdown(
                f"{name} **{'not known' if value is None else f'{4 * value:.0%}'}**", help=meaning, width="content"
            )


def split(one: ControversyItem) -> go.Figure:
    """Expected shares as bars from the middle, observed ones as dots with their interval."""
    figure, vote = go.Figure(), "vote" if one.second else "comparison"
    for (group, share), doubt in reversed(tuple(zip(one.by_group, one.ensemble_std, strict=True))):
        seen = one.observed(group)
        name = f"{group_name(group)} · {seen.n} {vote if seen.n == 1 else f'{vote}s'}"
        figure.add_bar(
            x=[share - 0.5],
            y=[name],
            base=0.5,
            orientation="h",
            showlegend=False,
            marker_color=group_colour(group),
            hovertemplate=f"expected: {share:.0%}, give or take {doubt:.0%}<extra></extra>",
        )
        if seen.n:
            low, high = seen.interval
            figure.add_scatter(
                x=[seen.share],
                y=[name],
                mode="markers",
                showlegend=False,
                marker={"color": "white", "size": 10, "line": {"color": "#555", "width": 2}},
                error_x={
                    "array": [high - seen.share],
                    "arrayminus": [seen.share - low],
                    "color": "#777",
                    "thickness": 1.5,
                    "width": 4,
                },
                hovertemplate=f"observed: {seen}{', a small vote' if seen.n < SMALL else ''}<extra></extra>",
            )
    figure.add_vline(x=0.5, line_width=1, line_color="#888")
    ends = ["all prefer B", "even", "all prefer A"] if one.second else ["always loses", "even", "always wins"]
    figure.update_xaxes(range=[-0.04, 1.04], tickvals=[0, 0.5, 1], ticktext=ends)
    figure.update_layout(height=60 + 30 * len(one.by_group), margin={"l": 0, "r": 0, "t": 0, "b": 0}, bargap=0.35)
    return figure


def votes(one: ControversyItem) -> str:
    if not one.voters:
        return "Nobody has answered it yet."
    people = "1 person has" if one.voters == 1 else f"{one.voters:,} people have"
    neither = sum(counts[2] for counts in one.votes.values())
    strangers = sum(one.votes.get(None, (0, 0, 0)))
    small = [group_name(group) for group, _ in one.by_group if one.observed(group).n < SMALL]
    parts = [f"{people} answered{' about it' if one.second is None else ''}"]
    if neither:
        parts.append(f"{neither} without a preference")
    if strangers:
        parts.append(f"{strangers} by people without a group")
    warning = ""
    if len(small) == len(one.by_group):
        warning = f" Every group has fewer than {SMALL} votes: too few to say whether the model is right."
    elif small:
        warning = f" Fewer than {SMALL} votes in {', '.join(small)}: too few to tell."
    return f"{', '.join(parts)}.{warning}"


# ---- what can be done about it


def steps(one: ControversyItem, place: str, asks: dict[int, PinnedPair]) -> None:
    session, _ = current()
    key = f"{place}-{one.id}"
    with st.container(horizontal=True, vertical_alignment="center"):
        if one.second is None:
            st.button(
                "The pair in which it divides most",
                key=f"pair-{key}",
                icon=":material/compare:",
                on_click=choose,
                args=(one.pair_id,),
            )
            return
        asked = asks.get(one.id)
        if asked is None:
            st.button(
                "Ask about this pair",
                key=f"ask-{key}",
                icon=":material/front_hand:",
                on_click=attempt,
                args=(labelling.pin_pair, one.id),
                help="Everybody who has not answered it gets it as their next pair, before all others.",
            )
        else:
            st.button(
                "Stop asking",
                key=f"end-{key}",
                icon=":material/close:",
                on_click=attempt,
                args=(labelling.unpin_pair, one.id),
                help="The pair waits its turn like any other again.",
            )
            name = {user.id: user.name for user in access.users(session)}.get(asked.by, "the terminal")
            st.caption(
                f"Next for everybody who has not answered it; asked for by {readable(name)} {ago(asked.at)}, "
                f"{asked.answered} answered since."
            )
        if place == "list":
            st.button(
                "Link to this pair",
                key=f"choose-{key}",
                icon=":material/link:",
                on_click=choose,
                args=(one.id,),
                help="Puts the pair into this page's address, to be kept or sent.",
            )
    if problem := st.session_state.pop(f"ask-problem-{one.id}", ""):
        st.error(problem)


def choose(pair_id: int) -> None:
    st.query_params["pair"] = str(pair_id)


def attempt(verb: Callable[..., object], pair_id: int) -> None:
    session, me = current()
    try:
        verb(session, pair_id, by=me.id)
    except CoplError as problem:
        st.session_state[f"ask-problem-{pair_id}"] = str(problem)


def ago(moment: datetime) -> str:
    minutes = int((datetime.now(UTC) - moment).total_seconds() // 60)
    if minutes < 1:
        return "just now"
    for name, size in (("day", 24 * 60), ("hour", 60), ("minute", 1)):
        if minutes >= size:
            count = minutes // size
            return f"{count} {name}{'s' if count != 1 else ''} ago"
    return "just now"


def brief(text: str, most: int = 70) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


page()
