"""The map of users: who answers like whom, snapshot by snapshot, and the rows behind every dot."""

from __future__ import annotations

import numpy as np
import streamlit as st

from copl_core.records import CoplError
from copl_core.study import access, runs, user_map
from copl_core.study.user_map import PeopleMap
from pages.common import PLOT, again, group_name, here, newer_snapshot, no_snapshot, source_line
from pages.people_groups import groups
from pages.people_map import COLOURS, EXPLAINED, Colouring, colouring, ids_of, picture
from pages.people_pairs import persons
from pages.people_selection import chosen_people, read_link, write_link

MOST_SNAPSHOTS = 30  # on the slider, the newest
BEAT = 1.5  # seconds a snapshot is shown while they are played


def page() -> None:
    session, me = here()
    st.title("People")
    champion = session.record.champion
    if champion is None:
        no_snapshot("The map of people")
    versions = [record.version for record in runs.snapshots(session)][:MOST_SNAPSHOTS][::-1]
    read_link(versions, champion)
    version = wanted(versions, champion)
    try:
        view = user_map.map_of_users(session, me.id, version)
    except CoplError as problem:
        st.error(str(problem))
        slider(versions)
        return
    extent = session.once("extent of maps", tuple(versions), lambda: user_map.map_extent(session, versions))
    st.write(sentence(view, champion))
    the_map(view, extent)
    controls(view, versions)
    picked = chosen_people(view)
    write_link(versions, champion, picked)
    st.subheader("The groups")
    groups(view)
    st.subheader("One person, and two")
    persons(view)
    st.subheader("About this map")
    about(view)
    newer_snapshot(champion)


# ---- the answer first


def sentence(view: PeopleMap, champion: str) -> str:
    """Where the viewer is."""
    many = f"{len(view.groups)} groups of people who answer alike" if len(view.groups) > 1 else "one group so far"
    seen = f"The model sees {many}." if view.snapshot == champion else f"In snapshot {view.snapshot} there were {many}."
    if view.me is None or view.n_labels[view.me] == 0:
        return f"{seen} Label some pairs, and you appear among them at once."
    if view.group[view.me] < 0:
        return f"{seen} Nobody has labelled the responses you labelled, so you have no place yet."
    group, n = int(view.group[view.me]), int(view.n_labels[view.me])
    others = int((view.group == group).sum()) - 1
    stand = f"By your {n} label{'s' * (n != 1)} you stand in **{group_name(group)}**, with {others:,} others"
    if view.my_source == "trained" or not view.my_share:
        return f"{seen} {stand}."
    return (
        f"{seen} {stand}; of the {view.my_neighbours:,} people who judged some of the same answers, those who "
        f"explain your labels best stand there by {view.my_share:.0%} of their weight."
    )


# ---- the map


def the_map(view: PeopleMap, extent: np.ndarray | None) -> None:
    session, _ = here()
    deep = st.session_state.get("dimensions") == "3-D" and view.xyz is not None
    by = st.session_state.get("colour", "group")
    colour = colours(view, by)
    found = st.session_state.get("found")
    row = None if found is None else next(iter(view.rows([found]).tolist()), None)
    linked = st.session_state.get("linked people", []) if not picked_on_map() else []
    figure = picture(view, colour, deep=deep, extent=extent, chosen=linked, found=row)
    if deep:
        st.plotly_chart(figure, width="stretch", config=PLOT, key="map-deep", alt="Map of users in three dimensions")
    else:
        st.plotly_chart(
            figure,
            width="stretch",
            config=PLOT | {"scrollZoom": True},
            key=map_key(),
            on_select="rerun",
            selection_mode=("points", "box", "lasso"),
            alt="Map of users",
        )
    source_line(
        "Each dot is a person, near those who answer alike; filled dots are humans, open ones simulated"
        + ("" if deep else ", grey ones below have no labels")
        + f". {EXPLAINED[colour.by]} Distances between "
        "islands, their sizes and the directions mean nothing. Click a name in the legend to hide it, "
        "double-click to see it alone; "
        + ("drag to turn the map." if deep else "drag around people to list them below."),
        f"{view.snapshot}, {view.total_labels:,} labels",
    )


def map_key() -> str:
    """A new key forgets what is selected."""
    return f"map-{st.session_state.get('map-round', 0)}"


def picked_on_map() -> list[int]:
    return ids_of(st.session_state.get(map_key()))


def colours(view: PeopleMap, by: str) -> Colouring:
    """The colouring that is asked for; that by group, and a sentence, where the study has nothing of the kind."""
    session, _ = here()
    try:
        with st.spinner("Reading what to colour by"):
            found = colouring(session, view, by)
    except CoplError as problem:
        st.warning(str(problem))
        found = None
    if found is None:
        missing = {
            "expert": "This snapshot has no reward model, so there are no experts to colour by",
            "consistency": "No pair has come to anybody a second time yet",
            "foreseen": "No answer to a pair drawn by chance was foretold yet",
            "taste": "There is no simulated person whose taste is known",
        }
        st.info(f"{missing.get(by, 'There is nothing of the kind')}; the map is coloured by group.")
        found = colouring(session, view, "group")
    return found


def controls(view: PeopleMap, versions: list[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Colour by", list(COLOURS), format_func=COLOURS.get, key="colour", width=260)
        st.session_state.setdefault("dimensions", "2-D")
        st.segmented_control("Dimensions", ["2-D", "3-D"], key="dimensions", required=True)
    if view.xyz is None and st.session_state.get("dimensions") == "3-D":
        st.info("This snapshot was made before maps had a third dimension, so it is shown flat; the next one has it.")
    slider(versions)


# ---- snapshots


def wanted(versions: list[str], champion: str) -> str:
    """The snapshot to show: the one on the slider, else the champion, which moves on by itself."""
    if "step to" in st.session_state:
        st.session_state["snapshot"] = st.session_state.pop("step to")
    if st.session_state.get("snapshot") not in versions:
        st.session_state.pop("snapshot", None)
    elif (
        st.session_state.get("champion seen") not in (None, champion)
        and st.session_state["snapshot"] == st.session_state["champion seen"]
    ):
        st.session_state["snapshot"] = champion  # who looked at the newest goes on looking at the newest
    st.session_state["champion seen"] = champion
    return st.session_state.setdefault("snapshot", champion if champion in versions else versions[-1])


def slider(versions: list[str]) -> None:
    if len(versions) < 2:
        st.caption("This is the first snapshot; once there are more, a slider here plays them.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.select_slider(
            "Snapshot",
            versions,
            key="snapshot",
            width="stretch",
            help="The same people in earlier snapshots, on the same axes. Each map is laid onto the one "
            "before it, so who moves has changed, or has become better known.",
        )
        if st.session_state.get("playing"):
            st.button("Stop", key="stop", on_click=st.session_state.update, args=({"playing": False},))
        else:
            st.button(
                "Play", key="play", on_click=st.session_state.update, args=({"playing": True, "step to": versions[0]},)
            )
    if st.session_state.get("playing"):
        st.session_state["beats"] = 0
        play(versions)


@st.fragment(run_every=BEAT)
def play(versions: list[str]) -> None:
    """Steps to the next snapshot at every beat, and ends at the last one.  Its first run is part of the page's."""
    st.session_state["beats"] = st.session_state.get("beats", 0) + 1
    if st.session_state["beats"] < 2:
        return
    following = versions.index(st.session_state["snapshot"]) + 1
    if following < len(versions):
        st.session_state["step to"] = versions[following]
    else:
        st.session_state["playing"] = False
    again()


# ---- how it was made


def about(view: PeopleMap) -> None:
    session, me = here()
    parameters = view.parameters
    tried = parameters.get("silhouette_by_k", {})
    if np.isfinite(view.silhouette):
        shape = (
            "clearly apart"
            if view.silhouette > 0.5
            else "overlapping at their edges"
            if view.silhouette > 0.25
            else "hardly apart: they are shades of one cloud"
        )
        st.write(
            f"The groups are {shape} (silhouette {view.silhouette:.2f}, from −1 to 1). They come from the "
            f"embeddings, never from the picture: {parameters.get('groups', 'k-means')}."
            + (" Tried: " + ", ".join(f"{k} groups {score:.2f}" for k, score in tried.items()) + "." if tried else "")
        )
    st.caption(
        "Settings of the map: "
        + ", ".join(
            f"{name} {value}" for name, value in parameters.items() if name not in ("groups", "silhouette_by_k")
        )
        + "."
    )
    wanted = st.toggle(
        "Include simulated people",
        value=session.record.include_simulated,
        help="Off, they are in no "
        "picture, and the next snapshot is learned without them. Their labels are kept, so on brings "
        "them back.",
    )
    if wanted != session.record.include_simulated:
        access.include_simulated(session, wanted, by=me.id)
        again()
    with st.expander("Everybody in a table", on_change="rerun", key="everybody") as whole:
        if whole.open:
            st.dataframe(
                {
                    "person": view.names,
                    "simulated": view.simulated,
                    "labels": view.n_labels,
                    "group": [group_name(None if g < 0 else g) for g in view.group.tolist()],
                },
                hide_index=True,
                width="stretch",
            )


page()
