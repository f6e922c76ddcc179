"""A part of the people page: people moving from snapshot to snapshot, played by the browser."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go

from copl_core.study.user_map import MapFrame, UserMap
from pages.common import NO_GROUP_COLOUR, group_colour, group_name, in_figure
from pages.people_map import OPEN, map_height, marker_size, padded

MOST_NUMBERS = 500_000  # positions in all frames together: some megabytes on their way to the browser
MOST_STEPS = 12  # frames from one snapshot to the next
SECONDS_EACH = 1.2  # from one snapshot to the next
FEWEST_SNAPSHOTS = 4  # shown even of very many people


def can_play(frame: MapFrame) -> bool:
    return len(frame.versions) > 1 and FEWEST_SNAPSHOTS * len(frame.ids) <= MOST_NUMBERS


def film(view: UserMap, frame: MapFrame, *, touch: bool = False) -> go.Figure:
    """A figure with one frame per step and a slider of the snapshots; people keep the colour of their newest group."""
    shown, steps = chosen_snapshots(frame)
    xy = frame.xy[shown]
    parts = list(_parts(view, frame))
    figure = go.Figure(
        [
            go.Scattergl(**_points(xy[0][rows]), mode="markers", name=name, marker=marker, hoverinfo="skip")
            for name, rows, marker in parts
        ]
    )
    versions = [frame.versions[one] for one in shown]
    figure.frames = [
        go.Frame(name=name, data=[_points(positions[rows]) for _, rows, _ in parts], traces=list(range(len(parts))))
        for name, positions in _moments(versions, xy, steps)
    ]
    figure.update_xaxes(visible=False, range=padded(frame.extent[:, 0]))
    figure.update_yaxes(visible=False, range=padded(frame.extent[:, 1]), scaleanchor="x")
    figure.update_layout(
        height=map_height(frame.extent, touch) + 110,
        margin={"l": 0, "r": 0, "t": 8, "b": 90},
        dragmode="pan" if touch else "zoom",
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        updatemenus=[_buttons(1000 * SECONDS_EACH / steps)],
        sliders=[_slider(versions)],
    )
    return figure


def chosen_snapshots(frame: MapFrame) -> tuple[list[int], int]:
    """(snapshots to show, as evenly spread as possible; steps from one to the next), within ``MOST_NUMBERS``."""
    n, people = len(frame.versions), max(1, len(frame.ids))
    most = max(FEWEST_SNAPSHOTS, MOST_NUMBERS // (4 * people))
    shown = np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()
    return shown, int(np.clip(MOST_NUMBERS // (people * max(1, len(shown) - 1)), 1, MOST_STEPS))


def _moments(versions: list[str], xy: np.ndarray, steps: int) -> Iterator[tuple[str, np.ndarray]]:
    """(name, positions (N, 2)) of each frame: the snapshots (S, N, 2) by their versions, and the steps between them.

    Who joins or leaves the map between two snapshots does so at the later one.
    """
    for number, version in enumerate(versions):
        yield version, xy[number]
        if number + 1 == len(versions):
            return
        for step in range(1, steps):
            share = step / steps
            eased = share * share * (3 - 2 * share)  # slow at the snapshots, so that one sees where they are
            between = (1 - eased) * xy[number] + eased * xy[number + 1]
            yield f"{version} {step}", np.where(np.isfinite(xy[number + 1]), between, xy[number])


def _parts(view: UserMap, frame: MapFrame) -> Iterator[tuple[str, np.ndarray, dict]]:
    """(name, rows, marker) of each trace: each group, then the viewer."""
    kept = np.isin(frame.ids, view.ids)
    me = -1 if view.me is None else int(view.ids[view.me])
    symbol_of = {int(user): OPEN[kind] for user, kind in zip(view.ids, view.kinds, strict=True)}
    size = marker_size(len(frame.ids))
    for group in np.unique(frame.group[kept]).tolist():
        rows = np.flatnonzero(kept & (frame.group == group) & (frame.ids != me))
        if len(rows):
            symbols = [f"circle{symbol_of[user]}" for user in frame.ids[rows].tolist()]
            colour = NO_GROUP_COLOUR if group < 0 else group_colour(group)
            yield (
                in_figure(group_name(None if group < 0 else group)),
                rows,
                {
                    "size": size,
                    "color": colour,
                    "symbol": symbols,
                    "line": {"width": 2 if size > 4 else 1},
                },
            )
    if len(rows := np.flatnonzero(frame.ids == me)):
        group = int(frame.group[rows[0]])
        colour = group_colour(group if group >= 0 and view.my_group_is_clear else None)
        yield "You", rows, {"size": 20, "color": colour, "symbol": "star", "line": {"width": 1.5, "color": "white"}}


def _points(xy: np.ndarray) -> dict[str, list]:
    """Coordinates as plain numbers of three digits: the browser reads arrays of bytes in a figure but not in frames."""
    return {
        name: [None if value != value else value for value in np.round(column.astype(float), 3).tolist()]
        for name, column in zip("xy", xy.T, strict=True)
    }


def _buttons(milliseconds: float) -> dict:
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    play = {
        "mode": "immediate",
        "fromcurrent": True,
        "frame": {"duration": milliseconds, "redraw": True},
        "transition": {"duration": 0},
    }
    return {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "x": 0,
        "y": -0.02,
        "xanchor": "left",
        "yanchor": "top",
        "pad": {"t": 26},
        "buttons": [
            {"label": "Play", "method": "animate", "args": [None, play]},
            {"label": "Pause", "method": "animate", "args": [[None], still]},
        ],
    }


def _slider(versions: list[str]) -> dict:
    to = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "x": 0.16,
        "len": 0.84,
        "y": -0.02,
        "pad": {"t": 10, "r": 24},
        "currentvalue": {"prefix": "Snapshot "},
        "steps": [{"label": version, "method": "animate", "args": [[version], to]} for version in versions],
    }
