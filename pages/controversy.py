"""Controversy: the pairs and answers on which groups differ most, and those on which they agree."""

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
    resend_values,
    stop_with_error,
    watch_champion,
)
from pages.texts import draw_prompt, draw_response, literal

A_PAGE = 8
ORDERS = {"divided": "Disputed", "agreed": "Agreed"}  # the titles are values of the address's ``order``
KINDS = {"pairs": "Pairs", "responses": "Answers"}
MARK = "background:rgba(86,180,233,.28);text-decoration:underline;text-decoration-thickness:2px;color:inherit"
NUMBERS = (
    (
        "Between groups",
        "How far the groups' expected answers are apart: 100 % means two halves that are each unanimous and disagree. "
        "The list is ranked by this number.",
    ),
    (
        "Within people",
        "What remains within a group: its members differ, and each of them may answer differently another time. It is "
        "high where the two answers are equally good.",
    ),
    (
        "Uncertainty",
        "What the model does not know: the separately trained members of its ensemble disagree. More labels on these "
        "texts make it smaller.",
    ),
)


def page() -> None:
    session, _ = current()
    st.title("Controversy")
    top = st.container()
    query = controls()
    chosen = linked_pair()
    try:
        view = controversy.ranked(session, A_PAGE, query=query, skip=A_PAGE * (st.session_state.get("at", 1) - 1))
        one = controversy.item(session, chosen) if chosen is not None else None
    except CoplError as problem:
        stop_with_error(problem)
    if view is None:
        no_snapshot("The list of disputed pairs")
    with top:
        summary(view, query)
    pinned = {pin.pair_id: pin for pin in labelling.pinned_pairs(session)}
    if chosen is not None:
        selected(one, chosen, view, pinned)
    ranking(view, query, pinned)
    watch_champion(view.snapshot)


# ---- the query


def controls() -> Query:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = choice("Order", ORDERS, "order")
        kind = choice("Of", KINDS, "kind")
        votes = st.number_input(
            "Answered by at least",
            0,
            step=1,
            key="votes",
            width=190,
            bind="query-params",
            on_change=first_page,
        )
        return Query(kind, order == "agreed", prompt_filter(), source_filter(), votes)


def choice(title: str, options: dict[str, str], key: str) -> str:
    """One of a few options; the first is the default."""
    return st.segmented_control(
        title,
        list(options),
        default=next(iter(options)),
        format_func=options.get,
        key=key,
        required=True,
        bind="query-params",
        on_change=first_page,
    )


def prompt_filter() -> int | None:
    session, _ = current()
    titles = dict(contents.prompts(session))
    linked = st.query_params.get("prompt", "")
    if "in-prompt" not in st.session_state and linked.isdecimal() and int(linked) in titles:
        st.session_state["in-prompt"] = int(linked)
    resend_values("in-prompt")
    return st.selectbox(
        "Prompt",
        list(titles),
        index=None,
        placeholder="every prompt",
        key="in-prompt",
        format_func=lambda number: brief(titles[number]),
        width=260,
        on_change=link_prompt,
    )


def source_filter() -> str | None:
    session, _ = current()
    known = contents.sources(session)
    if not known:
        return None
    return st.selectbox(
        "Source",
        known,
        index=None,
        placeholder="every source",
        key="source",
        width=190,
        bind="query-params",
        on_change=first_page,
    )


def first_page() -> None:
    st.session_state.pop("at", None)


def link_prompt() -> None:
    """Write the chosen prompt into the address."""
    first_page()
    if (chosen := st.session_state["in-prompt"]) is None:
        st.query_params.pop("prompt", None)
    else:
        st.query_params["prompt"] = str(chosen)


def linked_pair() -> int | None:
    """The id of the pair in the address."""
    linked = st.query_params.get("pair", "")
    return int(linked) if linked.isdecimal() and len(linked) < 10 else None


# ---- the summary


def summary(view: ControversyView, query: Query) -> None:
    """How many pairs or answers divide the groups, and what the numbers below mean."""
    if not view.groups:
        st.info("The snapshot has no groups yet, so nothing can divide them. Groups appear once several people label.")
        return
    if len(view.groups) == 1:
        st.info(
            "The snapshot has one group so far, so nothing divides groups. The list below still shows the variance "
            "within people and the model's uncertainty."
        )
    elif query.kind == "pairs":
        first = "agree with the most certainty" if query.consensus else "are furthest apart"
        st.write(
            f"On **{view.n_split:,}** of {view.n_matching:,} pairs the groups are expected to prefer different "
            f"answers, by more than the model's uncertainty. In the list below, pairs on which they {first} come first."
        )
    else:
        st.write(
            f"**{view.n_split:,}** of {view.n_matching:,} answers are expected to win in one group and to lose in "
            f"another, compared with the other answers to their prompt. In the list below, answers "
            f"{'on which groups agree most' if query.consensus else 'that divide most'} come first."
        )
    for column, (name, meaning) in zip(st.columns(3, gap="medium"), NUMBERS, strict=True):
        column.caption(f"**{name}.** {meaning}")
    members = (
        "The ensemble has one member, so *uncertainty* cannot be separated. "
        if view.members == 1
        else f"*Uncertainty* comes from an ensemble of {view.members} graphs. "
    )
    people = sum(view.groups.values())
    sample = f"a sample of {view.n_evaluated:,} of {people:,}" if view.n_evaluated < people else f"{people:,}"
    st.caption(
        "The three numbers add up to the variance of a person's answer, in per cent of its maximum. "
        f"{members}Predicted for {sample} people in {len(view.groups)} groups. Snapshot {view.snapshot}."
    )


# ---- cards


def selected(one: ControversyItem | None, pair_id: int, view: ControversyView, pinned: dict[int, PinnedPair]) -> None:
    """The pair in the address, above the list."""
    if one is None:
        st.warning(f"Snapshot {view.snapshot} does not know pair {pair_id}; the list below has those it knows.")
    else:
        st.subheader(f"Pair {pair_id}")
        card(one, view, "chosen", pinned)
    st.button(
        "Show only the list",
        key="unchoose",
        icon=":material/close:",
        on_click=lambda: st.query_params.pop("pair", None),
    )


def ranking(view: ControversyView, query: Query, pinned: dict[int, PinnedPair]) -> None:
    """One page of the ranked list, and the whole list as CSV."""
    session, _ = current()
    things = "pairs" if query.kind == "pairs" else "answers"
    if not view.n_matching:
        st.info(
            f"No {things} match these filters; the snapshot knows {view.n_pairs:,} pairs. Remove a filter or lower the "
            "number of people."
        )
        return
    pages = math.ceil(view.n_matching / A_PAGE)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"{view.n_matching:,} {things}", width="stretch")
        st.toggle("Highlight differences", True, key="marks", bind="query-params")
        st.download_button(
            "Download all as CSV",
            lambda: controversy.export_csv(session, query),
            f"controversy-{things}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key="csv",
        )
    for one in view.items:
        card(one, view, "list", pinned)
    if pages > 1:
        st.pagination(pages, key="at")


def card(one: ControversyItem, view: ControversyView, area: str, pinned: dict[int, PinnedPair]) -> None:
    with st.container(border=True, key=f"card-{area}-{one.id}"):
        draw_prompt(one.prompt)
        if one.second is None:
            st.caption("This answer, compared with the others to the same prompt" + from_source(one.first.source))
            draw_response(one.first.text)
        else:
            texts(one)
        numbers(one, view)
        side = "the first answer" if one.second else "this answer"
        st.plotly_chart(
            group_chart(one),
            width="stretch",
            config=PLOT,
            key=f"split-{area}-{one.id}",
            alt=f"Share of each group expected to prefer {side}, and as observed",
        )
        st.caption(
            f"Bars: the share of a group that the model expects to prefer {'A' if one.second else 'it'}. Dots: the "
            f"share that did, with a 95 % interval. {votes(one)} Snapshot {view.snapshot}."
        )
        actions(one, area, pinned)


def texts(one: ControversyItem) -> None:
    session, _ = current()
    marks = st.session_state.get("marks", True)
    found, more, fewer = controversy.compare_texts(session, one.first.text, one.second.text)
    for column, letter, response, pieces in zip(
        st.columns(2, gap="medium"), "AB", (one.first, one.second), (found.first, found.second), strict=True
    ):
        with column:
            st.caption(letter + from_source(response.source))
            if marks and found.comparable:
                st.html(marked(pieces))
            else:
                draw_response(response.text)
    differences = [f"{letter} has {', '.join(words)}" for letter, words in (("A", more), ("B", fewer)) if words]
    shared = (
        ""
        if found.comparable or not marks
        else (f"Only {found.shared:.0%} of the words are shared, too few to highlight single words. ")
    )
    if shared or differences:
        st.caption(f"{shared}{'; '.join(differences)}{'.' if differences else ''}")


def from_source(source: str | None) -> str:
    return f" · from {literal(source)}" if source else ""


def marked(pieces) -> str:
    """A text as escaped HTML, with the differing passages marked."""
    whole = "".join(
        f'<mark style="{MARK}">{escape(text)}</mark>' if differs else escape(text) for text, differs in pieces
    )
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{whole}</div>'


def numbers(one: ControversyItem, view: ControversyView) -> None:
    values = (one.between, one.within + one.aleatoric, one.epistemic if view.members > 1 else None)
    with st.container(horizontal=True, gap="medium"):
        for (name, meaning), value in zip(NUMBERS, values, strict=True):
            st.markdown(
                f"{name} **{'not available' if value is None else f'{4 * value:.0%}'}**", help=meaning, width="content"
            )


def group_chart(one: ControversyItem) -> go.Figure:
    """Expected shares as bars from the middle, observed shares as dots with their intervals."""
    figure, vote = go.Figure(), "vote" if one.second else "comparison"
    for (group, share), std in reversed(tuple(zip(one.by_group, one.ensemble_std, strict=True))):
        seen = one.observed(group)
        name = f"{group_name(group)} · {seen.n} {vote if seen.n == 1 else f'{vote}s'}"
        figure.add_bar(
            x=[share - 0.5],
            y=[name],
            base=0.5,
            orientation="h",
            showlegend=False,
            marker_color=group_colour(group),
            hovertemplate=f"expected: {share:.0%}, ± {std:.0%}<extra></extra>",
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
                hovertemplate=f"observed: {seen}{', few votes' if seen.n < SMALL else ''}<extra></extra>",
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
    ungrouped = sum(one.votes.get(None, (0, 0, 0)))
    small = [group_name(group) for group, _ in one.by_group if one.observed(group).n < SMALL]
    parts = [f"{people} answered{' about it' if one.second is None else ''}"]
    if neither:
        parts.append(f"{neither} without a preference")
    if ungrouped:
        parts.append(f"{ungrouped} by people without a group")
    warning = ""
    if len(small) == len(one.by_group):
        warning = f" Every group has fewer than {SMALL} votes: too few to check the model."
    elif small:
        warning = f" Fewer than {SMALL} votes in {', '.join(small)}: too few to check the model there."
    return f"{', '.join(parts)}.{warning}"


# ---- actions


def actions(one: ControversyItem, area: str, pinned: dict[int, PinnedPair]) -> None:
    """The buttons of a card: ask everybody about the pair, and link to it."""
    key = f"{area}-{one.id}"
    with st.container(horizontal=True, vertical_alignment="center"):
        if one.second is None:
            st.button(
                "Show the pair that divides most",
                key=f"pair-{key}",
                icon=":material/compare:",
                on_click=choose,
                args=(one.pair_id,),
                help="Of the pairs with this answer.",
            )
            return
        pin_button(one, key, pinned.get(one.id))
        if area == "list":
            st.button(
                "Link to this pair",
                key=f"choose-{key}",
                icon=":material/link:",
                on_click=choose,
                args=(one.id,),
                help="Puts the pair into this page's address, so that you can save or send it.",
            )
    if problem := st.session_state.pop(f"ask-problem-{one.id}", ""):
        st.error(problem)


def pin_button(one: ControversyItem, key: str, pin: PinnedPair | None) -> None:
    session, _ = current()
    if pin is None:
        st.button(
            "Ask about this pair",
            key=f"ask-{key}",
            icon=":material/front_hand:",
            on_click=perform,
            args=(labelling.pin_pair, one.id),
            help="People who have not answered it get it as their next pair, before all others.",
        )
        return
    st.button(
        "Stop asking",
        key=f"end-{key}",
        icon=":material/close:",
        on_click=perform,
        args=(labelling.unpin_pair, one.id),
        help="From then on the pair is assigned like any other pair.",
    )
    name = {user.id: user.name for user in access.users(session)}.get(pin.by, "the terminal")
    st.caption(
        f"Next pair of everybody who has not answered it. Requested by {literal(name)} {ago(pin.at)}; "
        f"{pin.answered} answered since."
    )


def choose(pair_id: int) -> None:
    st.query_params["pair"] = str(pair_id)


def perform(verb: Callable[..., object], pair_id: int) -> None:
    """Call a verb of the study about a pair; the pair's card shows the error in the next run."""
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
