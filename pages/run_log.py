"""A part of the training page: the list of runs, and one run's curves, data, settings and log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Run, RunState, counted_people
from copl_core.study import runs
from pages.common import current, is_id, plot_settings, rerun

TRAINING, VALIDATION = "#0072B2", "#E69F00"
TAIL = 14  # last lines of the log shown
FEWEST = 4  # points; fewer are not drawn as a curve


def run_list() -> None:
    session, _ = current()
    listed = runs.list_runs(session)
    if not listed:
        came = session.record.champion is not None  # nobody has run anything, and there is a snapshot
        st.info("No run yet." + " The first snapshot came with the demo." * came)
        return
    st.dataframe([run_row(run) for run in listed], hide_index=True, width="stretch", placeholder="")
    ids = [run.id for run in listed]
    linked = st.query_params.get("run", "")
    index = ids.index(int(linked)) if is_id(linked) and int(linked) in ids else 0
    key = f"run-after-{ids[0]}"  # a new key for each newest run, so that the newest is shown until another is chosen

    def choose() -> None:
        st.query_params["run"] = str(st.session_state[key])

    chosen = st.selectbox(
        "Show a run",
        ids,
        index=index,
        key=key,
        on_change=choose,
        format_func=lambda one: f"Run {one}",  # the list names its state: the browser keeps the words of a choice
    )
    run = listed[ids.index(chosen)]
    if run.state in (RunState.QUEUED, RunState.RUNNING):
        live(run.id, run.state)
    else:
        details(run)


def run_row(run: Run) -> dict:
    data = run.config.get("data") or {}
    return {
        "run": run.id,
        "kind": run.kind,
        "state": str(run.state),
        "reason": run.reason,
        "snapshot": run.snapshot,
        "labels": f"{data['labels']:,}" if data else "",
        "started": clock(run.started_at),
        "duration": seconds(run),
        "message": run.message + (f" (retry of run {run.retry_of})" if run.retry_of else ""),
    }


def seconds(run: Run) -> str:
    if run.started_at is None or run.ended_at is None:
        return ""
    return f"{(run.ended_at - run.started_at).total_seconds():.0f} s"


@st.fragment(run_every=2)
def live(run_id: int, seen: RunState) -> None:
    """A queued or running run; the whole page reruns when the run starts and when it ends."""
    session, _ = current()
    run = next((run for run in runs.list_runs(session) if run.id == run_id), None)
    if run is None or run.state != seen:
        rerun()
    details(run)


def details(run: Run) -> None:
    session, _ = current()
    if run.state == RunState.FAILED:
        st.error(f"Run {run.id} failed: {run.message} The champion is unchanged.")
    elif run.state in (RunState.CANCELLED, RunState.INTERRUPTED):
        st.warning(f"Run {run.id} was {run.state}. {run.message} The champion is unchanged.")
    elif run.message:
        st.warning(f"Run {run.id}: {run.message}")
    loss_curves(run, runs.curves(session, run))
    facts(run)
    log(run, runs.run_log(session, run.id))


def loss_curves(run: Run, curves: Mapping) -> None:
    """Loss by step, one figure per phase."""
    shown = [
        (phase, curve) for phase, curve in curves.items() if max(map(n_steps, (curve.loss, curve.held_out))) >= FEWEST
    ]
    if not shown:
        return
    for start in range(0, len(shown), 2):
        for column, (phase, curve) in zip(st.columns(2, gap="medium"), shown[start : start + 2], strict=False):
            column.plotly_chart(
                picture(phase, curve),
                width="stretch",
                config=plot_settings(),
                key=f"curve-{run.id}-{phase}",
                alt=f"Loss by step, phase {phase}",
            )
    st.caption(
        "The part of the loss that comes from labels (log-loss), without the priors: blue on training labels, orange "
        "on validation labels, which decide when to stop. Blue may rise: each step reads other labels than the one "
        "before; once validation gets worse, the graph goes back to its best state and goes on with stronger priors, "
        "which fit the labels less; and each phase, each member of the graph’s ensemble and each run with new labels "
        "starts over. Choosing priors shows the lowest loss so far, after each try. A low blue line says nothing about "
        f"new answers. Run {run.id}" + (f", snapshot {run.snapshot}." if run.snapshot else ".")
    )


def n_steps(points: list) -> int:
    """Distinct steps; a phase that reports one step again and again has no curve."""
    return len({step for step, _ in points})


def picture(phase: str, curve) -> go.Figure:
    figure = go.Figure()
    for points, name, colour in ((curve.loss, "training", TRAINING), (curve.held_out, "validation", VALIDATION)):
        if points:
            points = with_gaps(points)
            figure.add_scatter(
                x=[step for step, _ in points],
                y=[value for _, value in points],
                name=name,
                mode="lines",
                line={"color": colour, "width": 2},
                hovertemplate="step %{x}: %{y:.4f}<extra>" + name + "</extra>",
            )
    figure.update_layout(
        height=240,
        margin={"l": 0, "r": 8, "t": 34, "b": 0},
        title={"text": phase.capitalize()},
        showlegend=bool(curve.loss and curve.held_out),
        legend={"orientation": "h", "y": -0.2, "x": 1.0, "xanchor": "right", "yanchor": "top"},
    )
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(title="loss", zeroline=False)
    return figure


def with_gaps(points: list) -> list[tuple]:
    """The points with a gap between ensemble members, so that no line connects one member's curve to the next."""
    steps = [after - before for (before, _), (after, _) in zip(points, points[1:], strict=False)]
    steps = sorted(step for step in steps if step > 0)  # a slow step is logged several times
    usual = steps[len(steps) // 2] if steps else 0
    found: list[tuple] = []
    for point in points:
        if found and point[0] - found[-1][0] > 4 * usual:
            found.append((point[0], None))
        found.append(tuple(point))
    return found


def facts(run: Run) -> None:
    """The data and the settings of the run."""
    data = run.config.get("data")
    if not data:
        return
    st.markdown(
        f"Learned from {data['labels']:,} labels ({data['decided']:,} decided) of {counted_people(data['people'])} on "
        f"{data['responses']:,} responses, up to watermark {data['watermark']:,}; SHA-256 of the data "
        f"`{data['sha256'][:16]}`. Settings: "
        + "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings_of(run).items())
        + "."
    )


def settings_of(run: Run) -> dict:
    """The settings that the run has read; a graph alone reads none of a reward model."""
    settings = dict(run.config.get("settings") or {})
    if run.kind == "graph":
        return {name: settings[name] for name in ("device", "seed") if name in settings}
    if settings.get("reward_steps") == 0:
        settings["reward_steps"] = "as many as the labels need"
    return settings


def log(run: Run, lines: list[str]) -> None:
    if not lines:
        st.caption("This machine has no log of this run.")
        return
    st.code("\n".join(lines[-TAIL:]), language=None)
    st.download_button(
        "Download the log",
        "\n".join(lines) + "\n",
        f"run-{run.id}.log",
        "text/plain",
        key=f"log-{run.id}",
        on_click="ignore",
    )


def perform(verb, *arguments, **named) -> None:
    """Call a verb of the study and rerun the page, or show the error."""
    try:
        verb(*arguments, **named)
    except CoplError as problem:
        st.error(str(problem))
    else:
        rerun()


def clock(moment: datetime | None) -> str:
    if moment is None:
        return ""
    at = moment.astimezone()
    return f"{at.day} {at:%b %H:%M:%S}"
