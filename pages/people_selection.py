"""A part of the people page: the people that were selected on the map, their labels, and the link that carries them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial

import streamlit as st

from copl_core.study import user_map
from copl_core.study.user_map import PeopleMap
from pages.common import group_name, here, tell_again
from pages.people_map import COLOURS, ids_of

MOST_IN_LINK = 300  # people; an address has its limits
MOST_SHOWN = 200  # labels
MOST_READ = 5_000  # labels read for the preview; beyond, only the export reads them


# ---- the link


def read_link(versions: Sequence[str], champion: str) -> None:
    """Take over what the address says, once a session."""
    if st.session_state.get("link read"):
        tell_again("colour", "snapshot", "found", "other", "dimensions")
        return
    st.session_state["link read"] = True
    said = st.query_params
    st.session_state["linked people"] = [int(part) for part in said.get("people", "").split(",") if is_id(part)]
    if said.get("colour") in COLOURS:
        st.session_state.setdefault("colour", said["colour"])
    if said.get("snapshot") in versions:
        st.session_state.setdefault("snapshot", said["snapshot"])
    for name, key in (("person", "found"), ("with", "other")):
        if is_id(said.get(name, "")):
            st.session_state.setdefault(key, int(said[name]))


def is_id(text: str) -> bool:
    return text.isdecimal() and len(text) < 16


def write_link(versions: Sequence[str], champion: str, people: Sequence[int]) -> None:
    """Let the address say what is on screen, and nothing that is so anyway."""
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


def chosen_people(view: PeopleMap) -> list[int]:
    """Draws the selected people and their labels; the ids that are selected."""
    key = f"map-{st.session_state.get('map-round', 0)}"
    ids = ids_of(st.session_state.get(key))
    if ids:
        st.session_state["drawn around"] = True
    elif st.session_state.pop("drawn around", False):  # a selection that was there was taken back on the map
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
        st.button("Forget the selection", key="forget", on_click=forget)
    shares = [
        f"{int((view.group[rows] == group).sum())} in {group_name(group)}"
        for group in view.groups
        if (view.group[rows] == group).any()
    ]
    none = int((view.group[rows] < 0).sum())
    st.write(
        ", ".join(shares + [f"{none} without a group"] * (none > 0))
        + ". The address of this page carries them." * (len(ids) <= MOST_IN_LINK)
        + f" They are too many for a link, which carries {MOST_IN_LINK} at most." * (len(ids) > MOST_IN_LINK)
    )
    st.dataframe(table(view, rows), hide_index=True, width="stretch", key="chosen", alt="Selected people")
    labels(ids, n_labels)
    return ids


def forget() -> None:
    st.session_state["map-round"] = st.session_state.get("map-round", 0) + 1
    st.session_state["linked people"] = []
    st.session_state.pop("drawn around", None)


def table(view: PeopleMap, rows: Sequence[int]) -> dict:
    return {
        "person": view.names[rows],
        "kind": ["simulated" if one else "human" for one in view.simulated[rows].tolist()],
        "group": [group_name(None if group < 0 else group) for group in view.group[rows].tolist()],
        "labels": view.n_labels[rows],
    }


def labels(ids: list[int], n_labels: int) -> None:
    """Their labels as rows, and as files."""
    session, _ = here()
    if n_labels <= MOST_READ:
        every = user_map.labels_of_users(session, ids)
        st.markdown(
            f"**Their {len(every):,} labels**" + (f", the newest {MOST_SHOWN}" if len(every) > MOST_SHOWN else "")
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
        st.markdown(f"**About {n_labels:,} labels**, too many to list here; the files hold them all.")
    with st.container(horizontal=True):
        for name, kind in (("CSV", "text/csv"), ("Parquet", "application/vnd.apache.parquet")):
            st.download_button(
                f"Their labels as {name}",
                partial(exported, session, tuple(ids), name),
                f"labels.{name.lower()}",
                kind,
                key=f"export-{name}",
                on_click="ignore",
            )


def row_of(label: dict) -> dict:
    preferred = {"a": label["response_a"], "b": label["response_b"]}.get(label["choice"])
    kind = " (simulated)" if label["kind"] == "simulated" else ""
    return {
        "person": label["annotator"] + kind,
        "question": label["prompt"],
        "preferred": preferred or {"tie": "a tie", "both_bad": "both bad"}.get(label["choice"], label["choice"]),
        "rejected": {"a": label["response_b"], "b": label["response_a"]}.get(label["choice"], ""),
        "time": label["time"],
    }


def exported(session, ids: tuple[int, ...], form: str) -> bytes:
    """A file of all their labels, one row a label, in the columns of the study's export."""
    rows = user_map.labels_of_users(session, ids)
    if form == "CSV":
        out = io.StringIO()
        table = csv.writer(out, lineterminator="\n")
        table.writerow(rows[0] if rows else ())
        table.writerows((row | {"tags": ", ".join(row["tags"])}).values() for row in rows)
        return out.getvalue().encode()
    import pandas as pd  # here, since it takes half a second to import and the page is drawn without

    return pd.DataFrame(rows).to_parquet(index=False)
