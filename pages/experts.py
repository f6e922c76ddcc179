"""Experts: which expert of the reward model serves whom, how even their loads are, and what each expert does."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Role, counted_people
from copl_core.study import access, experts
from copl_core.study.experts import (
    ExpertEffect,
    ExpertEffectsView,
    ExpertsView,
    FitLoad,
    TextEffect,
    with_and_without,
)
from copl_core.turns import title_of
from pages.common import (
    GATES,
    champion_here,
    current,
    download,
    group_colour,
    group_name,
    in_figure,
    minus,
    no_snapshot,
    on_touch,
    person_name,
    plot_settings,
    rerun,
    source_line,
    stop_with_error,
    watch_champion,
    who_is_simulated,
)
from pages.people_groups import excerpts
from pages.texts import draw_response, literal

SHORT_NAME = 12  # characters of a group's name beside a figure on a phone
ACCENT, PLAIN = "#0072B2", "#9A9A9A"
LEAST_WEIGHT = 0.005  # of a gate; less is shown as 0


def page() -> None:
    session, _ = current()
    st.title("Experts")
    who_is_simulated()
    gate = st.session_state.get("gate")
    champion_here()
    try:
        view = experts.overview(session, gate)
    except CoplError as problem:
        stop_with_error(problem)
    if view is None:
        nothing_yet()
    m = len(view.load.share)
    if not all(view.say):
        st.warning(no_say(view.say))
    serve = "serve" if any(view.say) else "would serve"
    st.write(
        f"**{m - view.load.dead} of {m}** experts {serve} {of_all(view)}; the load is as even as "
        f"with **{2**view.load.entropy:.1f}** experts of equal shares. {spread(view.load.factor)}"
    )
    choose_gate(view)
    weights(view)
    load(view)
    between(view)
    over_training(view.snapshot)
    watch_champion(view.snapshot)
    what_they_do(view)  # last: after a new fit it takes some seconds, and nothing else waits for it


def of_all(view: ExpertsView) -> str:
    """How many people the figures are about, in words."""
    n = len(view.user_ids)
    return counted_people(n) if n == view.n_users else f"{n:,} of {counted_people(view.n_users)}, evenly chosen"


def nothing_yet() -> None:
    session, _ = current()
    if session.record.champion is None:
        no_snapshot("The figure of experts")
    st.info(
        f"Snapshot {session.record.champion} has no reward model yet, and the experts are part of it. The trainer "
        "fits it soon after the first graph; you can start a fit on the Training page."
    )
    watch_champion(session.record.champion)
    st.stop()


def no_say(say: tuple[bool, bool]) -> str:
    """About which texts the experts have no say, in words."""
    why = "on held-out labels it added nothing to the preference graph, and its weight is 0"
    if not any(say):
        return (
            f"The text reward has no say in this snapshot, and so no expert has: {why}. The figures below show how its "
            "gate would spread people."
        )
    silent, other = ("new texts", "texts with labels") if say[0] else ("texts with labels", "new texts")
    return f"About {silent} no expert has a say: {why}. The experts decide about {other} only."


def spread(factor: float) -> str:
    if math.isinf(factor):
        return "Some experts serve nobody."
    return f"The expert with the largest load serves {factor:.1f} times as many people as the one with the smallest."


def choose_gate(view: ExpertsView) -> None:
    """The choice of a gate, where the layers have separate gates."""
    if len(view.gate_names) > 1:
        st.selectbox(
            "Gate",
            [None, *range(len(view.gate_names))],
            key="gate",
            width=320,
            format_func=lambda one: "mean over all gates" if one is None else view.gate_names[one],
        )


# ---- which expert serves whom


def weights(view: ExpertsView) -> None:
    st.plotly_chart(
        heat(view), width="stretch", config=plot_settings(), key="gates", alt="Gate weights, people by experts"
    )
    shown = (
        ""
        if len(view.user_ids) <= len(view.shown)
        else f" {len(view.shown):,} of {len(view.user_ids):,} people are shown."
    )
    over = (
        " The gate also sees the question: shown is the mean over some of the questions that it learned from."
        if view.sees_prompt
        else ""
    )
    source_line(
        f"Rows are {of_all(view)}, sorted by group; columns are experts.{without_gate(view)} "
        "A stronger colour is a larger "
        f"gate weight; {view.serving}.{over} The figure shows who shares an expert, not "
        f"what the expert has learned.{shown} Reward model fitted in {view.fitted_in}.",
        view.snapshot,
    )
    st.download_button(
        "Gate weights as CSV",
        download(lambda session, _: experts.gates_csv(session, view)),
        "gates.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
        key="gates-csv",
    )


def without_gate(view: ExpertsView) -> str:
    """Those whom the other pages count too, in a sentence."""
    session, _ = current()
    missing = sum(access.user_counts(session).values()) - view.n_users
    if missing <= 0:
        return ""
    people = "1 more person has" if missing == 1 else f"{missing:,} more people have"
    return f" {people} no gate yet: this reward model has learned from no answer of theirs."


def heat(view: ExpertsView) -> go.Figure:
    rows = view.shown
    names = [name(view, row) for row in rows.tolist()]
    columns = [f"E{i + 1}" for i in range(view.gates.shape[1])]
    figure = go.Figure(
        go.Heatmap(
            z=view.gates[rows],
            x=columns,
            y=list(range(len(rows))),
            colorscale=GATES,
            zmin=0,
            zmax=1,
            customdata=[[in_figure(one)] * len(columns) for one in names],
            hovertemplate="%{customdata}<br>%{x}: %{z:.2f}<extra></extra>",
            colorbar={"title": "gate weight", "orientation": "h", "y": 0, "yanchor": "top", "thickness": 12},
        )
    )
    middles, titles = [], []
    for group, first, last in view.blocks:
        top, bottom = np.searchsorted(rows, [first, last]) - 0.5
        known = None if group < 0 else group
        figure.add_shape(
            type="rect",
            xref="paper",
            x0=-0.014,
            x1=-0.004,
            y0=top,
            y1=bottom,
            line_width=0,
            fillcolor=group_colour(known),
        )
        if first:
            figure.add_hline(y=top, line_width=1.5, line_color="#555")
        middles.append((top + bottom) / 2)
        titles.append(f"{in_figure(shortened(group_name(known)))} · {last - first:,}  ")
    figure.update_layout(height=520, margin={"l": 0, "r": 0, "t": 8, "b": 0})
    figure.update_yaxes(autorange="reversed", tickvals=middles, ticktext=titles, ticklabelstandoff=14, showgrid=False)
    figure.update_xaxes(side="top", showgrid=False)
    return figure


def name(view: ExpertsView, row: int) -> str:
    user = view.users.get(int(view.user_ids[row]))  # None: they have left since
    return "somebody" if user is None else person_name(user.name, user.kind)


def shortened(name: str) -> str:
    """A group's name beside a figure: whole on a screen, its beginning on a phone."""
    return name if not on_touch() or len(name) <= SHORT_NAME else f"{name[: SHORT_NAME - 1].rstrip()}…"


def load(view: ExpertsView) -> None:
    st.subheader("Load")
    st.plotly_chart(loads(view), width="stretch", config=plot_settings(), key="load", alt="People per expert, by group")
    source_line(
        f"The people that each expert serves, coloured by their group on the map: {of_all(view)}. "
        f"{idle(view.load.dead)} Reward model fitted in {view.fitted_in}.",
        view.snapshot,
    )


def idle(experts: int) -> str:
    """How many experts serve nobody, in a sentence."""
    return f"{experts} expert{'s serve' if experts != 1 else ' serves'} nobody." if experts else "No expert is idle."


def loads(view: ExpertsView) -> go.Figure:
    figure = go.Figure()
    top = view.gates.argmax(1)
    columns = [f"E{i + 1}" for i in range(view.gates.shape[1])]
    for group, _, _ in view.blocks:
        known = None if group < 0 else group
        counts = np.bincount(top[view.groups == group], minlength=len(columns))
        figure.add_bar(x=columns, y=counts, name=in_figure(group_name(known)), marker_color=group_colour(known))
    figure.update_layout(barmode="stack", height=280, margin={"l": 0, "r": 0, "t": 8, "b": 0}, yaxis_title="people")
    return figure


def between(view: ExpertsView) -> None:
    st.subheader("Between two experts")
    if not view.between:
        st.caption("With a single expert, nobody is between two experts.")
        return
    rows = [
        {
            "person": name(view, row),
            "group": group_name(int(view.groups[row]) if view.groups[row] >= 0 else None),
            "first": f"E{a + 1}",
            "weight": float(view.gates[row, a]),
            "second": f"E{b + 1}",
            "its weight": float(view.gates[row, b]),
            "gap": gap,
            "labels": int(view.n_labels[row]),
        }
        for row, a, b, gap in view.between
    ]
    number = st.column_config.NumberColumn(format="%.2f")
    picked = st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        on_select="rerun",
        selection_mode="single-row",
        key="between",
        alt="People between two experts",
        column_config={"weight": number, "its weight": number, "gap": number},
    )
    source_line(
        f"The {len(rows)} people whose two largest gate weights are closest together: a small change in preferences "
        "gives them another expert. With few labels this may also be uncertainty. Select a person to continue.",
        view.snapshot,
    )
    chosen = picked["selection"]["rows"] if picked else []
    if chosen and chosen[0] < len(view.between):
        row = view.between[chosen[0]][0]
        if st.button(f"{name(view, row)} on the People page", key="to-people", icon=":material/scatter_plot:"):
            st.session_state.pop("link read", None)  # the address then selects the person on that page
            st.switch_page("pages/people.py", query_params={"person": str(view.user_ids[row])})


# ---- what each expert does


@st.fragment
def what_they_do(view: ExpertsView) -> None:
    """What each expert raises and lowers, measured on a sample of the study's answers."""
    session, _ = current()
    st.subheader("What each expert does")
    gate = view.gate or 0
    try:
        with st.spinner("Measuring every expert on a sample of the study's answers"):
            found = experts.effects(session, gate)
    except CoplError as problem:
        st.error(str(problem))
        return
    if found is None:
        replaced(view)
        return
    st.session_state.pop("experts replaced", None)
    effects_table(found, view)
    only = "" if len(view.gate_names) == 1 else f" Here only the experts of {view.gate_names[gate]} are used."
    source_line(
        f"Each expert compared with the shared part of the reward model, on {found.n_texts} answers to "
        f"{found.n_prompts} prompts; only answers to the same prompt are compared. A feature is listed if the 95% "
        "interval of its correlation r excludes zero, for all features at once. Correlated features can stand for one "
        f"another.{only} Reward model fitted in {found.fitted_in}.",
        found.snapshot,
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        expert = st.selectbox(
            "Expert",
            range(len(found.effects)),
            format_func=lambda i: f"E{i + 1}",
            key="expert",
            width=160,
            bind="query-params",
        )
        st.download_button(
            "All changes as CSV",
            lambda: experts.effects_csv(found),
            "experts.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="effects-csv",
        )
    details(found.effects[expert], view)


def replaced(view: ExpertsView) -> None:
    """The champion has changed while the page was open: the page loads again, once."""
    if st.session_state.get("experts replaced") != view.snapshot:
        st.session_state["experts replaced"] = view.snapshot
        rerun()
    st.info("The snapshot of this reward model was replaced by one without experts.")


def effects_table(found: ExpertEffectsView, view: ExpertsView) -> None:
    st.dataframe(
        [summary(effect, view) for effect in found.effects],
        hide_index=True,
        width="stretch",
        alt="What each expert raises",
        column_config={
            "people": st.column_config.NumberColumn(help="people whose largest gate weight is for this expert"),
            "strength": st.column_config.NumberColumn(
                format="%.2f", help="root mean square of what it adds to a reward, in log-odds"
            ),
        },
    )


def summary(effect: ExpertEffect, view: ExpertsView) -> dict:
    features = "; ".join(f"{trait.words} (|r| {abs(trait.r):.2f})" for trait in effect.correlations[:2])
    return {
        "expert": f"E{effect.expert + 1}",
        "people": int(view.load.users[effect.expert]),
        "strength": None if unused(effect, view) else effect.size,
        "raises": "nothing: no gate uses it" if unused(effect, view) else features or "no certain feature",
    }


def unused(effect: ExpertEffect, view: ExpertsView) -> bool:
    """Whether no gate gives an expert a weight that is above nothing."""
    return not len(view.gates) or float(view.gates[:, effect.expert].max()) < LEAST_WEIGHT


def details(effect: ExpertEffect, view: ExpertsView) -> None:
    if unused(effect, view):
        st.info(
            f"No gate gives **E{effect.expert + 1}** any weight, so what it computes reaches nobody’s rewards: it has "
            "learned from nobody, and its changes are not shown."
        )
        return
    if effect.correlations:
        st.write(
            f"**E{effect.expert + 1}** raises "
            + ", ".join(
                f"{trait.words} (|r| {abs(trait.r):.2f}, 95% interval {min(abs(trait.low), abs(trait.high)):.2f} to "
                f"{max(abs(trait.low), abs(trait.high)):.2f})"
                for trait in effect.correlations
            )
            + "."
        )
    else:
        st.write(f"No measured feature goes with what **E{effect.expert + 1}** changes with certainty.")
    if effect.found is not None:
        uncounted(effect)
    for column, title, texts in zip(
        st.columns(2, gap="medium"), ("Raises most", "Lowers most"), (effect.raises, effect.lowers), strict=True
    ):
        with column:
            st.markdown(f"**{title}**")
            if not texts:
                st.caption("No answers in the sample.")
            for one in texts:
                text_card(one)


def uncounted(effect: ExpertEffect) -> None:
    """What goes with an expert's changes beyond all counted features, by excerpts of answers."""
    found = effect.found
    low, high = sorted((abs(found.low), abs(found.high)))
    with st.container(border=True):
        st.markdown(f"**E{effect.expert + 1}** also raises something that nobody counts, more than anything counted:")
        excerpts("Raises answers like these", "and lowers answers like these", found.more, found.less)
        st.caption(f"|r| {abs(found.r):.2f}, 95% interval {low:.2f} to {high:.2f}.")


def text_card(one: TextEffect) -> None:
    with st.container(border=True):
        st.caption(f"{minus(f'{one.change:+.2f}')} log-odds · {literal(title_of(one.prompt))}")
        draw_response(one.response.text)


# ---- from fit to fit


def over_training(snapshot: str) -> None:
    session, _ = current()
    st.subheader("From fit to fit")
    fits, unread = experts.loads(session)
    if not fits:
        st.caption("No snapshot stores the load of its experts.")
        return
    st.plotly_chart(
        history(fits),
        width="stretch",
        config=plot_settings(),
        key="history",
        alt="How evenly the experts of every fit of the reward model are used, and how many serve nobody",
    )
    missing = f" Unreadable snapshots are skipped: {', '.join(unread)}." if unread else ""
    source_line(
        f"{len(fits)} {'fit' if len(fits) == 1 else 'fits'} of the reward model, each named by the snapshot that first "
        "used it; snapshots in between share one. Each fit trains new experts, so E1 of one fit is not E1 of the next, "
        f"and only the evenness of the load can be compared.{missing}",
        snapshot,
    )
    st.download_button(
        "Loads as CSV",
        lambda: experts.loads_csv(fits),
        "loads.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
        key="fits-csv",
    )
    balance(fits, snapshot)


def history(fits: tuple[FitLoad, ...]) -> go.Figure:
    names = [fit.snapshot for fit in fits]
    figure = go.Figure()
    figure.add_scatter(
        x=names,
        y=[fit.effective for fit in fits],
        mode="lines+markers",
        name="as even as so many experts",
        line_color=ACCENT,
        hovertemplate="%{x}: as even as %{y:.1f} equal experts<extra></extra>",
    )
    figure.add_scatter(
        x=names,
        y=[fit.dead for fit in fits],
        mode="lines+markers",
        name="serve nobody",
        line={"color": PLAIN, "dash": "dot"},
        hovertemplate="%{x}: %{y} serve nobody<extra></extra>",
    )
    figure.add_hline(
        y=max(len(fit.share) for fit in fits), line_width=1, line_color="#888", annotation_text="all experts, evenly"
    )
    figure.update_layout(
        height=260,
        margin={"l": 0, "r": 0, "t": 8, "b": 0},
        yaxis_title="experts",
        legend={"orientation": "h", "y": -0.2},
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="tozero")
    return figure


def balance(fits: tuple[FitLoad, ...], snapshot: str) -> None:
    st.markdown("**With and without the balance loss**")
    both = with_and_without(fits)
    if both is None:
        st.caption(only_one_kind(fits[-1].balance > 0))
        return
    for column, title, fit in zip(st.columns(2, gap="medium"), ("With", "Without"), both, strict=True):
        with column:
            st.plotly_chart(
                sorted_loads(fit),
                width="stretch",
                config=plot_settings(),
                key=f"balance-{title}",
                alt=f"Load of every expert, {title.lower()} the balance loss",
            )
            accuracy = "" if fit.accuracy is None else f" Accuracy {fit.accuracy:.1%} on {fit.n:,} held-out labels."
            st.caption(
                f"**{title}** (weight {fit.balance:g}): as even as {fit.effective:.1f} equal experts. "
                f"{idle(fit.dead)} {spread(fit.factor)}{accuracy} Fitted in {fit.snapshot}."
            )
    source_line(
        "Share of people that each expert serves, largest first. The two fits may have used different labels.", snapshot
    )


def only_one_kind(balanced: bool) -> str:
    """What is missing to compare fits with and without the balance loss, and who can add it."""
    _, me = current()
    has, other, setting = ("with", "without", "0") if balanced else ("without", "with", "0.1")
    how = (
        f"start the trainer once with `COPL_BALANCE={setting}` and request a full fit on the Training page"
        if me.role == Role.OWNER
        else f"an owner can make one fit {other} it"
    )
    return f"All fits so far were made {has} the balance loss, which keeps all experts in use. To compare, {how}."


def sorted_loads(fit: FitLoad) -> go.Figure:
    shares = np.sort(fit.share)[::-1]
    figure = go.Figure(
        go.Bar(
            x=list(range(1, len(shares) + 1)),
            y=shares,
            marker_color=ACCENT,
            hovertemplate="%{y:.1%} of people<extra></extra>",
        )
    )
    figure.add_hline(y=1 / len(shares), line_width=1, line_color="#888", annotation_text="even")
    figure.update_layout(height=220, margin={"l": 0, "r": 0, "t": 8, "b": 0})
    figure.update_yaxes(tickformat=".0%", range=[0, max(0.5, float(shares[0]) * 1.1)])
    figure.update_xaxes(dtick=1, title="expert, by rank")
    return figure


page()
