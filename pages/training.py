"""Training: what the trainer does, its snapshots and runs, whether personalisation helps, and the champion."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.command_line import command
from copl_core.records import CoplError, Run, RunState, counted, counted_people
from copl_core.study import personalisation, runs
from copl_core.study_settings import Schedule
from pages.common import (
    NO_GROUP_COLOUR,
    champion_here,
    current,
    plot_settings,
    rerun,
    source_line,
    time_left,
    who_is_simulated,
)
from pages.gain import VERDICTS, ceiling_in_words, gain_in_words
from pages.run_log import perform, run_list
from pages.snapshots import snapshots

INK = "#0072B2"
METHODS = {
    "copl": "Graph and text",
    "copl-graph": "Graph alone",
    "copl-linear": "Own text weights alone",
    "copl-reward": "Experts alone",
    "side-length": "Shared preference, own habits",
    "global": "Shared preference",
}
OWN = ("copl", "copl-graph", "copl-linear", "copl-reward")
QUESTION = "Does personalisation help on your data?"


def page() -> None:
    st.title("Training")
    who_is_simulated()
    champion_here(needed=False)
    gain()
    trainer_now()
    run_buttons()
    schedule()
    trainers()
    st.subheader("Snapshots")
    snapshots()
    st.subheader("Runs")
    run_list()


# ---- does personalisation help


def gain() -> None:
    """The held-out accuracy of the personal model against the strongest baseline, in a sentence."""
    session, _ = current()
    found = personalisation.personalisation_gain(session)
    if found is None:
        st.markdown(
            f"**{QUESTION}** Not measured yet. A run of graph and reward model holds out up to a tenth of the decided "
            "labels and predicts them with the personal model and with the baselines that know nobody's taste."
        )
        return
    verdict = "Not measured yet." if found.left_out else VERDICTS[found.answer]
    st.markdown(f"**{QUESTION} {verdict}** {gain_in_words(found)} {ceiling_in_words()}")
    if found.tells:
        figures(found.fitted_in)


def figures(fitted_in: str) -> None:
    """All methods side by side, on the same held-out labels."""
    session, _ = current()
    champion = next((one for one in runs.snapshots(session) if one.version == session.record.champion), None)
    if champion is None:  # replaced since the page was opened
        return
    held_out = {name: champion.metrics["held_out"][name] for name in METHODS if name in champion.metrics["held_out"]}
    picture, numbers = st.columns([1, 2], gap="medium")  # all columns are in sight on a screen of 1440
    picture.plotly_chart(
        forest(held_out),
        width="stretch",
        config=plot_settings(),
        key="methods",
        alt="Accuracy of each method on held-out labels, with intervals",
    )
    numbers.dataframe(
        [figure_row(name, row) for name, row in held_out.items()],
        hide_index=True,
        width="stretch",
        column_config={"calibration error": st.column_config.NumberColumn(format="%.3f")},
    )
    length = runs.reward_length(champion)
    if length and length[2]:
        st.warning(
            f"The text reward was cut after {length[0]} of {length[1]} steps, since its time was up. Give it more "
            "(`COPL_REWARD_BUDGET_SECONDS`), or plan fewer steps (`COPL_REWARD_STEPS`)."
        )
    if read := runs.tags_read(champion):
        st.caption(read)
    n, people = champion.metrics["gain"]["n"], champion.metrics["gain"]["people"]
    source_line(
        f"Accuracy on {n:,} decided labels of {counted_people(people)}, held out from every method; the weights of the "
        "parts are learned on one half of them and measured on the other. A part can be right more often than the "
        "whole, which is chosen by log-loss. Lines are 95% intervals of a bootstrap over people. The baselines, in "
        "grey, are Bradley–Terry models of the same labels; “habits” are preferences for a side and for length. "
        f"Measured by the run that made {fitted_in}. The figures say nothing about people who are not in the study.",
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
        "calibration error": row["calibration_error"],
    }


# ---- the trainer


@st.fragment(run_every=1)
def trainer_now() -> None:
    """The current state of the trainer; the whole page reruns when the champion changes."""
    session, _ = current()
    status, champion = runs.trainer_status(session), session.record.champion
    if st.session_state.setdefault("seen champion", champion) != champion:
        st.session_state["seen champion"] = champion
        rerun()
    if status.given_up:
        st.error(status.given_up)
    elif not status.alive:
        st.warning(
            "No trainer is running: labels are stored, but the model does not learn from them. Start one in a terminal "
            f"with `{command('worker')}` (`make run` does it for you)."
        )
    elif status.run is None and not runs.schedule(session).automatic:
        st.write(
            f"The trainer waits for a request; {counted(status.labels_since, 'label')} changed since the last refit."
        )
    elif status.run is None and champion is None and not runs.snapshots(session):
        st.write(
            f"The trainer waits for labels: {status.labels_since:,} of {status.labels_needed:,} for the first snapshot."
        )
    elif status.run is None:
        st.write(
            f"The trainer waits for labels: {status.labels_since:,} of {status.labels_needed:,} for the next refit."
        )
    if status.alive:
        for run in status.unserved:
            st.warning(
                f"Run {run.id} ({run.kind}) waits: no trainer that is at work executes {run.kind} runs. Start one with "
                f"`{command('worker')} --kinds {run.kind}`."
            )
    for run in status.runs:
        progress(run)


def trainers() -> None:
    """The trainers of the last day, on any machine that shares the database."""
    session, _ = current()
    if not (listed := runs.list_trainers(session)):
        return
    with st.expander(f"Trainers ({sum(alive for _, alive in listed)} at work)"):
        st.dataframe(
            [
                {
                    "trainer": one.worker,
                    "machine": one.host,
                    "kinds of runs": ", ".join(one.kinds),
                    "computes on": one.device,
                    "state": one.state if alive or one.state == "stopped" else f"silent; was at: {one.state}",
                    "last seen, s ago": round(max(0.0, one.silent_seconds)),
                }
                for one, alive in listed
            ],
            hide_index=True,
        )


def progress(run: Run) -> None:
    """One bar for the whole run."""
    steps = f", {run.step} of {run.steps}" if run.steps > 1 else ""
    loss = "" if run.loss is None else f", loss {run.loss:.3f}"
    st.progress(runs.share_done(run), text=f"Run {run.id} ({run.kind}): {run.phase}{steps}{loss}{time_left(run)}")


def run_buttons() -> None:
    session, _ = current()
    with st.container(horizontal=True):
        for kind, text in (("graph", "Refit the graph now"), ("full", "Refit graph and reward model now")):
            if st.button(text):
                perform(runs.request_fit, session, kind)
        active = [run for run in runs.list_runs(session) if run.state in (RunState.QUEUED, RunState.RUNNING)]
        for run in active:
            if st.button(f"Cancel run {run.id}"):
                perform(runs.cancel, session, run.id)


def schedule() -> None:
    """When the trainer starts runs automatically; stored with the study."""
    session, me = current()
    stored = runs.schedule(session)
    with st.expander("Schedule of automatic runs"):
        if st.session_state.pop("schedule-saved", False):
            st.success("Saved. The trainer reads the schedule before every run.")
        with st.form("schedule", border=False):
            automatic = st.checkbox(
                "Refit automatically",
                stored.automatic,
                help="When this is off, only the buttons above start a run, and a champion that you choose stays until "
                "then.",
            )
            left, right = st.columns(2)
            graph = left.number_input("New labels before the graph is refitted", 1, 1_000_000, stored.refit_labels)
            graph_wait = right.number_input(
                "Shortest time since the last run, in seconds",
                0.0,
                2_592_000.0,
                float(stored.refit_seconds),
                step=5.0,
            )
            reward = left.number_input(
                "New labels before the reward model is refitted", 1, 1_000_000, stored.reward_labels
            )
            reward_wait = right.number_input(
                "Shortest time since its last refit, in seconds",
                0.0,
                2_592_000.0,
                float(stored.reward_seconds),
                step=30.0,
            )
            if st.form_submit_button("Save the schedule"):
                save(Schedule(automatic, int(graph), float(graph_wait), int(reward), float(reward_wait)), me.id)
        st.caption(
            "A refit of the graph takes seconds and updates people's embeddings. A refit of the reward model takes "
            "minutes; the graph is refitted meanwhile, and those snapshots share the reward model before. After each "
            "failed run the waiting time doubles."
        )


def save(wanted: Schedule, by: int) -> None:
    session, _ = current()
    try:
        runs.set_schedule(session, wanted, by=by)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.session_state["schedule-saved"] = True
    rerun()


page()
