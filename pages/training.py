"""What the trainer does, what it made, whether it pays, and which snapshot the pages use."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Run, RunState
from copl_core.study import runs
from copl_core.study_settings import Schedule
from pages.common import NO_GROUP_COLOUR, PLOT, again, here, source_line
from pages.run_log import attempt, the_runs
from pages.snapshots import snapshots

INK = "#0072B2"
METHODS = {
    "copl": "Graph and text",
    "copl-graph": "Graph alone",
    "copl-reward": "Text reward alone",
    "side-length": "One taste, own habits",
    "global": "One taste for all",
}
OWN = ("copl", "copl-graph", "copl-reward")
QUESTION = "Is personalisation paying on your data?"


def page() -> None:
    st.title("Training")
    standing()
    now()
    ask()
    schedule()
    st.subheader("Snapshots")
    snapshots()
    st.subheader("Runs")
    the_runs()


# ---- does it pay


def standing() -> None:
    session, _ = here()
    found = runs.personalisation_gain(session)
    if found is None:
        st.markdown(
            f"**{QUESTION}** Not measured yet. A run of graph and reward model keeps a tenth of the decided "
            "labels aside and asks both this model and one taste for all about them."
        )
        return
    gain = (
        f"{abs(100 * found.gain):.1f} points {'more' if found.gain >= 0 else 'less'} "
        f"(95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    )
    verdict = {"yes": "Yes.", "no": "No.", "not yet": "Not shown yet."}[found.answer]
    end = "" if found.answer != "not yet" else " The interval holds zero: more labels, or more people, would tell."
    st.markdown(
        f"**{QUESTION} {verdict}** Knowing people, the model foresees {found.own:.1%} of {found.n:,} answers "
        f"it had not seen; one taste for all foresees {found.everybody:.1%}: {gain}.{end}"
    )
    figures(found.fitted_in)


def figures(fitted_in: str) -> None:
    """The methods side by side, on the labels that all of them were asked."""
    session, _ = here()
    champion = next(record for record in runs.snapshots(session) if record.version == session.record.champion)
    held_out = {name: champion.metrics["held_out"][name] for name in METHODS if name in champion.metrics["held_out"]}
    picture, numbers = st.columns([3, 5], gap="medium")
    picture.plotly_chart(
        forest(held_out),
        width="stretch",
        config=PLOT,
        key="methods",
        alt="Accuracy of each method on held-out labels, with intervals",
    )
    numbers.dataframe([figure_row(name, row) for name, row in held_out.items()], hide_index=True, width="stretch")
    n, people = champion.metrics["gain"]["n"], champion.metrics["gain"]["people"]
    source_line(
        f"Accuracy on {n:,} decided labels of {people:,} people that were kept from every method; lines are "
        "95 % intervals, people drawn with replacement. Baselines, in grey, are Bradley–Terry models of the "
        f"same labels; habits are those of side and length. Measured by the run that made {fitted_in}; it says "
        "nothing of people who are not in the study.",
        champion.version,
    )


def forest(held_out: dict) -> go.Figure:
    names = list(reversed(held_out))
    rows = [held_out[name] for name in names]
    colours = [INK if name in OWN else NO_GROUP_COLOUR for name in names]
    figure = go.Figure(
        go.Scatter(
            x=[row["accuracy"] for row in rows],
            y=[METHODS[name] for name in names],
            mode="markers",
            marker={"size": 12, "color": colours},
            error_x={
                "type": "data",
                "symmetric": False,
                "thickness": 2,
                "width": 0,
                "color": NO_GROUP_COLOUR,
                "array": [row["accuracy_interval"][1] - row["accuracy"] for row in rows],
                "arrayminus": [row["accuracy"] - row["accuracy_interval"][0] for row in rows],
            },
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(tickformat=".0%", zeroline=False)
    figure.update_layout(height=70 + 34 * len(rows), margin={"l": 0, "r": 8, "t": 8, "b": 0})
    return figure


def figure_row(name: str, row: dict) -> dict:
    low, high = row["accuracy_interval"]
    loss_low, loss_high = row["log_loss_interval"]
    return {
        "method": METHODS[name],
        "accuracy": f"{row['accuracy']:.3f} ({low:.3f}–{high:.3f})",
        "log-loss": f"{row['log_loss']:.3f} ({loss_low:.3f}–{loss_high:.3f})",
        "calibration error": round(row["calibration_error"], 3),
    }


# ---- the trainer


@st.fragment(run_every=1)
def now() -> None:
    """The trainer at this moment; the whole page is drawn again when the champion moves."""
    session, _ = here()
    status, champion = runs.trainer_status(session), session.record.champion
    if st.session_state.setdefault("seen champion", champion) != champion:
        st.session_state["seen champion"] = champion
        again()
    if not status.alive:
        st.warning(
            "No trainer is running, so labels are kept but nothing is learned. Start one in a terminal with "
            "`python -m copl_core worker` (`make run` does it for you)."
        )
    elif status.run is None and not runs.schedule(session).automatic:
        st.write(f"The trainer is waiting to be asked; {status.labels_since:,} labels changed since the last refit.")
    elif status.run is None:
        st.write(
            f"The trainer is waiting: {status.labels_since:,} of {status.labels_needed:,} new labels for the next "
            "refit."
        )
    if status.run is not None:
        progress(status.run)


def progress(run: Run) -> None:
    done = run.step / run.steps if run.steps else 0.0
    loss = "" if run.loss is None else f", loss {run.loss:.3f}"
    left = "" if run.seconds_left is None else f", about {run.seconds_left:.0f} s left in this phase"
    where = f"Run {run.id} ({run.kind}): {run.phase}, step {run.step} of {run.steps}"
    st.progress(min(1.0, done), text=f"{where}{loss}{left}")


def ask() -> None:
    session, _ = here()
    with st.container(horizontal=True):
        for kind, text in (("graph", "Refit the graph now"), ("full", "Refit graph and reward model now")):
            if st.button(text):
                attempt(runs.request_fit, session, kind)
        active = [run for run in runs.list_runs(session) if run.state in (RunState.QUEUED, RunState.RUNNING)]
        if active and st.button(f"Cancel run {active[0].id}"):
            attempt(runs.cancel, session, active[0].id)


def schedule() -> None:
    """When the trainer acts by itself, kept with the study."""
    session, me = here()
    settled = runs.schedule(session)
    with st.expander("Schedule: when the trainer acts by itself"):
        if st.session_state.pop("schedule-saved", False):
            st.success("Saved. The trainer reads it before every run.")
        with st.form("schedule", border=False):
            automatic = st.checkbox(
                "Refit by itself",
                settled.automatic,
                help="Off, only the buttons above start a run, and a champion chosen by hand stays until then.",
            )
            left, right = st.columns(2)
            graph = left.number_input("Labels that make a refit of the graph due", 1, 1_000_000, settled.refit_labels)
            graph_wait = right.number_input(
                "and never sooner than, in seconds after the last run",
                0.0,
                2_592_000.0,
                float(settled.refit_seconds),
                step=5.0,
            )
            reward = left.number_input(
                "Labels that make a refit of the reward model due", 1, 1_000_000, settled.reward_labels
            )
            reward_wait = right.number_input(
                "and never sooner than, in seconds after the last of those",
                0.0,
                2_592_000.0,
                float(settled.reward_seconds),
                step=30.0,
            )
            if st.form_submit_button("Save the schedule"):
                save(Schedule(automatic, int(graph), float(graph_wait), int(reward), float(reward_wait)), me.id)
        st.caption(
            "A refit of the graph takes seconds and moves people; the reward model takes minutes and is shared "
            "by the snapshots in between. After a failed run the wait doubles."
        )


def save(wanted: Schedule, by: int) -> None:
    session, _ = here()
    try:
        runs.set_schedule(session, wanted, by=by)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.session_state["schedule-saved"] = True
    again()


page()
