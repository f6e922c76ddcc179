"""Controversy: the pairs and answers on which groups differ most, and those on which they agree.

A table and a figure of all of them; a click on either opens the card of one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from html import escape

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Role, counted, counted_people
from copl_core.study import access, contents, controversy, labelling
from copl_core.study.controversy import SMALL, ControversyItem, ControversyRows, ControversyView, Query, Share
from copl_core.study_settings import PinnedPair
from pages.circles import circles
from pages.common import (
    NO_GROUP_COLOUR,
    champion_here,
    current,
    download,
    group_colour,
    group_name,
    in_figure,
    is_id,
    no_snapshot,
    plot_settings,
    resend_values,
    stop_with_error,
    too_few_for_groups,
    watch_champion,
    who_is_simulated,
)
from pages.sight import into_sight
from pages.texts import brief, briefs, draw_prompt, draw_response, literal

MOST_ROWS = 2000  # in the table and in the figure; filters and the file reach the others
ORDERS = {"divided": "Disputed", "agreed": "Agreed"}  # the titles are values of the address's ``order``
KINDS = {"pairs": "Pairs", "responses": "Answers"}
INK, CHOSEN, TALL = "#0072B2", "#D55E00", 440  # colours of points, and the height of figure and table in pixels
# Pixels of the table: of its rows, which hold three lines (above 68 streamlit wraps texts), and of its columns; all
# but the texts of the answers are in sight beside the figure on a screen of 1440.
ROW = 72
WIDTHS = {"question": 222, "A": 260, "B": 260, "answer": 260}
NUMBER_WIDTHS = {"between groups": 116, "within people": 106, "uncertainty": 92, "people": 64}
MARK = "background:rgba(86,180,233,.28);text-decoration:underline;text-decoration-thickness:2px;color:inherit"
NUMBERS = (
    (
        "Between groups",
        "How far the groups' expected answers are apart: 100% means two halves that are each unanimous and disagree. "
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
    who_is_simulated()
    top = st.container()
    query = controls()
    champion_here()
    try:
        view = controversy.ranked(session, 0, query=query)
        if view is not None:
            with top:
                summary(view, query)
        rows, one = controversy.list_rows(session, query, MOST_ROWS), chosen_item()
    except CoplError as problem:
        stop_with_error(problem)
    if view is None or rows is None:
        no_snapshot("The list of disputed pairs")
    overview(view, rows, query)
    selected(one, view)
    circles()
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
            width=150,
            bind="query-params",
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
    )


def prompt_filter() -> int | None:
    session, _ = current()
    prompts = dict(contents.prompts(session))
    titles = dict(zip(prompts, briefs(prompts.values()), strict=True))
    linked = st.query_params.get("prompt", "")
    if "in-prompt" not in st.session_state and is_id(linked) and int(linked) in titles:
        st.session_state["in-prompt"] = int(linked)
    resend_values("in-prompt")
    return st.selectbox(
        "Prompt",
        list(titles),
        index=None,
        placeholder="every prompt",
        key="in-prompt",
        format_func=titles.get,
        width=210,
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
        width=150,
        bind="query-params",
    )


def link_prompt() -> None:
    """Write the chosen prompt into the address."""
    if (chosen := st.session_state["in-prompt"]) is None:
        st.query_params.pop("prompt", None)
    else:
        st.query_params["prompt"] = str(chosen)


def linked(name: str) -> int | None:
    """The id of the pair or of the answer in the address."""
    number = st.query_params.get(name, "")
    return int(number) if is_id(number) else None


def chosen_item() -> ControversyItem | None:
    """The pair or the answer in the address, if the snapshot knows it."""
    session, _ = current()
    if (pair := linked("pair")) is not None:
        return controversy.item(session, pair)
    response = linked("answer")
    return None if response is None else controversy.response_item(session, response)


# ---- the summary


def summary(view: ControversyView, query: Query) -> None:
    """How many pairs or answers divide the groups, and what the numbers below mean."""
    if not view.groups:
        st.info("The snapshot has no groups yet, so nothing can divide them. Groups appear once several people label.")
        return
    if len(view.groups) == 1:
        why = too_few_for_groups(view.groups[next(iter(view.groups))]) or "The snapshot has one group so far."
        st.info(
            f"{why} Nothing divides groups until there are two. The list below still shows the variance within people "
            "and the model's uncertainty."
        )
    elif query.kind == "pairs":
        first = "agree with the most certainty" if query.consensus else "are furthest apart"
        st.write(
            f"On **{view.n_split:,}** of {view.n_matching:,} pairs at least one group is expected to prefer A and "
            "another one B, each by more than the model's uncertainty; further groups may be about even. In the list "
            f"below, pairs on which the groups {first} come first."
        )
    else:
        st.write(
            f"**{view.n_split:,}** of {view.n_matching:,} answers are expected to win in one group and to lose in "
            f"another, compared with the other answers to their prompt. In the list below, answers "
            f"{'on which groups agree most' if query.consensus else 'that divide most'} come first."
        )


def meanings(view: ControversyView) -> None:
    """What the three numbers are, and from what they are computed."""
    members = (
        "The ensemble has one member, so *uncertainty* cannot be separated. "
        if view.members == 1
        else f"*Uncertainty* comes from an ensemble of {view.members} graphs. "
    )
    people = sum(view.groups.values())
    sample = f"a sample of {view.n_evaluated:,} of " if view.n_evaluated < people else ""
    sample += f"{counted_people(people)} in {counted(len(view.groups), 'group')}"
    with st.expander("What the numbers mean"):
        for name, meaning in NUMBERS:
            st.markdown(f"**{name}.** {meaning}")
        st.caption(
            "The three numbers add up to the variance of a person's answer, in per cent of its maximum. "
            f"{members}Predicted for {sample}. Snapshot {view.snapshot}."
        )


# ---- all of them


def overview(view: ControversyView, rows: ControversyRows, query: Query) -> None:
    """The list as a figure and as a table, and the whole list as CSV."""
    things = "pairs" if query.kind == "pairs" else "answers"
    if not view.n_matching:
        st.info(
            f"No {things} match these filters; the snapshot knows {view.n_pairs:,} pairs. Remove a filter or lower the "
            "number of people."
        )
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"{view.n_matching:,} {things}", width="stretch")
        st.download_button(
            "Download all as CSV",
            download(lambda session, _: controversy.export_csv(session, query)),
            f"controversy-{things}.csv",
            "text/csv",
            icon=":material/download:",
            on_click="ignore",
            key="csv",
        )
    left, right = st.columns([4, 9], gap="medium")
    with left:
        figure(rows, query)
    with right:
        table(rows, query)
    meanings(view)
    shown = "" if len(rows.ids) == view.n_matching else f" The first {len(rows.ids):,} are shown."
    shown += " People are counted in the labels of the snapshot; the votes of a chosen one are those of now." * (
        rows.of_snapshot
    )
    st.caption(
        f"Click a point or the box before a row to see the {things[:-1]}; click the head of a column to sort.{shown} "
        f"Snapshot {view.snapshot}."
    )


def round_key(name: str) -> str:
    """The key of a widget with a selection; a new round clears the selection."""
    return f"{name}-{st.session_state.get('round', 0)}"


def figure(rows: ControversyRows, query: Query) -> None:
    st.plotly_chart(
        scatter(rows, briefs(rows.prompts), linked(address_of(query))),
        width="stretch",
        config=plot_settings(),
        key=round_key("scatter"),
        on_select=choose_point,
        selection_mode="points",
        alt="Difference between groups against difference within people",
    )


def scatter(rows: ControversyRows, titles: list[str], chosen: int | None) -> go.Figure:
    """Between groups against within people, with a title for each row.

    Filled points are those on which groups prefer different sides.
    """
    found = go.Figure()
    for split, name, symbol in ((True, "groups differ", "circle"), (False, "no certain difference", "circle-open")):
        own = rows.split == split
        found.add_scattergl(
            x=rows.within[own],
            y=rows.between[own],
            mode="markers",
            name=name,
            marker={"size": 9, "color": INK if split else NO_GROUP_COLOUR, "symbol": symbol, "opacity": 0.8},
            customdata=[[int(rows.ids[row]), in_figure(titles[row])] for row in np.flatnonzero(own).tolist()],
            hovertemplate="%{customdata[1]}<br>between groups %{y:.0%}, within people %{x:.0%}<extra></extra>",
        )
    at = rows.ids == chosen
    if at.any():
        ring = {"size": 18, "symbol": "circle-open", "color": CHOSEN, "line": {"width": 3}}
        found.add_scatter(
            x=rows.within[at], y=rows.between[at], mode="markers", name="shown below", marker=ring, hoverinfo="skip"
        )
    found.update_xaxes(title="within people", tickformat=".0%", rangemode="tozero")
    found.update_yaxes(title="between groups", tickformat=".0%", rangemode="tozero")
    found.update_layout(
        height=TALL,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        dragmode="pan",
        clickmode="event+select",
    )
    return found


def table(rows: ControversyRows, query: Query) -> None:
    of_pairs = query.kind == "pairs"
    columns: dict[str, object] = {"question": briefs(rows.prompts)}
    numbers_ = (rows.between, rows.within, rows.epistemic)
    columns |= {name.lower(): 100 * value for (name, _), value in zip(NUMBERS, numbers_, strict=True)}
    columns |= {"people": rows.voters, "A" if of_pairs else "answer": briefs(rows.firsts)}
    columns |= {"B": briefs(rows.seconds)} if of_pairs else {}
    settings: dict[str, object] = {
        name.lower(): st.column_config.ProgressColumn(
            help=meaning, format="%.0f%%", min_value=0.0, max_value=100.0, width=NUMBER_WIDTHS[name.lower()]
        )
        for name, meaning in NUMBERS
    }
    settings |= {name: st.column_config.TextColumn(width=width) for name, width in WIDTHS.items()}
    settings["people"] = st.column_config.NumberColumn(
        help="People who have answered it", width=NUMBER_WIDTHS["people"]
    )
    st.dataframe(
        columns,
        hide_index=True,
        width="stretch",
        height=TALL,
        row_height=ROW,
        key=round_key("list"),
        on_select=choose_row,
        selection_mode="single-row",
        column_config=settings,
        alt="Pairs with their three numbers" if of_pairs else "Answers with their three numbers",
    )
    st.session_state["listed"] = (address_of(query), rows.ids.tolist())


def address_of(query: Query) -> str:
    return "pair" if query.kind == "pairs" else "answer"


def choose_row() -> None:
    """Open the card of the row that was selected; the row is one of the table as it was drawn."""
    picked = st.session_state[round_key("list")]["selection"]["rows"]
    name, ids = st.session_state.get("listed", ("pair", []))
    if picked and picked[0] < len(ids):
        choose(name, ids[picked[0]])


def choose_point() -> None:
    points = st.session_state[round_key("scatter")]["selection"]["points"]
    if points and "customdata" in points[0]:
        choose(st.session_state.get("listed", ("pair",))[0], int(points[0]["customdata"][0]))


def choose(name: str, number: int) -> None:
    """Put a pair or an answer into the address of this page, which shows its card."""
    forget()
    st.query_params[name] = str(number)
    st.session_state["card wanted"] = True


def forget() -> None:
    for name in ("pair", "answer"):
        st.query_params.pop(name, None)


def close() -> None:
    forget()
    st.session_state["round"] = st.session_state.get("round", 0) + 1


# ---- the card


def selected(one: ControversyItem | None, view: ControversyView) -> None:
    """The card of the pair or the answer in the address."""
    session, _ = current()
    name = next((name for name in ("pair", "answer") if linked(name) is not None), None)
    if name is None:
        return
    with st.container(key="chosen"):
        if one is None:
            st.warning(f"Snapshot {view.snapshot} does not know {name} {linked(name)}; the list has those it knows.")
        else:
            with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
                st.subheader(f"{name.title()} {one.id}", width="stretch")
                if one.second is not None:
                    st.caption("The address of this page opens this pair.", width="content")
                st.button("Close", key="unchoose", icon=":material/close:", on_click=close)
            card(one, view, {pin.pair_id: pin for pin in labelling.pinned_pairs(session)})
    if st.session_state.pop("card wanted", True):  # after a click, and when a link is opened
        into_sight("chosen")
    st.session_state["card wanted"] = False


def card(one: ControversyItem, view: ControversyView, pinned: dict[int, PinnedPair]) -> None:
    with st.container(border=True, key=f"card-{one.id}"):
        draw_prompt(one.prompt)
        if one.second is None:
            st.caption("This answer, compared with the others to the same prompt" + from_source(one.first.source))
            draw_response(one.first.text)
        else:
            texts(one)
        numbers(one, view)
        side = "answer B" if one.second else "this answer"
        st.plotly_chart(
            group_chart(one),
            width="stretch",
            config=plot_settings(),
            key=f"split-{one.id}",
            alt=f"Share of each group expected to prefer {side}, and as observed",
        )
        st.caption(
            f"Bars: the share of a group that the model expects to prefer {'A or B' if one.second else 'it'}. Dots: "
            f"the share that did, with a 95% interval. {votes(one)} Snapshot {view.snapshot}."
        )
        actions(one, pinned)


def texts(one: ControversyItem) -> None:
    """Both answers; where they share whole passages, what differs can be marked."""
    session, _ = current()
    found, more, fewer = controversy.compare_texts(session, one.first.text, one.second.text)
    marks = found.comparable and st.toggle("Highlight what differs", True, key="marks", bind="query-params")
    for column, letter, response, pieces in zip(
        st.columns(2, gap="medium"), "AB", (one.first, one.second), (found.first, found.second), strict=True
    ):
        with column:
            st.caption(f"**{letter}**" + from_source(response.source))
            if marks:
                st.html(marked(pieces))
            else:
                draw_response(response.text)
    differences = [f"{letter} has {', '.join(words)}" for letter, words in (("A", more), ("B", fewer)) if words]
    shared = f"{found.shared:.0%} of the words are in both answers"
    st.caption(f"{'; '.join([*differences, shared])}.")


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
    """Expected shares as bars from the middle, observed shares as dots with their intervals.

    Of a pair, A is to the left and B to the right, as the texts stand.
    """
    figure, vote = go.Figure(), "vote" if one.second else "comparison"
    for (group, first), std in reversed(tuple(zip(one.by_group, one.ensemble_std, strict=True))):
        seen = one.observed(group)
        share, at, (low, high) = (
            (1 - first, 1 - seen.share, flipped(seen)) if one.second else (first, seen.share, seen.interval)
        )
        name = f"{in_figure(brief(group_name(group), 30))} · {seen.n} {vote if seen.n == 1 else f'{vote}s'}"
        figure.add_bar(
            x=[share - 0.5],
            y=[name],
            base=0.5,
            orientation="h",
            showlegend=False,
            marker_color=group_colour(group),
            hovertemplate=f"expected: {in_words(first, one)}, ± {std:.0%}<extra></extra>",
        )
        if seen.n:
            figure.add_scatter(
                x=[at],
                y=[name],
                mode="markers",
                showlegend=False,
                marker={"color": "white", "size": 10, "line": {"color": "#555", "width": 2}},
                error_x={
                    "array": [high - at],
                    "arrayminus": [at - low],
                    "color": "#777",
                    "thickness": 1.5,
                    "width": 4,
                },
                hovertemplate=f"observed: {in_words(seen.share, one)}, n = {seen.n}"
                f"{', few votes' if seen.n < SMALL else ''}<extra></extra>",
            )
    figure.add_vline(x=0.5, line_width=1, line_color="#888")
    figure.update_xaxes(range=[-0.04, 1.04], tickvals=[0, 0.5, 1], showticklabels=False)
    name_ends(
        figure, ("all prefer A", "even", "all prefer B") if one.second else ("always loses", "even", "always wins")
    )
    figure.update_layout(height=70 + 30 * len(one.by_group), margin={"l": 0, "r": 0, "t": 0, "b": 24}, bargap=0.35)
    return figure


def flipped(seen: Share) -> tuple[float, float]:
    """The interval of the opposite share."""
    low, high = seen.interval
    return 1 - high, 1 - low


def in_words(first: float, one: ControversyItem) -> str:
    """The share that prefers the first response, with its letter."""
    if one.second is None:
        return f"wins {first:.0%}"
    return f"{first:.0%} prefer A, {1 - first:.0%} B"


def name_ends(figure: go.Figure, ends: tuple[str, str, str]) -> None:
    """Words under the ends and the middle of the axis, inside the figure, so that none is cut off."""
    for x, anchor, words in zip((-0.04, 0.5, 1.04), ("left", "center", "right"), ends, strict=True):
        figure.add_annotation(
            x=x, y=0, yref="paper", yanchor="top", yshift=-4, xanchor=anchor, text=words, showarrow=False
        )


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


def actions(one: ControversyItem, pinned: dict[int, PinnedPair]) -> None:
    """The button of a card: ask everybody about the pair, or show the pair of an answer."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if one.second is None:
            st.button(
                "Show the pair that divides most",
                key=f"pair-{one.id}",
                icon=":material/compare:",
                on_click=choose,
                args=("pair", one.pair_id),
                help="Of the pairs with this answer.",
            )
            return
        _, me = current()
        withdrawn = me.role == Role.OWNER and one.id in withdrawn_ids()
        if not withdrawn:
            pin_button(one, pinned.get(one.id))
        if me.role == Role.OWNER:
            withdraw_button(one, withdrawn)
    if problem := st.session_state.pop(f"ask-problem-{one.id}", ""):
        st.error(problem)


def pin_button(one: ControversyItem, pin: PinnedPair | None) -> None:
    session, _ = current()
    if pin is None:
        st.button(
            "Ask about this pair",
            key=f"ask-{one.id}",
            icon=":material/front_hand:",
            on_click=perform,
            args=(labelling.pin_pair, one.id),
            help="People who have not answered it get it as their next pair, before all others.",
        )
        return
    st.button(
        "Stop asking",
        key=f"end-{one.id}",
        icon=":material/close:",
        on_click=perform,
        args=(labelling.unpin_pair, one.id),
        help="From then on the pair is assigned like any other pair.",
    )
    by = access.users_of(session, [pin.by]).get(pin.by)
    name = "the terminal" if by is None else by.name
    st.caption(
        f"Next pair of everybody who has not answered it. Requested by {literal(name)} {ago(pin.at)}; "
        f"{pin.answered} answered since."
    )


def withdrawn_ids() -> set[int]:
    session, _ = current()
    return {pair.pair_id for pair in labelling.withdrawn_pairs(session)}


def withdraw_button(one: ControversyItem, withdrawn: bool) -> None:
    """For owners: the pair is handed out to nobody, or to people again."""
    if withdrawn:
        st.button(
            "Hand out again",
            key=f"again-{one.id}",
            on_click=perform,
            args=(labelling.hand_out_again, one.id, [one.id]),
        )
        st.caption("The pair is withdrawn: nobody gets it. Its labels stay.")
        return
    st.button(
        "Withdraw this pair",
        key=f"withdraw-{one.id}",
        icon=":material/block:",
        on_click=perform,
        args=(labelling.withdraw_pairs, one.id, [one.id]),
        help="Nobody gets it any more. Its labels stay, and it can be handed out again.",
    )


def perform(verb: Callable[..., object], pair_id: int, given: object = None) -> None:
    """Call a verb of the study about a pair, with its id or what is ``given``; the pair's card shows the error in the
    next run.
    """
    session, me = current()
    try:
        verb(session, pair_id if given is None else given, by=me.id)
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


page()
