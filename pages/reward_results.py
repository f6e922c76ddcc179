"""A part of the reward page: win probabilities, the answer to choose for many, sentence attribution, experts."""

from __future__ import annotations

import html
import re
from textwrap import wrap

import plotly.graph_objects as go
import streamlit as st
from plotly.subplots import make_subplots

from copl_core.records import CoplError
from copl_core.study import rewards
from copl_core.study.views import GroupsOwn, RewardView, ScoreRow
from pages.candidates import LETTERS
from pages.common import GATES, current, group_colour, in_figure, listing, minus, plot_settings, source_line
from pages.texts import literal

RAISES, LOWERS = (0, 114, 178), (213, 94, 0)  # the ends of the diverging scale
DEEPEST = 0.6  # opacity of the strongest effect, so that the words stay readable
LEAST_SCALE = 0.5  # log-odds of the deepest colour at least: 62 to 38
NAME_WIDTH = 20  # characters of a line beside a figure
BY_ANSWERS = "You by "  # how the row begins that rests on answers given on the page
LEADS = 0.5  # weight from which one expert has more than all others together
NOISE = 0.05  # log-odds, about one point of probability; smaller effects are not coloured
BOLD = re.compile(r"\*\*(.+?)\*\*")
ODDS = " (0 is an even bet, 1 is 73 to 27, 2 is 88 to 12)"
# Names wrap, figures do not: on a phone the tables scroll sideways.
NUMBERS_STYLE = "<style>.st-key-numbers :is(th, td:not(:first-child)) p { white-space: nowrap; }</style>"
INTERVALS = (
    "Bars: for a person, the 95% interval given their answers; for a group, the range of the middle 90% of its people."
)


# ---- who prefers what


def verdict(view: RewardView, prompt: str, responses: list[str]) -> None:
    st.subheader("Who would prefer which")
    for row in view.people:
        st.markdown(of_person(row))
    if view.groups:
        st.markdown(of_groups(view))
    if (worth := view.groups_own) and not common_favourites(view):
        st.markdown(f"**{worth_in_words(worth)}**")
    st.plotly_chart(
        picture(view),
        width="stretch",
        config=plot_settings(),
        key="wins",
        alt="Win probability of each answer by person and group, with intervals",
    )
    source_line(
        f"{view.basis} Each point is the probability that an answer is preferred to all others shown; it is filled "
        f"for a certain favourite. {INTERVALS} Neither includes the uncertainty of the model itself. A "
        "reward only compares answers to the same question.",
        view.snapshot,
    )


def chance(row: ScoreRow) -> str:
    return f"{row.win[row.best]:.0%} ({row.low[row.best]:.0%} to {row.high[row.best]:.0%})"


def of_person(row: ScoreRow) -> str:
    """What a person would prefer, in a sentence; bold only where answers of theirs tell it."""
    name, best = literal(row.name), LETTERS[row.best]
    if row.source == "population mean":
        return (
            f"{name}: not known, since no answer of theirs has been learned from. Until then they stand in the middle "
            f"of all people, where {best} wins with {row.win[row.best]:.0%}; that is one place, and no share of people."
        )
    others = listing([LETTERS[i] for i in row.favourites[1:]]) if row.even else ""
    doubt = f" Not certain: {others} may be {addressed(row)[2]} favourite too." if others else ""
    return f"{name}: **{best}**, {chance(row)}.{doubt}"


def of_groups(view: RewardView) -> str:
    """Which groups prefer which answer, and which prefer none with certainty, in sentences."""
    best: dict[int, list[str]] = {}
    for row in view.groups:
        if not row.even:
            best.setdefault(row.best, []).append(literal(row.name))
    even = " ".join(even_in_words(row) for row in view.groups if row.even)
    if len(best) == 1 and not even:
        (answer,) = best
        if len(view.groups) == 1:
            return f"**{literal(view.groups[0].name)}** prefers **{LETTERS[answer]}**, {chance(view.groups[0])}."
        return f"Every group prefers **{LETTERS[answer]}**."
    parts = [
        f"{listing(names, bold=True)} prefer{'s' * (len(names) == 1)} **{LETTERS[answer]}**"
        for answer, names in sorted(best.items())
    ]
    clear = ("The groups differ: " * (len(best) > 1)) + "; ".join(parts) + "." if parts else ""
    return f"{clear} {even}".strip()


def even_in_words(row: ScoreRow) -> str:
    letters = listing([LETTERS[i] for i in sorted(row.favourites)])
    wins = [f"{row.win[i]:.0%}" for i in sorted(row.favourites)]
    shares = " to ".join(wins) if len(wins) == 2 else listing(wins)
    return f"**{literal(row.name)}** is about even between {letters} ({shares})."


def picture(view: RewardView) -> go.Figure:
    """One column per answer, one row per person or group."""
    rows = list(reversed(view.rows))
    count = len(rows[0].win)
    figure = make_subplots(
        1,
        count,
        shared_yaxes=True,
        horizontal_spacing=min(0.1, 0.3 / max(1, count - 1)),  # room for "100%" beside the next "0%"
        subplot_titles=[f"Answer {LETTERS[i]}" for i in range(count)],
    )
    for i in range(count):
        colours = [group_colour(row.group) for row in rows]
        figure.add_scatter(
            x=[row.win[i] for row in rows],
            y=[wrapped(row.name) for row in rows],
            mode="markers",
            row=1,
            col=i + 1,
            error_x={
                "type": "data",
                "symmetric": False,
                "thickness": 1.5,
                "width": 0,
                "color": "#8a8a8a",
                "array": [max(0.0, row.high[i] - row.win[i]) for row in rows],
                "arrayminus": [max(0.0, row.win[i] - row.low[i]) for row in rows],
            },
            marker={
                "size": 12,
                "color": colours,
                "line": {"width": 2, "color": colours},
                "symbol": ["circle" if row.best == i and not row.even else "circle-open" for row in rows],
            },
            customdata=[[in_figure(row.name), row.low[i], row.high[i], row.reward[i], row.size] for row in rows],
            hovertemplate="%{customdata[0]}<br>wins %{x:.0%} (%{customdata[1]:.0%} to %{customdata[2]:.0%})"
            "<br>reward %{customdata[3]:+.2f}, n = %{customdata[4]}<extra></extra>",
        )
    figure.update_xaxes(range=[-0.03, 1.03], tickvals=[0, 0.5, 1], ticktext=["0", "50", "100%"], zeroline=False)
    figure.update_layout(height=height(110, 32, rows), showlegend=False, margin={"l": 0, "r": 22, "t": 30, "b": 0})
    return figure


def wrapped(name: str) -> str:
    """A name in full beside a row of a figure, on several lines where it is long."""
    return "<br>".join(html.escape(line) for line in wrap(name, NAME_WIDTH)) or name


def height(edges: int, row: int, rows: list[ScoreRow]) -> int:
    """Pixels of a figure with at least ``row`` pixels for each row, and with room for the longest name."""
    lines = max(wrapped(one.name).count("<br>") + 1 for one in rows)
    return edges + len(rows) * max(row, 8 + 15 * lines)


# ---- which answer to choose


def choosing(view: RewardView) -> None:
    """One answer for many people: for the worst-off group, and for the people nearest to somebody."""
    if view.worst_off is None and not any(row.neighbours for row in view.people):
        return
    st.subheader("If there can be only one answer")
    if view.groups_own is not None:
        st.markdown(advice(view, view.groups_own))
        in_full([answer_row(view, i) for i in range(len(view.pleased))], "What each answer would please")
    for row in view.people:
        if row.neighbours is not None:
            st.markdown(robust(row))
    st.caption(
        "An answer pleases those who would prefer it to all others shown; shares are expected over all people of the "
        "groups shown. People nearest to somebody are those who most probably share their preferences, judging by "
        f"their answers; they are weighted by that probability. Snapshot {view.snapshot}."
    )


def advice(view: RewardView, worth: GroupsOwn) -> str:
    """Whether one answer suits all groups, and which is the least bad where none does."""
    best, lowest = LETTERS[worth.best], view.worst_off
    if worth.best in common_favourites(view):
        even = sum(row.even for row in view.groups)
        all_of_them = f"no group prefers another with certainty ({even} of {len(view.groups)} are about even)"
        reason = all_of_them if even else "every group prefers it"
        return f"**{best} suits all**: {reason}, and it pleases {worth.for_all:.0%} of their people."
    text = f"**No answer suits all.** {worth_in_words(worth)} The best single answer is **{best}**"
    group = min(view.groups, key=lambda row: row.win[worth.best])
    text += f"; **{literal(group.name)}** would prefer it with {group.win[worth.best]:.0%}."
    fair = int(lowest.argmax())
    if fair != worth.best and lowest[fair] >= 1 / len(lowest):
        text += f" **{LETTERS[fair]}** leaves no group far behind: each prefers it with {lowest[fair]:.0%} or more."
    return text


def common_favourites(view: RewardView) -> set[int]:
    """The answers that are the favourite of every group, or about even with it."""
    return set.intersection(*({row.best, *row.favourites} for row in view.groups))


def worth_in_words(worth: GroupsOwn) -> str:
    return f"One answer for all pleases {worth.for_all:.0%} at best, each group its own {worth.for_groups:.0%}."


def answer_row(view: RewardView, i: int) -> dict:
    worst = min(view.groups, key=lambda row: row.win[i])
    return {
        "answer": LETTERS[i],
        "favourite of": " · ".join(favoured(row) for row in view.groups if i in (row.best, *row.favourites))
        or "no group",
        "pleases": f"{view.pleased[i]:.0%}",
        "least in a group": f"{worst.win[i]:.0%}",
        "which is": worst.name,
    }


def favoured(row: ScoreRow) -> str:
    return f"{row.name} (about even)" if row.even else row.name


def robust(row: ScoreRow) -> str:
    near, best = row.neighbours, int(row.neighbours.win.argmax())
    who, them, _ = addressed(row)
    wins = f"among the {near.n} people nearest to {them} it wins with {near.win[best]:.0%}"
    share = f"{near.best[best]:.0%} of those people, by weight, would choose it themselves"
    if best == row.best:
        return f"For {who}, **{LETTERS[best]}** is the robust choice too: {wins}, and {share}."
    other = f"{LETTERS[row.best]} with {near.win[row.best]:.0%}"
    return f"For {who}, **{LETTERS[best]}** is the robust choice: {wins}, {other}, and {share}."


def addressed(row: ScoreRow) -> tuple[str, str, str]:
    """A row within a sentence: who, "you" or "them", "your" or "their"."""
    if row.name.startswith(BY_ANSWERS):
        return f"you, {row.name.removeprefix('You ')}", "you", "your"
    return literal(row.name), "them", "their"


# ---- attribution to sentences


def attribution(view: RewardView, query: tuple) -> None:
    """The answers with each sentence tinted by its effect."""
    st.subheader("Which sentences matter")
    session, me = current()
    row = st.selectbox(
        "For", in_order(view, me.name), key="attribution-for", format_func=lambda row: view.rows[row].name
    )
    try:
        with st.spinner("Reading the answers with one sentence left out at a time"):
            found = cached_attribution(session, query, view, row)
    except CoplError as problem:
        st.error(str(problem))
        return
    if found.most < NOISE:
        st.write(
            "No single sentence matters to this part of the model: leaving out any one of them changes the odds by "
            f"less than {NOISE:.2f}."
        )
    most = max(found.most, LEAST_SCALE)
    for columns in (list(enumerate(found.responses))[i : i + 2] for i in range(0, len(found.responses), 2)):
        for column, (i, pieces) in zip(st.columns(2, gap="medium"), columns, strict=False):
            with column.container(border=True):
                st.caption(f"Answer {LETTERS[i]}")
                st.html(
                    "<div style='white-space:pre-wrap;line-height:1.75'>"
                    + "".join(tinted(piece, most) for piece in pieces)
                    + "</div>"
                )
    st.html(scale(most))
    source_line(
        f"Blue sentences speak for an answer, orange ones against it, according to {found.basis}: the log-odds that "
        f"are lost when the sentence is left out{ODDS}. Effects below {NOISE:.2f} stay without colour. The effects of "
        "sentences need not add up, and they do not say why.",
        found.snapshot,
    )
    with st.expander("The numbers"):
        st.dataframe(
            [
                {"answer": LETTERS[i], "sentence": piece.text.strip(), "log-odds": round(piece.effect, 3)}
                for i, own in enumerate(found.responses)
                for piece in own
            ],
            hide_index=True,
            width="stretch",
        )


def in_order(view: RewardView, me: str) -> list[int]:
    """Indices of the rows: oneself and what stands for oneself, the groups, and the others by name."""

    def rank(index: int) -> tuple[int, str]:
        row = view.rows[index]
        if row.kind == "group":
            return 1, ""
        return (
            (0, "") if row.name.startswith((f"{me} after ", BY_ANSWERS)) or row.name == me else (2, row.name.casefold())
        )

    return sorted(range(len(view.rows)), key=rank)


def cached_attribution(session, query: tuple, view: RewardView, row: int):
    """The effects of sentences for one row of the view, computed once."""
    prompt, responses, users, _, first, given = query
    key = (repr(query), view.snapshot, view.rows[row].name, row)
    kept = st.session_state.setdefault("attributions", {})
    if key not in kept:
        people = [{"users": [one]} for one in users] + [{"first": [one]} for one in first]
        people += [{"answers": given}] if given else []
        who = people[row] if row < len(people) else {"groups": [view.rows[row].group]}
        if len(kept) > 30:
            kept.clear()
        kept[key] = rewards.attribution(session, prompt, responses, **who)[0]
    return kept[key]


def tinted(piece, most: float) -> str:
    red, green, blue = RAISES if piece.effect > 0 else LOWERS
    depth = DEEPEST * min(1.0, abs(piece.effect) / most) if abs(piece.effect) >= NOISE else 0.0
    words = BOLD.sub(r"<b>\1</b>", html.escape(piece.text)).replace("**", "")
    return (
        f"<span style='background-color:rgba({red},{green},{blue},{depth:.2f});border-radius:3px' "
        f"title='{minus(f'{piece.effect:+.2f}')} log-odds'>{words}</span>"
    )


def scale(most: float) -> str:
    """The legend: the log-odds of the deepest tints."""
    ends = [f"rgba({r},{g},{b},{DEEPEST})" for r, g, b in (LOWERS, RAISES)]
    return (
        f"<div style='display:flex;gap:.6em;align-items:center;font-size:.85em'><span>−{most:.2f}</span>"
        f"<span style='flex:0 0 12em;height:.8em;background:linear-gradient(90deg,{ends[0]},transparent,{ends[1]});"
        f"border-radius:3px'></span><span>+{most:.2f} log-odds</span></div>"
    )


# ---- experts


def experts(view: RewardView) -> None:
    """The expert with the largest gate weight for each person and group, and all gate weights."""
    rows = [row for row in view.rows if row.gates is not None]
    st.subheader("Which experts speak")
    if not rows:
        st.write(f"None. {view.silent}")
        return
    st.markdown("; ".join(map(expert_in_words, rows)) + ".")
    st.plotly_chart(
        gates(rows), width="stretch", config=plot_settings(), key="gates", alt="Gate weights by person and expert"
    )
    reads = "and on the question, not on the answers" if view.sees_prompt else "not on these texts"
    source_line(
        f"The weight that the gate of the reward model gives each expert; {view.serving}, on top "
        "of a part that all people share. An expert is a small change of the language model, shared by people with "
        "similar preferences. A group has the mean weights of its people, who may have different experts. The weights "
        f"depend on a person’s embedding, {reads}.",
        view.snapshot,
    )


def expert_in_words(row: ScoreRow) -> str:
    """The expert of a person, or the leading one of a group."""
    largest = f"E{row.expert + 1} ({row.gate:.0%})"
    return f"{row.name}: {largest}" if row.gate >= LEADS else f"{row.name}: none stands out, {largest} is the largest"


def gates(rows: list[ScoreRow]) -> go.Figure:
    rows = list(reversed(rows))
    names = [f"E{i + 1}" for i in range(len(rows[0].gates))]
    figure = go.Figure(
        go.Heatmap(
            z=[row.gates for row in rows],
            x=names,
            y=[wrapped(row.name) for row in rows],
            colorscale=GATES,
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            colorbar={"tickformat": ".0%", "thickness": 12},
            hovertemplate="%{y}, %{x}: %{z:.0%}<extra></extra>",
        )
    )
    figure.update_layout(height=height(90, 26, rows), margin={"l": 0, "r": 0, "t": 0, "b": 0})
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    return figure


# ---- all of it


def table(view: RewardView) -> None:
    st.subheader("In numbers")
    with st.container(key="numbers"):
        st.html(NUMBERS_STYLE)
        in_full([wins_of(row) for row in view.rows], "Who would prefer which answer")
        in_full([parts_of(row) for row in view.rows], "Where the rewards come from")
    st.caption(
        "“≈” stands between answers that are about even. “Graph”, “own text weights” and “experts” are the log-odds "
        f"of a row’s favourite over its runner-up, by each part{ODDS}; together they are the difference of the two "
        "rewards. Of a group, rewards and parts are means over its people, and the ranking goes by the win "
        "probability. The graph embeds texts that nobody in the study has labelled by their content. Snapshot "
        f"{view.snapshot}."
    )


def in_full(rows: list[dict], alt: str) -> None:
    """A small table whose cells wrap, so that nothing is cut."""
    cells = [{name: literal(str(value)) for name, value in row.items()} for row in rows]
    st.table(cells, border="horizontal", hide_header=False, hide_index=True, alt=alt)


def wins_of(row: ScoreRow) -> dict:
    wins = {
        f"{LETTERS[i]} wins": f"{row.win[i]:.0%} ({row.low[i]:.0%} to {row.high[i]:.0%})" for i in range(len(row.win))
    }
    level = {row.best, *row.favourites}
    ranking = LETTERS[row.best] + "".join(
        f" {'≈' if i in level else '>'} {LETTERS[i]}" for i in row.ranking if i != row.best
    )
    return {"who": row.name} | wins | {"ranking": ranking, "people": f"{row.size:,}", "known by": row.source}


def parts_of(row: ScoreRow) -> dict:
    graph, linear, experts = row.margins
    cells = {
        "who": row.name,
        "graph": number(graph),
        "own text weights": number(linear),
        "experts": number(experts),
        "expert": "–" if row.expert is None else f"E{row.expert + 1} ({row.gate:.0%})",
    }
    return cells | {f"{LETTERS[i]} reward": number(float(row.reward[i])) for i in range(len(row.win))}


def number(value: float) -> str:
    return minus(f"{value:z.2f}")
