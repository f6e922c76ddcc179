"""A part of the people page: the people selected on the map, their labels, and the address that stores them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from copl_core.records import Kind, counted, counted_people
from copl_core.study import group_profiles, user_map
from copl_core.study.group_profiles import SetProfile
from copl_core.study.user_map import UserMap
from pages.common import current, download, group_name, is_id, person_name, resend_values
from pages.people_map import COLOURS, ids_of

OLD_COLOURS = {"foreseen": "predicted", "taste": "true_group"}  # values in older links
MOST_IN_LINK = 300  # people; the length of an address is limited
MOST_SHOWN = 200  # labels in the table
MOST_READ = 5_000  # labels; beyond this only the export reads them


# ---- the link


def read_link(versions: Sequence[str], champion: str) -> None:
    """Read the state of the page from the address, once per session."""
    if st.session_state.get("link read"):
        resend_values("colour", "snapshot", "found", "other", "dimensions")
        return
    st.session_state["link read"] = True
    query = st.query_params
    st.session_state["linked people"] = [int(part) for part in query.get("people", "").split(",") if is_id(part)]
    colour = OLD_COLOURS.get(query.get("colour"), query.get("colour"))
    if colour in COLOURS:
        st.session_state.setdefault("colour", colour)
    if query.get("snapshot") in versions:
        st.session_state.setdefault("snapshot", query["snapshot"])
    for name, key in (("person", "found"), ("with", "other")):
        if is_id(query.get(name, "")):
            st.session_state.setdefault(key, int(query[name]))


def write_link(versions: Sequence[str], champion: str, people: Sequence[int]) -> None:
    """Write the state of the page into the address, without default values."""
    state, fits = st.session_state, len(people) <= MOST_IN_LINK
    wanted = {
        "people": ",".join(map(str, people)) if fits else "",
        "colour": "" if state.get("colour", "group") == "group" else state["colour"],
        "snapshot": "" if state.get("snapshot", champion) == champion else state["snapshot"],
        "person": str(state.get("found") or ""),
        "with": str(state.get("other") or ""),
    }
    for name, value in wanted.items():
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
        elif not value and name in st.query_params:
            del st.query_params[name]


# ---- the selection


def chosen_people(view: UserMap) -> list[int]:
    """Draw the selected people and their labels; returns their user ids."""
    key = f"map-{st.session_state.get('map-round', 0)}"
    ids = ids_of(st.session_state.get(key))
    if ids:
        st.session_state["selected on map"] = True
    elif st.session_state.pop("selected on map", False):  # the selection was cleared on the map
        st.session_state["linked people"] = []
    else:
        ids = st.session_state.get("linked people", [])
    rows = view.rows(ids)
    if not len(rows):
        return []
    ids = view.ids[rows].tolist()
    n_labels = int(view.n_labels[rows].sum())
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"{len(ids):,} {'people' if len(ids) != 1 else 'person'} selected", anchor=False)
        st.button("Clear the selection", key="forget", on_click=forget)
    shares = [
        f"{int((view.group[rows] == group).sum())} in **{group_name(group)}**"
        for group in view.groups
        if (view.group[rows] == group).any()
    ]
    none = int((view.group[rows] < 0).sum())
    st.write(
        ", ".join(shares + [f"{none} without a group"] * (none > 0))
        + ". The address of this page includes the selection." * (len(ids) <= MOST_IN_LINK)
        + f". They are too many for the address, which includes at most {MOST_IN_LINK}." * (len(ids) > MOST_IN_LINK)
    )
    preferences(ids, view.snapshot)
    rows = rows[np.lexsort((np.char.lower(view.names[rows]), -view.n_labels[rows]))]
    st.dataframe(table(view, rows), hide_index=True, width="stretch", key="chosen", alt="Selected people")
    labels(ids, n_labels)
    return ids


def preferences(ids: list[int], version: str) -> None:
    """What the selected people have in common against all others, in a sentence with its numbers."""
    session, _ = current()
    with st.spinner("Comparing them with the others"):
        found = group_profiles.preferences_of(session, ids, version)
    if found is not None:
        st.markdown(in_words(found))


def in_words(found: SetProfile) -> str:
    if not found.compared:
        return (
            f"**What they prefer:** the selection has {counted_people(found.people)} with labels in the snapshot and "
            f"leaves {found.others:,} others; to compare them, each side needs three or more."
        )
    by_labels, known = found.label_statements, {one.feature for one in found.label_statements}
    expected = [one for one in found.model_statements if one.feature not in known]
    base = f"{found.n_labels:,} decided labels of {counted_people(found.people)} against {found.others:,} others"
    if by_labels:
        text = f"**What they prefer:** {sized(by_labels)}, more than the others do (by {base})"
        return text + (f". The model also expects {sized(expected)}." if expected else ".")
    if expected:
        return (
            f"**What they prefer:** the model expects {sized(expected)}, more than the others do; their labels alone "
            f"do not show it with certainty ({base})."
        )
    return f"**What they prefer:** nothing measured distinguishes them with certainty ({base})."


def sized(statements: tuple) -> str:
    """Features in words, each with its effect and 95% interval in typical differences between two answers."""
    return ", ".join(
        f"**{one.words}** (+{abs(one.effect):.2f}, "
        f"{min(abs(one.low), abs(one.high)):.2f} to {max(abs(one.low), abs(one.high)):.2f})"
        for one in statements
    )


def forget() -> None:
    st.session_state["map-round"] = st.session_state.get("map-round", 0) + 1
    st.session_state["linked people"] = []
    st.session_state.pop("selected on map", None)


def table(view: UserMap, rows: Sequence[int]) -> dict:
    return {
        "person": view.names[rows],
        "kind": [Kind(one).mark or "human" for one in view.kinds[rows].tolist()],
        "group": [group_name(None if group < 0 else group) for group in view.group[rows].tolist()],
        "labels": view.n_labels[rows],
    }


def labels(ids: list[int], n_labels: int) -> None:
    """The labels of these people in a table, and as files to download."""
    session, _ = current()
    if n_labels <= MOST_READ:
        every = user_map.labels_of_users(session, ids)
        st.markdown(
            f"**Their {counted(len(every), 'label')}**"
            + (f", the newest {MOST_SHOWN}" if len(every) > MOST_SHOWN else "")
        )
        if every:
            st.dataframe(
                [row_of(label) for label in every[-MOST_SHOWN:][::-1]],
                hide_index=True,
                width="stretch",
                key="their-labels",
                alt="Labels of the selected people",
            )
    else:
        st.markdown(f"**About {n_labels:,} labels**, too many to list here; the files contain all of them.")
    with st.container(horizontal=True):
        for name, kind in (("CSV", "text/csv"), ("Parquet", "application/vnd.apache.parquet")):
            st.download_button(
                f"Their labels as {name}",
                download(lambda session, _, name=name: user_map.labels_file(session, ids, name)),
                f"labels.{name.lower()}",
                kind,
                key=f"export-{name}",
                on_click="ignore",
                help="One row per label, with the names of people, texts, reasons and times.",
            )


def row_of(label: dict) -> dict:
    preferred = {"a": label["response_a"], "b": label["response_b"]}.get(label["choice"])
    return {
        "person": person_name(label["annotator"], Kind(label["kind"])),
        "question": label["prompt"],
        "preferred": preferred or {"tie": "a tie", "both_bad": "both bad"}.get(label["choice"], label["choice"]),
        "rejected": {"a": label["response_b"], "b": label["response_a"]}.get(label["choice"], ""),
        "time": label["time"],
    }
