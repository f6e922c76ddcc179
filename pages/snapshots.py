"""A part of the training page: the snapshots, the choice of the champion, notes, and the comparison of two."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from copl_core.records import CoplError, SnapshotRecord, counted_people
from copl_core.study import runs
from pages.common import NO_GROUP_COLOUR, current, plot_settings
from pages.run_log import TRAINING, clock, perform

FIGURES = {
    "copl": "graph and text",
    "copl-graph": "graph",
    "copl-linear": "own text weights",
    "copl-reward": "experts",
    "global": "shared preference",
}
SHOWN = 200  # snapshots in the table
MARGIN = 0.05  # accuracy above and below the curves


def snapshots() -> None:
    session, _ = current()
    records, champion = runs.snapshots(session), session.record.champion
    if not records:
        st.info("No snapshot yet. The trainer makes the first one as soon as the study has 10 labels.")
        return
    history(records)
    present = runs.on_disk(session)
    st.dataframe(
        [snapshot_row(record, champion, present) for record in records[:SHOWN]], hide_index=True, width="stretch"
    )
    st.caption(
        "Accuracy and log-loss on n labels that no part of the model was fitted to, without ties, with 95% intervals. "
        "They are measured when the reward model is fitted. A snapshot of kind graph uses the reward model of an "
        "earlier full snapshot, which has the figures. “Cut” means that its time was up before its planned steps. "
        "Files of old snapshots are removed; the champion, those with a note, one of each fit of the reward model and "
        f"the newest {runs.KEPT_NEWEST} stay. Write a note to keep one."
    )
    opened = [record for record in records if record.version in present]
    if opened:
        choose_champion(opened, records[0].version, champion)
    notes(records, champion)
    if len(opened) > 1:
        compare(opened, champion)


def history(records: list[SnapshotRecord]) -> None:
    """Held-out accuracy from one fit of the reward model to the next."""
    fitted = [
        record
        for record in reversed(records)
        if record.metrics.get("kind") == "full" and "copl" in (record.metrics.get("held_out") or {})
    ]
    if len(fitted) < 2:
        return
    st.plotly_chart(
        accuracy_chart(fitted),
        width="stretch",
        config=plot_settings(),
        key="history",
        alt="Held-out accuracy by snapshot, with intervals where they were measured",
    )
    st.caption(
        "Accuracy on held-out labels, at each fit of the reward model. The held-out set grows with the study, so small "
        f"steps are mostly chance. Snapshots {fitted[0].version} to {fitted[-1].version}."
    )


def accuracy_chart(fitted: list[SnapshotRecord]) -> go.Figure:
    """Held-out accuracy with intervals, the personal model beside the shared preference."""
    figure = go.Figure()
    for method, colour in (("copl", TRAINING), ("global", NO_GROUP_COLOUR)):
        add_accuracy(figure, fitted, method, colour)
    values = [value for trace in figure.data for value in trace.y]  # a wide range: chance must not look like progress
    figure.update_yaxes(
        tickformat=".0%",
        title="accuracy",
        autorangeoptions={"include": [min(values) - MARGIN, max(values) + MARGIN]},
    )
    figure.update_layout(
        height=230,
        margin={"l": 0, "r": 8, "t": 8, "b": 0},
        legend={"orientation": "h", "y": -0.15, "x": 0, "yanchor": "top"},
    )
    return figure


def add_accuracy(figure: go.Figure, fitted: list[SnapshotRecord], method: str, colour: str) -> None:
    rows = [
        (record.version, record.metrics["held_out"][method])
        for record in fitted
        if method in record.metrics["held_out"]
    ]
    ends = [row.get("accuracy_interval") or [row["accuracy"]] * 2 for _, row in rows]
    figure.add_scatter(
        x=[version for version, _ in rows],
        y=[row["accuracy"] for _, row in rows],
        name=FIGURES[method],
        mode="lines+markers",
        line={"color": colour},
        marker={"size": 9},
        error_y={
            "type": "data",
            "symmetric": False,
            "thickness": 1.5,
            "width": 0,
            "array": [high - row["accuracy"] for (_, row), (_, high) in zip(rows, ends, strict=True)],
            "arrayminus": [row["accuracy"] - low for (_, row), (low, _) in zip(rows, ends, strict=True)],
        },
        hovertemplate="%{x}: %{y:.1%}<extra>" + FIGURES[method] + "</extra>",
    )


def snapshot_row(record: SnapshotRecord, champion: str | None, present: set[str]) -> dict:
    """What tells snapshots apart comes first: a narrow screen cuts the others."""
    held_out = runs.measured_by(record)
    figures = {
        f"{words}: accuracy": with_interval(held_out[name], "accuracy") if name in held_out else ""
        for name, words in FIGURES.items()
    }
    whole, known = f"{FIGURES['copl']}: accuracy", "copl" in held_out
    first = {
        "snapshot": record.version,
        "champion": "yes" if record.version == champion else "",
        "created": clock(record.created_at),
        "kind": record.metrics.get("kind"),
        "labels": f"{record.n_labels:,}",
        whole: figures.pop(whole),
        "log-loss": with_interval(held_out["copl"], "log_loss") if known else "",
        "n": f"{held_out['copl']['n']:,}" if known else "",
        "note": record.note,
        "files": "on disk" if record.version in present else "removed",
    }
    return (
        first
        | figures
        | {
            "reward model of": record.metrics.get("fitted_in") or "",
            "reward steps": steps_in_words(runs.reward_length(record)),
            "seconds": record.metrics.get("seconds"),
            "watermark": record.watermark,
            "data": (record.metrics.get("data") or {}).get("sha256", "")[:12],
        }
    )


def steps_in_words(length: tuple[int, int, bool] | None) -> str:
    """How long the reward model was trained; empty for snapshots without one, and of older versions."""
    return "" if length is None else f"{length[0]} of {length[1]}" + (", cut" if length[2] else "")


def with_interval(figures: dict, name: str) -> str:
    low, high = figures.get(f"{name}_interval") or (None, None)
    return f"{figures[name]:.3f}" + ("" if low is None else f" ({low:.3f}–{high:.3f})")


def choose_champion(records: list[SnapshotRecord], newest: str, champion: str | None) -> None:
    """Make an older snapshot the champion, or a newer one again."""
    session, me = current()
    versions = [record.version for record in records]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Champion: the snapshot that all pages use",
            versions,
            key=f"champion-{champion}",
            index=versions.index(champion) if champion in versions else 0,
        )
        if st.button(f"Make {chosen} the champion", disabled=chosen == champion):
            perform(runs.promote, session, chosen, by=me.id)
    if champion != newest and runs.schedule(session).automatic:
        st.caption(
            "The champion is not the newest snapshot. It stays until enough new labels for a refit have come; switch "
            "“Refit automatically” off in the schedule to keep it after that."
        )


def notes(records: list[SnapshotRecord], champion: str | None) -> None:
    session, me = current()
    with st.expander("Notes"):
        versions = [record.version for record in records]
        version = st.selectbox(
            "Snapshot", versions, index=versions.index(champion) if champion in versions else 0, key="note-of"
        )
        record = records[versions.index(version)]
        text = st.text_area(
            "Note", record.note, key=f"note-{version}", height=80, placeholder="What is special about this snapshot"
        )
        if st.button("Save the note", disabled=text.strip() == record.note):
            perform(runs.write_note, session, version, text, by=me.id)


def compare(records: list[SnapshotRecord], champion: str | None) -> None:
    """The expander that chooses two snapshots; the address carries them."""
    with st.expander(
        "Compare two snapshots", key="compare", on_change="rerun", expanded="first" in st.query_params
    ) as box:
        if not box.open:
            return
        versions = [record.version for record in records]
        newest = versions.index(champion) if champion in versions else 0
        left, right = st.columns(2)
        first = left.selectbox(
            "First", versions, key="first", index=linked("first", versions, min(newest + 1, len(versions) - 1))
        )
        second = right.selectbox("Second", versions, key="second", index=linked("second", versions, newest))
        st.query_params["first"], st.query_params["second"] = first, second
        if first == second:
            st.info("Choose two different snapshots.")
            return
        comparison(first, second)


def linked(name: str, versions: list[str], otherwise: int) -> int:
    wanted = st.query_params.get(name)
    return versions.index(wanted) if wanted in versions else otherwise


def comparison(first: str, second: str) -> None:
    """Groups, scores, figures and settings of two snapshots."""
    session, _ = current()
    try:
        found = runs.compare(session, first, second)
    except CoplError as problem:
        st.error(str(problem))
        return
    st.markdown(
        f"{found.n_regrouped:,} of {counted_people(found.n_users)} changed their group from {first} to {second}. "
        + (
            f"Their predictions correlate by {found.correlation:.3f}, and they predict the same preferred answer in "
            f"{found.same_sign:.1%} of {found.n_predictions:,} cases."
            if found.correlation is not None
            else "They have no people and pairs in common, so their predictions cannot be compared."
        )
    )
    figures, settings = st.columns(2, gap="medium")
    with figures:
        st.dataframe(
            [row for row in found.figures if is_number(row[first]) or is_number(row[second])],
            hide_index=True,
            width="stretch",
        )
    with settings:
        if found.settings is None:
            st.write("One of the two was made before settings were stored with a snapshot.")
        elif found.settings:
            st.dataframe(
                [{"setting": name, first: str(a), second: str(b)} for name, a, b in found.settings],
                hide_index=True,
                width="stretch",
            )
        else:
            st.write("Every setting is the same, and so is the data.")
    st.caption(
        "Left: the figures. Right: the settings that differ. Predictions are log-odds by the preference graph, for "
        "people and pairs that both snapshots know. A group keeps its number where most of its people stay, so a "
        f"changed number means a changed group. Snapshots {first} and {second}."
    )


def is_number(value: object) -> bool:
    return isinstance(value, int | float)
