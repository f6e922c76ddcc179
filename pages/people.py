"""People: a map of who answers like whom, snapshot by snapshot, the groups, and the labels behind every point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from copl_core.records import CoplError, Kind, counted
from copl_core.study import access, runs, user_map
from copl_core.study.user_map import MapFrame, UserMap
from pages import scripts
from pages.common import (
    champion_here,
    current,
    group_name,
    group_phrase,
    nearest_group,
    no_snapshot,
    on_touch,
    page_link,
    people_have,
    plot_settings,
    rerun,
    source_line,
    too_few_for_groups,
    watch_champion,
    who_is_simulated,
)
from pages.people_film import can_play, film
from pages.people_groups import groups
from pages.people_map import COLOURS, EXPLAINED, SHOWN_AS, Colouring, colouring, ids_of, picture
from pages.people_pairs import by_name, persons
from pages.people_selection import chosen_people, read_link, write_link

MOST_SNAPSHOTS = 30  # on the slider, the newest


def page() -> None:
    session, me = current()
    st.title("People")
    who_is_simulated()
    champion = session.record.champion
    if champion is None:
        no_snapshot("The map of people")
    champion_here()
    versions = [record.version for record in runs.snapshots(session)][:MOST_SNAPSHOTS][::-1]
    read_link(versions, champion)
    version = wanted(versions, champion)
    try:
        view = user_map.map_of_users(session, me.id, version, wanted_people())
    except CoplError as problem:
        st.error(str(problem))
        slider(versions)
        return
    st.write(sentence(view, champion))
    frame = session.once("frame of maps", tuple(versions), lambda: user_map.map_frame(session, versions))
    if frame is not None:
        view = replace(view, xy=frame.turned(view.xy))
    if view.me is not None and view.n_labels[view.me]:
        page_link("taste", "My taste: what your answers say about you")
    controls(view, versions, frame)
    if frame is not None and st.session_state.get("playing"):
        the_film(view, frame)
    else:
        the_map(view, None if frame is None else frame.extent)
    picked = chosen_people(view)
    write_link(versions, champion, picked)
    st.subheader("The groups")
    groups(view)
    st.subheader("One person, and two")
    persons(view)
    st.subheader("About this map")
    about(view)
    watch_champion(champion)


def wanted_people() -> list[int]:
    """Ids of the people who are chosen on the page or in its address: they are on the map in any case."""
    state = st.session_state
    chosen = [*state.get("linked people", []), state.get("found"), state.get("other"), *picked_on_map()]
    return [one for one in chosen if one is not None]


# ---- the summary


def sentence(view: UserMap, champion: str) -> str:
    """The number of groups, and the viewer's group."""
    many = f"{len(view.groups)} groups of people who answer alike" if len(view.groups) > 1 else "one group"
    one_so_far = " so far" * (len(view.groups) <= 1)
    seen = f"The model sees {many}{one_so_far}."
    if len(view.groups) == 1 and (why := too_few_for_groups(view.sizes[view.groups[0]])):
        seen = why
    if view.snapshot != champion:
        seen = f"The earlier snapshot {view.snapshot} has {many}."
    if view.me is None or view.n_labels[view.me] == 0:
        return f"{seen} Label some pairs, and you appear among them at once."
    if view.group[view.me] < 0:
        return f"{seen} Nobody else has labelled the answers you labelled, so you have no position yet."
    group, n = int(view.group[view.me]), int(view.n_labels[view.me])
    others, labels = view.sizes.get(group, 1) - 1, f"{n} label{'s' * (n != 1)}"
    if len(view.groups) <= 1:
        return f"{seen} There is no other yet that your {labels} could tell you from."
    if not view.my_group_is_clear:
        return f"{seen} Your {labels} do not clearly fit one group yet. {nearest_group(group, view.my_probability)}"
    mine = f"By your {labels} you answer most like {group_phrase(group)}, with {others:,} others"
    if view.my_source == "trained" or not view.my_share:
        return f"{seen} {mine}."
    return (
        f"{seen} {mine}. {people_have(view.my_neighbours)} labelled some of the same answers; weighted by how well "
        f"they explain your labels, {view.my_share:.0%} of them are in this group."
    )


# ---- the map


def the_map(view: UserMap, extent: np.ndarray | None) -> None:
    session, _ = current()
    in_3d = st.session_state.get("dimensions") == "3-D" and view.xyz is not None
    by = st.session_state.get("colour", "group")
    colour = colours(view, by)
    found = st.session_state.get("found")
    row = None if found is None else next(iter(view.rows([found]).tolist()), None)
    linked = st.session_state.get("linked people", []) if not picked_on_map() else []
    touch = on_touch()
    figure = picture(view, colour, in_3d=in_3d, extent=extent, chosen=linked, found=row, touch=touch)
    if in_3d:
        st.plotly_chart(
            figure, width="stretch", config=plot_settings(), key="map-3d", alt="Map of users in three dimensions"
        )
    else:
        st.plotly_chart(
            figure,
            width="stretch",
            config=plot_settings() | {"scrollZoom": True},
            key=map_key(),
            on_select="rerun",
            selection_mode=("points", "box", "lasso"),
            alt="Map of users",
        )
    source_line(
        f"Each point is a person, close to people who answer alike. {drawn(view)}{SHOWN_AS}"
        + ("" if in_3d else ", grey points at the bottom have no labels")
        + f". {EXPLAINED[colour.by]} "
        "Distances between clusters, their sizes and the directions have no meaning. Click a name in the legend to "
        "hide it, double-click to show it alone; "
        + (
            "drag to rotate the map."
            if in_3d
            else "drag to move the map; with the lasso above the map you draw around people, to see what they prefer."
            if touch
            else "drag around people to see what they prefer."
        ),
        f"{view.snapshot}, {counted(view.total_labels, 'label')}",
    )


def drawn(view: UserMap) -> str:
    """That not everybody is drawn, in a sentence; empty where everybody is."""
    if not view.is_sample:
        return ""
    return f"{len(view.ids):,} of the {view.n_users:,} people are drawn, evenly chosen. "


def the_film(view: UserMap, frame: MapFrame) -> None:
    """People moving through the snapshots, instead of the map."""
    st.plotly_chart(
        film(view, frame, touch=on_touch()),
        width="stretch",
        config=plot_settings(),
        key="film",
        alt="Map of users, moving from snapshot to snapshot",
    )
    scripts.run(scripts.AUTOPLAY)
    source_line(
        "Each point is a person on the way through the snapshots; who moves has changed or is better known. Open "
        f"points are simulated people, colours are the groups of {frame.versions[-1]}. Drag the slider to a snapshot; "
        "Stop brings the map back.",
        f"{frame.versions[0]} to {frame.versions[-1]}",
    )


def map_key() -> str:
    """The chart's key; a new key clears the selection."""
    return f"map-{st.session_state.get('map-round', 0)}"


def picked_on_map() -> list[int]:
    return ids_of(st.session_state.get(map_key()))


def colours(view: UserMap, by: str) -> Colouring:
    """The chosen colouring; if the study has no data for it, a sentence and the colouring by group."""
    session, _ = current()
    try:
        with st.spinner("Reading the colours"):
            found = colouring(session, view, by)
    except CoplError as problem:
        st.warning(str(problem))
        found = None
    if found is None:
        missing = {
            "expert": "This snapshot has no reward model, so there are no experts to colour by",
            "consistency": "Nobody has answered a pair a second time yet",
            "predicted": "No answer to a randomly drawn pair has a prediction yet",
            "true_group": "There is no simulated person whose true group is known",
        }
        st.info(f"{missing.get(by, 'There is no data for this colouring')}; the map is coloured by group.")
        found = colouring(session, view, "group")
    return found


def controls(view: UserMap, versions: list[str], frame: MapFrame | None) -> None:
    with st.container(horizontal=True, vertical_alignment="top"):
        st.selectbox("Colour by", list(COLOURS), format_func=COLOURS.get, key="colour", width=220)
        st.session_state.setdefault("dimensions", "2-D")
        st.segmented_control("Dimensions", ["2-D", "3-D"], key="dimensions", required=True)
        slider(versions, frame)
    if view.xyz is None and st.session_state.get("dimensions") == "3-D":
        st.info("This snapshot has no map in three dimensions, so the map is shown in two; the next snapshot has one.")
    if len(versions) < 2:
        st.caption("This is the first snapshot. With more snapshots, a slider here shows how the map changes.")


# ---- snapshots


def wanted(versions: list[str], champion: str) -> str:
    """The snapshot to show: the one on the slider; if that was the champion, the new champion follows it."""
    if st.session_state.get("snapshot") not in versions:
        st.session_state.pop("snapshot", None)
    elif (
        st.session_state.get("champion seen") not in (None, champion)
        and st.session_state["snapshot"] == st.session_state["champion seen"]
    ):
        st.session_state["snapshot"] = champion  # a viewer of the newest snapshot keeps seeing the newest
    st.session_state["champion seen"] = champion
    return st.session_state.setdefault("snapshot", champion if champion in versions else versions[-1])


def slider(versions: list[str], frame: MapFrame | None = None) -> None:
    if len(versions) < 2:
        return
    st.select_slider(
        "Snapshot",
        versions,
        key="snapshot",
        width=280,
        help="The same people in earlier snapshots, on the same axes. Each map is aligned with the one before it, "
        "so people who move have changed or are better known.",
    )
    if frame is None or not can_play(frame):
        st.session_state["playing"] = False
        return
    playing = bool(st.session_state.get("playing"))
    st.button(
        "Stop" if playing else "Play",
        key="stop" if playing else "play",
        on_click=st.session_state.update,
        args=({"playing": not playing},),
    )


# ---- how it was made


def about(view: UserMap) -> None:
    """How clearly the groups are separated, the map's settings, and all people in a table."""
    parameters = view.parameters
    tried = parameters.get("silhouette_by_k", {})
    if np.isfinite(view.silhouette):
        shape = (
            "clearly separated"
            if round(view.silhouette, 2) > 0.5  # as shown
            else "overlapping at their edges"
            if view.silhouette > 0.25
            else "hardly separated: they are parts of one cloud"
        )
        st.write(
            f"The groups are {shape} (silhouette {decimal(view.silhouette)}, from −1 to 1). They come from the "
            f"embeddings, never from the picture: {parameters.get('groups', 'k-means')}."
            + (
                " Tried: " + ", ".join(f"{k} groups {decimal(score)}" for k, score in tried.items()) + "."
                if tried
                else ""
            )
        )
    st.caption(
        "Settings of the map: "
        + ", ".join(
            f"{name} {value}" for name, value in parameters.items() if name not in ("groups", "silhouette_by_k")
        )
        + "."
    )
    simulated_toggle()
    title = "The people drawn in a table" if view.is_sample else "All people in a table"
    with st.expander(title, on_change="rerun", key="everybody") as whole:
        if whole.open:
            order = by_name(view)
            st.dataframe(
                {
                    "person": view.names[order],
                    "kind": [Kind(kind).mark or "human" for kind in view.kinds[order].tolist()],
                    "labels": view.n_labels[order],
                    "group": [group_name(None if g < 0 else g) for g in view.group[order].tolist()],
                },
                hide_index=True,
                width="stretch",
            )


def decimal(value: float) -> str:
    """Two digits, with the minus sign of the texts around."""
    return f"{value:.2f}".replace("-", "−")


def simulated_toggle() -> None:
    session, me = current()
    wanted = st.toggle(
        "Include simulated people",
        value=session.record.include_simulated,
        help="When this is off, no page shows them and the next snapshot does not learn from them. Their labels are "
        "kept, so you can switch it on again.",
    )
    if wanted != session.record.include_simulated:
        access.include_simulated(session, wanted, by=me.id)
        rerun()


page()
