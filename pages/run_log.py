"""A part of the training page: the runs, and of one of them its curves, its data, its settings and its log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, Run, RunState
from copl_core.study import runs
from pages.common import PLOT, again, here

LEARNED, KEPT = "#0072B2", "#E69F00"
TAIL = 14  # lines of the log that are shown
FEWEST = 4  # points that make a curve


def the_runs() -> None:
    session, _ = here()
    listed = runs.list_runs(session)
    if not listed:
        st.info("No run yet.")
        return
    st.dataframe([run_row(run) for run in listed], hide_index=True, width="stretch", placeholder="")
    ids = [run.id for run in listed]
    asked_for = st.query_params.get("run", "")
    index = ids.index(int(asked_for)) if asked_for.isdigit() and int(asked_for) in ids else 0
    key = f"run-after-{ids[0]}"  # of its own for each newest run, which is looked into until another is chosen

    def choose() -> None:
        st.query_params["run"] = str(st.session_state[key])

    chosen = st.selectbox(
        "Look into a run",
        ids,
        index=index,
        key=key,
        on_change=choose,
        format_func=lambda one: f"Run {one}, {listed[ids.index(one)].state}",
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
        "why": run.reason,
        "snapshot": run.snapshot,
        "labels": f"{data['labels']:,}" if data else "",
        "began": clock(run.started_at),
        "took": seconds(run),
        "message": run.message + (f" (again after run {run.retry_of})" if run.retry_of else ""),
    }


def seconds(run: Run) -> str:
    if run.started_at is None or run.ended_at is None:
        return ""
    return f"{(run.ended_at - run.started_at).total_seconds():.0f} s"


@st.fragment(run_every=2)
def live(run_id: int, seen: RunState) -> None:
    """A run that waits or runs; when it begins and when it ends, the whole page is drawn again."""
    session, _ = here()
    run = next(run for run in runs.list_runs(session) if run.id == run_id)
    if run.state != seen:
        again()
    details(run)


def details(run: Run) -> None:
    session, _ = here()
    if run.state == RunState.FAILED:
        st.error(f"Run {run.id} failed: {run.message} The champion was left alone.")
    elif run.state in (RunState.CANCELLED, RunState.INTERRUPTED):
        st.warning(f"Run {run.id} was {run.state}. {run.message} The champion was left alone.")
    drawn(run, runs.curves(session, run))
    facts(run)
    log(run, runs.run_log(session, run.id))


def drawn(run: Run, curves: Mapping) -> None:
    """Loss by step, a picture a phase."""
    shown = [(phase, curve) for phase, curve in curves.items() if max(len(curve.loss), len(curve.held_out)) >= FEWEST]
    if not shown:
        return
    for start in range(0, len(shown), 2):
        for column, (phase, curve) in zip(st.columns(2, gap="medium"), shown[start : start + 2], strict=False):
            column.plotly_chart(
                picture(phase, curve),
                width="stretch",
                config=PLOT,
                key=f"curve-{run.id}-{phase}",
                alt=f"Loss by step while {phase}",
            )
    st.caption(
        "Loss by step: blue on labels that are learned from, orange on labels kept aside, which decide when "
        "to stop. The graph is fitted several times, one member after the other, hence the jumps. A low blue "
        f"line alone says nothing of new answers. Run {run.id}"
        + (f", snapshot {run.snapshot}." if run.snapshot else ".")
    )


def picture(phase: str, curve) -> go.Figure:
    figure = go.Figure()
    for points, name, colour in ((curve.loss, "learned from", LEARNED), (curve.held_out, "kept aside", KEPT)):
        if points:
            points = apart(points)
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


def apart(points: list) -> list[tuple]:
    """The points with a gap where one member of the graph ends and the next begins, so that no line joins them."""
    steps = sorted(after - before for (before, _), (after, _) in zip(points, points[1:], strict=False))
    usual = steps[len(steps) // 2] if steps else 0
    found: list[tuple] = []
    for point in points:
        if found and point[0] - found[-1][0] > 4 * usual:
            found.append((point[0], None))
        found.append(tuple(point))
    return found


def facts(run: Run) -> None:
    """What it learned from and what it was told."""
    data, settings = run.config.get("data"), run.config.get("settings")
    if not data:
        return
    st.markdown(
        f"Learned from {data['labels']:,} labels ({data['decided']:,} decided) of {data['people']:,} people on "
        f"{data['responses']:,} responses, up to watermark {data['watermark']:,}; SHA-256 of the data "
        f"`{data['sha256'][:16]}`. "
        + "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in (settings or {}).items())
        + "."
    )


def log(run: Run, lines: list[str]) -> None:
    if not lines:
        st.caption("No log of this run is kept on this machine.")
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


def attempt(verb, *arguments, **named) -> None:
    """Ask for something and draw the page again, or say why not."""
    try:
        verb(*arguments, **named)
    except CoplError as problem:
        st.error(str(problem))
    else:
        again()


def clock(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%d %b %H:%M:%S")
