"""Who is served by which expert of the reward model, how evenly, and what each expert does."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError
from copl_core.study import experts
from copl_core.study.experts import (
    ExpertEffect,
    ExpertEffects,
    ExpertsView,
    FitLoad,
    VoicesView,
    as_csv,
    gates_csv,
    with_and_without,
)
from pages.common import (
    GATES,
    PLOT,
    group_colour,
    group_name,
    here,
    newer_snapshot,
    no_snapshot,
    person_name,
    readable,
    source_line,
    trouble,
)

MOST_ROWS = 1500  # of the picture; more are thinner than a pixel
ACCENT, PLAIN = "#0072B2", "#9A9A9A"


def page() -> None:
    session, _ = here()
    st.title("Experts")
    gate = st.session_state.get("gate")
    try:
        view = experts.overview(session, gate)
    except CoplError as problem:
        trouble(problem)
    if view is None:
        nothing_yet()
    m = len(view.load.share)
    st.write(
        f"**{m - view.load.dead} of {m}** experts serve {len(view.names):,} people, as evenly as "
        f"**{2**view.load.entropy:.1f}** experts with equal shares would. {spread(view.load.factor)}"
    )
    choose_gate(view)
    weights(view)
    load(view)
    between(view)
    over_training(view.snapshot)
    newer_snapshot(view.snapshot)
    what_they_do(view)  # last: the first time after a fit it takes some seconds, and nothing else waits for it


def nothing_yet() -> None:
    session, _ = here()
    if session.record.champion is None:
        no_snapshot("The picture of experts")
    st.info(
        f"Snapshot {session.record.champion} has no reward model yet, and experts live inside one. The trainer fits "
        "it a little after the first graph; the Training page starts a fit at once."
    )
    newer_snapshot(session.record.champion)
    st.stop()


def spread(factor: float) -> str:
    if math.isinf(factor):
        return "Some experts serve nobody."
    return f"The busiest serves {factor:.1f} times as many as the idlest."


def choose_gate(view: ExpertsView) -> None:
    """Only where the layers have gates of their own."""
    if len(view.gate_names) > 1:
        st.selectbox(
            "Gate",
            [None, *range(len(view.gate_names))],
            key="gate",
            width=320,
            format_func=lambda one: "mean over all gates" if one is None else view.gate_names[one],
        )


# ---- who is served by whom


def weights(view: ExpertsView) -> None:
    st.plotly_chart(heat(view), width="stretch", config=PLOT, key="gates", alt="Gate weights, people by experts")
    shown = "" if len(view.names) <= MOST_ROWS else f" {MOST_ROWS:,} of {len(view.names):,} people are drawn, evenly."
    source_line(
        f"Rows are {len(view.names):,} people, those of one group together; columns are experts. Stronger: the "
        "person's gate gives that expert more weight, and the strongest one answers for them. It shows who "
        f"shares an expert, not what the expert has learned.{shown} Reward model fitted in {view.fitted_in}.",
        view.snapshot,
    )
    st.download_button(
        "Gate weights as CSV",
        lambda: gates_csv(view),
        "gates.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
        key="gates-csv",
    )


def heat(view: ExpertsView) -> go.Figure:
    names = [person_name(name, kind) for name, kind in zip(view.names, view.kinds, strict=True)]
    rows = np.linspace(0, len(names) - 1, min(len(names), MOST_ROWS)).astype(int)
    columns = [f"E{i + 1}" for i in range(view.gates.shape[1])]
    figure = go.Figure(
        go.Heatmap(
            z=view.gates[rows],
            x=columns,
            y=list(range(len(rows))),
            colorscale=GATES,
            zmin=0,
            zmax=1,
            customdata=[[names[row]] * len(columns) for row in rows],
            hovertemplate="%{customdata}<br>%{x}: %{z:.2f}<extra></extra>",
            colorbar={"title": "gate weight"},
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
        titles.append(f"{group_name(known)} · {last - first:,}  ")
    figure.update_layout(height=520, margin={"l": 0, "r": 0, "t": 8, "b": 0})
    figure.update_yaxes(autorange="reversed", tickvals=middles, ticktext=titles, ticklabelstandoff=14, showgrid=False)
    figure.update_xaxes(side="top")
    return figure


def load(view: ExpertsView) -> None:
    st.subheader("Load")
    st.plotly_chart(loads(view), width="stretch", config=PLOT, key="load", alt="People per expert, by group")
    source_line(
        f"People whose top expert this is, coloured by their group on the map: {len(view.names):,} people, "
        f"entropy {view.load.entropy:.2f} of at most {math.log2(len(view.load.share)):.2f} bits, "
        f"{view.load.dead} dead {'expert' if view.load.dead == 1 else 'experts'} (serving nobody). Reward "
        f"model fitted in {view.fitted_in}.",
        view.snapshot,
    )


def loads(view: ExpertsView) -> go.Figure:
    figure = go.Figure()
    top = view.gates.argmax(1)
    columns = [f"E{i + 1}" for i in range(view.gates.shape[1])]
    groups = np.array([-1 if group is None else group for group in view.groups])
    for group, _, _ in view.blocks:
        known = None if group < 0 else group
        counts = np.bincount(top[groups == group], minlength=len(columns))
        figure.add_bar(x=columns, y=counts, name=group_name(known), marker_color=group_colour(known))
    figure.update_layout(barmode="stack", height=280, margin={"l": 0, "r": 0, "t": 8, "b": 0}, yaxis_title="people")
    return figure


def between(view: ExpertsView) -> None:
    st.subheader("Between two experts")
    if not view.between:
        st.caption("With a single expert nobody stands between two.")
        return
    rows = [
        {
            "person": person_name(view.names[row], view.kinds[row]),
            "group": group_name(view.groups[row]),
            "first": f"E{a + 1}",
            "weight": float(view.gates[row, a]),
            "second": f"E{b + 1}",
            "its weight": float(view.gates[row, b]),
            "gap": gap,
            "labels": view.n_labels[row],
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
        f"The {len(rows)} people whose two largest gate weights lie closest together: a little change of taste "
        "gives them another expert. With few labels that is as likely doubt as taste. Select one to go on.",
        view.snapshot,
    )
    chosen = picked["selection"]["rows"] if picked else []
    if chosen and chosen[0] < len(view.between):
        row = view.between[chosen[0]][0]
        if st.button(f"{view.names[row]} on the People page", key="to-people", icon=":material/scatter_plot:"):
            st.session_state.pop("link read", None)  # the address tells that page whom to show
            st.switch_page("pages/people.py", query_params={"person": str(view.user_ids[row])})


# ---- what each expert does


@st.fragment
def what_they_do(view: ExpertsView) -> None:
    session, _ = here()
    st.subheader("What each expert does")
    gate = view.gate or 0
    try:
        with st.spinner("Listening to every expert on a sample of the study's answers"):
            heard = experts.effects(session, gate)
    except CoplError as problem:
        st.error(str(problem))
        return
    if heard is None:
        st.info("The reward model has gone with its snapshot; load the page again.")
        return
    some = "" if len(view.gate_names) == 1 else f" Here the experts of {view.gate_names[gate]} speak alone."
    st.dataframe(
        [summary(voice, view) for voice in heard.voices],
        hide_index=True,
        width="stretch",
        alt="What each expert raises",
        column_config={
            "people": st.column_config.NumberColumn(help="whose top expert this is"),
            "strength": st.column_config.NumberColumn(
                format="%.2f", help="root mean square of what it adds to a reward, in log-odds"
            ),
        },
    )
    source_line(
        f"Each expert against the shared part of the reward model, on {heard.n_texts} answers to "
        f"{heard.n_prompts} prompts; only answers to one prompt are compared. Features are listed where the "
        "95 % interval of their correlation r leaves out zero, for all features at once; it is correlation, "
        f"and features that go together in these texts stand for one another.{some} Reward model fitted in "
        f"{heard.fitted_in}.",
        heard.snapshot,
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        expert = st.selectbox(
            "Expert",
            range(len(heard.voices)),
            format_func=lambda i: f"E{i + 1}",
            key="expert",
            width=160,
            bind="query-params",
        )
        st.download_button(
            "Every change as CSV",
            lambda: voices_csv(heard),
            "experts.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="voices-csv",
        )
    speak(heard.voices[expert])


def summary(voice: ExpertEffect, view: ExpertsView) -> dict:
    told = "; ".join(f"{trait.words} (r {abs(trait.r):.2f})" for trait in voice.traits[:2])
    return {
        "expert": f"E{voice.expert + 1}",
        "people": int(view.load.users[voice.expert]),
        "strength": voice.size,
        "raises": told or "nothing that is certain",
    }


def speak(voice: ExpertEffect) -> None:
    if voice.traits:
        st.write(
            f"**E{voice.expert + 1}** raises "
            + ", ".join(
                f"{trait.words} (|r| {abs(trait.r):.2f}, 95 % interval {min(abs(trait.low), abs(trait.high)):.2f} to "
                f"{max(abs(trait.low), abs(trait.high)):.2f})"
                for trait in voice.traits
            )
            + "."
        )
    else:
        st.write(f"No measured feature goes with what **E{voice.expert + 1}** changes clearly enough to be told.")
    for column, title, texts in zip(
        st.columns(2, gap="medium"), ("Raises most", "Lowers most"), (voice.raises, voice.lowers), strict=True
    ):
        with column:
            st.markdown(f"**{title}**")
            if not texts:
                st.caption("No answer of the sample.")
            for one in texts:
                text_card(one)


def text_card(one: ExpertEffects) -> None:
    with st.container(border=True):
        st.caption(f"{one.change:+.2f} log-odds · {readable(one.prompt)}")
        st.markdown(readable(one.response.text))


def voices_csv(heard: VoicesView) -> str:
    return as_csv(
        [row | {"snapshot": heard.snapshot, "fitted_in": heard.fitted_in} for row in heard.table],
        ["expert", "prompt", "response", "text", "change", "snapshot", "fitted_in"],
    )


# ---- over training


def over_training(snapshot: str) -> None:
    session, _ = here()
    st.subheader("From fit to fit")
    fits, unread = experts.loads(session)
    if not fits:
        st.caption("No snapshot holds the load of its experts.")
        return
    st.plotly_chart(
        history(fits),
        width="stretch",
        config=PLOT,
        key="history",
        alt="Effective and dead experts of every fit of the reward model",
    )
    missing = f" Unreadable and left out: {', '.join(unread)}." if unread else ""
    source_line(
        f"{len(fits)} {'fit' if len(fits) == 1 else 'fits'} of the reward model, each named by the snapshot "
        "that made it; snapshots in between share one. Experts are trained anew in each fit, so E1 of one is "
        f"not E1 of the next, and only their evenness can be followed.{missing}",
        snapshot,
    )
    st.download_button(
        "Loads as CSV",
        lambda: fits_csv(fits),
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
        name="effective experts",
        line_color=ACCENT,
        hovertemplate="%{x}: as even as %{y:.1f} equal experts<extra></extra>",
    )
    figure.add_scatter(
        x=names,
        y=[fit.dead for fit in fits],
        mode="lines+markers",
        name="dead experts",
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
        has, lacks = ("with", "0") if fits[-1].balance > 0 else ("without", "0.1")
        st.caption(
            f"Every fit so far was made {has} the balance loss. To see the other side, start the trainer once "
            f"with `COPL_BALANCE={lacks}` and ask for a full fit on the Training page."
        )
        return
    for column, title, fit in zip(st.columns(2, gap="medium"), ("With", "Without"), both, strict=True):
        with column:
            st.plotly_chart(
                sorted_loads(fit),
                width="stretch",
                config=PLOT,
                key=f"balance-{title}",
                alt=f"Load of every expert, {title.lower()} the balance loss",
            )
            accuracy = "" if fit.accuracy is None else f" Accuracy {fit.accuracy:.1%} on {fit.n:,} labels held out."
            st.caption(
                f"**{title}** (weight {fit.balance:g}): {fit.dead} dead, as even as {fit.effective:.1f} equal "
                f"experts. {spread(fit.factor)}{accuracy} Fitted in {fit.snapshot}."
            )
    source_line(
        "Share of people each expert serves, the busiest first. The two fits may have seen different labels.", snapshot
    )


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


def fits_csv(fits: tuple[FitLoad, ...]) -> str:
    most = max(len(fit.share) for fit in fits)
    shares = [f"share_{i + 1}" for i in range(most)]
    rows = [
        {
            "fitted_in": fit.snapshot,
            "balance": fit.balance,
            "entropy_bits": round(fit.entropy, 4),
            "dead": fit.dead,
            "accuracy": fit.accuracy,
            "n": fit.n,
            **dict(zip(shares, fit.share.round(5).tolist(), strict=False)),
        }
        for fit in fits
    ]
    return as_csv(rows, ["fitted_in", "balance", "entropy_bits", "dead", "accuracy", "n", *shares])


page()
