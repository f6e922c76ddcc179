"""What the trainer does, what it made, and which snapshot the pages use."""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from copl_core.records import CoplError, Run, RunState, SnapshotRecord
from pages.parts import here

FIGURES = {"copl": "graph and text", "copl-graph": "graph", "copl-reward": "text reward"}


def page() -> None:
    st.title("Training")
    now()
    ask()
    st.subheader("Snapshots")
    snapshots()
    st.subheader("Runs")
    runs()


@st.fragment(run_every=1)
def now() -> None:
    """The trainer at this moment; the whole page is drawn again when the champion moves."""
    study, _ = here()
    status, champion = study.trainer(), study.record.champion
    if st.session_state.setdefault("seen champion", champion) != champion:
        st.session_state["seen champion"] = champion
        st.rerun()
    if not status.alive:
        st.warning("No trainer is running, so labels are kept but nothing is learned. Start one in a terminal with "
                   "`python -m copl_core worker` (`make run` does it for you).")
    elif status.run is None:
        st.write(f"The trainer is waiting: {status.labels_since} of {status.labels_needed} new labels for the next "
                 "refit.")
    if status.run is not None:
        progress(status.run)


def progress(run: Run) -> None:
    done = run.step / run.steps if run.steps else 0.0
    loss = "" if run.loss is None else f", loss {run.loss:.3f}"
    left = "" if run.seconds_left is None else f", about {run.seconds_left:.0f} s left in this phase"
    where = f"Run {run.id} ({run.kind}): {run.phase}, step {run.step} of {run.steps}"
    st.progress(min(1.0, done), text=f"{where}{loss}{left}")


def ask() -> None:
    study, _ = here()
    with st.container(horizontal=True):
        for kind, text in (("graph", "Refit the graph now"), ("full", "Refit graph and reward model now")):
            if st.button(text):
                attempt(study.request_fit, kind)
        active = [run for run in study.runs() if run.state in (RunState.QUEUED, RunState.RUNNING)]
        if active and st.button(f"Cancel run {active[0].id}"):
            attempt(study.cancel, active[0].id)


def attempt(verb, *arguments, **named) -> None:
    try:
        verb(*arguments, **named)
    except CoplError as problem:
        st.error(str(problem))
    else:
        st.rerun()


def snapshots() -> None:
    study, me = here()
    records, champion = study.snapshots(), study.record.champion
    if not records:
        st.info("No snapshot yet. The trainer makes the first one as soon as the study holds 10 labels.")
        return
    st.dataframe([snapshot_row(record, champion) for record in records], hide_index=True, width="stretch")
    st.caption("Accuracy and log-loss are on labels that were kept from both parts (n of them), with ties left out. "
               "They are measured when the reward model is fitted; a snapshot of kind graph shares the reward model of "
               "the full one before it and repeats its figures.")
    versions = [record.version for record in records]
    chosen = st.selectbox("Champion: the snapshot that all pages use", versions,
                          index=versions.index(champion) if champion in versions else 0)
    if chosen != champion and st.button(f"Make {chosen} the champion"):
        attempt(study.promote, chosen, by=me.id)


def snapshot_row(record: SnapshotRecord, champion: str | None) -> dict:
    row = {"snapshot": record.version, "champion": "yes" if record.version == champion else "",
           "labels": record.n_labels, "made": clock(record.created_at), "seconds": record.metrics.get("seconds"),
           "kind": record.metrics.get("kind")}
    held_out = record.metrics.get("held_out", {})
    for name, words in FIGURES.items():
        if name in held_out:
            row[f"{words}: accuracy"] = round(held_out[name]["accuracy"], 3)
            row[f"{words}: log-loss"] = round(held_out[name]["log_loss"], 3)
            row["n"] = held_out[name]["n"]
    return row


def runs() -> None:
    study, _ = here()
    listed = study.runs()
    if not listed:
        st.info("No run yet.")
        return
    st.dataframe([{"run": run.id, "kind": run.kind, "state": str(run.state), "why": run.reason,
                   "snapshot": run.snapshot, "began": clock(run.started_at), "ended": clock(run.ended_at),
                   "message": run.message + (f" (again after run {run.retry_of})" if run.retry_of else "")}
                  for run in listed], hide_index=True, width="stretch")


def clock(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%d %b %H:%M:%S")


page()
