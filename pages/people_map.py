"""A part of the people page: the map as a figure, coloured, in two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from copl_core.records import Kind
from copl_core.study import user_map
from copl_core.study.session import Session
from copl_core.study.user_map import UserMap
from pages.common import GROUP_COLOURS, NO_GROUP_COLOUR, group_colour, group_name, in_figure, number_colours

# what people can be coloured by; the keys are values of the address's ``colour``
COLOURS = {
    "group": "Group",
    "expert": "Expert",
    "labels": "Number of labels",
    "consistency": "Consistency",
    "predicted": "Predicted by the model",
    "kind": "Human, simulated or language model",
    "true_group": "True group (simulated people)",
}
EXPLAINED = {
    "group": "Colours are groups of people who answer alike; a group keeps its colour in every snapshot.",
    "expert": "Colours are the expert of the reward model with the largest gate weight for the person.",
    "labels": "Colour is the number of labels behind a position. With few labels it is near the middle.",
    "consistency": "Colour is the share of repeated pairs with the same answer as before; grey: no repeats yet. With "
    "few repeats the share says little; hover over a point to see their number.",
    "predicted": "Colour is prequential accuracy: the share of answers to randomly drawn pairs that the model "
    "predicted correctly beforehand; grey: none yet. With few answers the share says little; hover over a point to see "
    "their number.",
    "kind": "Colours distinguish humans from simulated people and language models.",
    "true_group": "Colours are the groups that simulated people were generated from; the model never sees them.",
}
SHARES = ("consistency", "predicted")  # of the numbers, those from 0 to 1
NUMBERS = {"labels": "labels", "consistency": "answered alike", "predicted": "predicted correctly"}
EYE = {"x": 1.0, "y": 1.0, "z": 0.6}  # the camera, close enough that the map fills its frame
SHAPES = ("circle", "square", "diamond", "cross")  # the next shape follows when the colours are used up
NO_LABELS = "No labels in this snapshot"

OPEN = {Kind.HUMAN.value: "", Kind.SIMULATED.value: "-open", Kind.MODEL.value: "-open-dot"}  # ending of the symbol
SHOWN_AS = "Filled points are humans, open points are simulated people"
KINDS = {Kind.HUMAN.value: "Human", Kind.SIMULATED.value: "Simulated", Kind.MODEL.value: "Language model"}


@dataclass(frozen=True, slots=True)
class Colouring:
    """A category or a number for each row of a map."""

    by: str
    value: np.ndarray  # (N,) category index, −1 for none; or a number, NaN for none
    n: np.ndarray  # (N,) answers behind it
    names: tuple[str, ...] = ()  # of the categories


def colouring(session: Session, view: UserMap, by: str) -> Colouring | None:
    """The colouring of a map by one of ``COLOURS``; None while the study has no data for it."""
    if by == "expert":
        trait = user_map.experts_of(session, view.ids, view.snapshot)
        if trait is None:
            return None
        value = np.where(np.isfinite(trait.value), trait.value, -1).astype(int)
        return Colouring(by, value, trait.n, tuple(f"Expert {i + 1}" for i in range(value.max(initial=-1) + 1)))
    if by in ("consistency", "predicted"):
        trait = (user_map.consistency if by == "consistency" else user_map.prequential_accuracy)(session, view.ids)
        return Colouring(by, trait.value, trait.n) if (trait.n > 0).any() else None
    if by == "labels":
        return Colouring(by, np.where(view.n_labels > 0, view.n_labels, np.nan).astype(float), view.n_labels)
    if by == "kind":
        names = tuple(KINDS.values())[: 3 if view.models.any() else 2]
        return Colouring(by, view.simulated + 2 * view.models.astype(int), view.n_labels, names)
    if by == "true_group":
        tastes = np.unique(view.true_groups[view.true_groups != ""])
        value = np.where(view.true_groups == "", -1, np.searchsorted(tastes, view.true_groups))
        return Colouring(by, value, view.n_labels, tuple(tastes.tolist())) if len(tastes) else None
    names = tuple(group_name(group) for group in range(view.group.max(initial=-1) + 1))
    return Colouring(by, view.group, view.n_labels, names)


def picture(
    view: UserMap,
    colour: Colouring,
    *,
    in_3d: bool = False,
    extent: np.ndarray | None = None,
    chosen: Sequence[int] = (),
    found: int | None = None,
    touch: bool = False,
) -> go.Figure:
    """All people, one trace per category and kind, so that the legend shows and hides them.

    Args:
        in_3d: whether to draw the coordinates in three dimensions.
        extent: (2, 5) lower and upper corner of all snapshots' maps, see ``user_map.MapFrame``.
        chosen: user ids from the address, drawn as selected.
        found: row of a person to mark with a ring.
        touch: whether a finger draws: it moves the map, and a button above the map makes it draw around people.
    """
    figure = go.Figure()
    marked = view.rows(chosen)
    for name, mask, style in _traces(view, colour):
        _add_points(figure, view, colour, np.flatnonzero(mask), name, style, in_3d, marked)
    for row, symbol, text in ((view.me, "star", "You"), (found, "circle-open", None)):
        if row is not None and view.placed[row]:
            _add_person(figure, view, row, symbol, text or str(view.names[row]), in_3d)
    if not in_3d:
        _add_unplaced(figure, view, extent)
    _set_axes(figure, view, colour.by, in_3d, extent, touch)
    return figure


def _traces(view: UserMap, colour: Colouring):
    """(name, mask (N,), marker) of each trace, whose symbols are of ``OPEN``; the viewer is left out."""
    shown = view.placed.copy()
    if view.me is not None:
        shown[view.me] = False
    for of_kind, symbol in reversed(OPEN.items()):
        kind = shown & (view.kinds == of_kind)
        if of_kind == Kind.MODEL and not kind.any():
            continue
        mark = Kind(of_kind).mark
        suffix = f" ({mark})" if mark and colour.by not in ("kind", "true_group") else ""
        if colour.by in NUMBERS:
            known = np.isfinite(colour.value)
            yield (
                KINDS[of_kind],
                kind & known,
                {"symbol": f"circle{symbol}", "coloraxis": "coloraxis"},
            )
            yield "No data yet" + suffix, kind & ~known, {"symbol": f"circle{symbol}", "color": NO_GROUP_COLOUR}
            continue
        for number, name in enumerate(colour.names):
            shape = SHAPES[number // len(GROUP_COLOURS) % len(SHAPES)]
            yield (
                name + suffix,
                kind & (colour.value == number),
                {"symbol": shape + symbol, "color": group_colour(number)},
            )
        yield "None" + suffix, kind & (colour.value < 0), {"symbol": f"circle{symbol}", "color": NO_GROUP_COLOUR}


def _add_points(
    figure: go.Figure,
    view: UserMap,
    colour: Colouring,
    rows: np.ndarray,
    name: str,
    style: dict,
    in_3d: bool,
    marked: np.ndarray,
) -> None:
    """One trace: the people of ``rows`` (n,), those of ``marked`` drawn as selected."""
    if not len(rows):
        return
    numbered = "coloraxis" in style
    hover = _hover(colour) if numbered else ""
    more = (colour.n[rows], np.nan_to_num(colour.value[rows])) if hover else ()
    common = {
        "mode": "markers",
        "name": in_figure(name),
        "marker": marker_of(len(view.ids), style, in_3d) | ({"color": colour.value[rows]} if numbered else {}),
        "text": [in_figure(one) for one in view.names[rows]],
        "customdata": _point_data(view, rows, *more),
        "hovertemplate": f"%{{text}}<br>{in_figure(name)}<br>%{{customdata[1]}} labels{hover}<extra></extra>",
    }
    if numbered:
        common |= {"legendgroup": name, "showlegend": False}
        _add_legend_entry(figure, name, style["symbol"], in_3d)
    if in_3d:
        x, y, z = view.xyz[rows].T
        figure.add_scatter3d(x=x, y=y, z=z, **common)
        return
    if len(marked):
        common["selectedpoints"] = np.flatnonzero(np.isin(rows, marked))
    x, y = view.xy[rows].T
    figure.add_scattergl(x=x, y=y, **common)


def marker_size(n_users: int) -> int:
    return 9 if n_users < 1000 else 6 if n_users < 20_000 else 3


def marker_of(n_users: int, style: dict, in_3d: bool = False) -> dict:
    """A marker's size and symbol: the more people, the smaller."""
    size = marker_size(n_users)
    outline = {} if in_3d or "open" not in style["symbol"] else {"line": {"width": 2 if size > 4 else 1}}
    return {"size": size * (0.5 if in_3d else 1)} | style | outline


def _hover(colour: Colouring) -> str:
    """The hover text of a number that people are coloured by."""
    if colour.by == "labels":
        return f"<br>%{{customdata[3]}} {NUMBERS[colour.by]}"
    return f"<br>%{{customdata[3]:.0%}} {NUMBERS[colour.by]} of %{{customdata[2]}}"


def _add_legend_entry(figure: go.Figure, name: str, symbol: str, in_3d: bool) -> None:
    """A legend entry that shows and hides points coloured by a number; their own entry would be black."""
    nowhere = {"x": [None], "y": [None]} | ({"z": [None]} if in_3d else {})
    add = figure.add_scatter3d if in_3d else figure.add_scatter
    add(
        **nowhere,
        mode="markers",
        name=in_figure(name),
        legendgroup=name,
        hoverinfo="skip",
        marker={
            "symbol": symbol,
            "color": number_colours()[1],
            "size": 9,
            "line": {"width": 2 if "open" in symbol else 0},
        },
    )


def _point_data(view: UserMap, rows: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """The data of each point (n, 2 or more): user id, number of labels, then more; float32 if ids allow."""
    width = np.float32 if view.ids.max(initial=0) < 2**24 else np.float64
    return np.column_stack([view.ids[rows], view.n_labels[rows], *more]).astype(width)


def _add_person(figure: go.Figure, view: UserMap, row: int, symbol: str, text: str, in_3d: bool) -> None:
    """One person with their name next to the point."""
    group = view.my_group if row == view.me else int(view.group[row]) if view.group[row] >= 0 else None
    colour, text = group_colour(group), in_figure(text)
    common = {
        "mode": "markers+text",
        "name": text,
        "text": [text],
        "textposition": "top center",
        "textfont": {"size": 15},
        "hovertemplate": f"{text}<extra></extra>",
        "showlegend": symbol == "star",
        "customdata": _point_data(view, np.array([row])),
    }
    if in_3d:
        x, y, z = view.xyz[row]
        figure.add_scatter3d(x=[x], y=[y], z=[z], marker={"symbol": "diamond", "size": 7, "color": colour}, **common)
        return
    size, line = (20, "white") if symbol == "star" else (22, None)
    marker = {
        "symbol": symbol,
        "size": size,
        "color": colour,
        "line": {"width": 1.5 if line else 3} | ({"color": line} if line else {}),
    }
    # WebGL like all other traces: SVG traces lie below WebGL ones, and thousands of points would hide this one
    figure.add_scattergl(x=[view.xy[row, 0]], y=[view.xy[row, 1]], marker=marker, **common)


def _add_unplaced(figure: go.Figure, view: UserMap, extent: np.ndarray | None) -> None:
    """People without a position, grey, in a row below the map: the snapshot has no labels of theirs."""
    rows = np.flatnonzero(~view.placed)
    if not len(rows) or extent is None:
        return
    low, high = extent[:, :2]
    figure.add_scattergl(
        x=np.linspace(low[0], high[0], len(rows) + 2)[1:-1],
        y=np.full(len(rows), low[1] - 0.08 * (high - low)[1]),
        mode="markers",
        name=NO_LABELS,
        text=[in_figure(one) for one in view.names[rows]],
        marker={"symbol": [f"circle{OPEN[kind]}" for kind in view.kinds[rows]], "color": NO_GROUP_COLOUR, "size": 7},
        customdata=_point_data(view, rows),
        hovertemplate="%{text}<br>no labels in this snapshot, so no position<extra></extra>",
    )


def map_height(extent: np.ndarray | None, touch: bool) -> int:
    """Pixels in which a flat map as wide as the page (or a phone) fills its frame, within what a screen shows."""
    low, high, wide = (240, 420, 380) if touch else (300, 620, 950)
    if extent is None:
        return high
    ratio = float(np.ptp(extent[:, 1]) / max(np.ptp(extent[:, 0]), 1e-6))
    return int(np.clip(1.1 * wide * ratio, low, high)) + 40  # the legend


def _colour_axis(by: str) -> dict:
    """The scale of numbers: shares have the whole range, whatever the few values of a small study are."""
    bar = {"thickness": 12, "len": 0.6, "title": {"text": ""}}
    if by not in SHARES:
        return {"colorscale": number_colours(), "colorbar": bar}
    return {"colorscale": number_colours(), "cmin": 0, "cmax": 1, "colorbar": bar | {"tickformat": ".0%"}}


def _set_axes(figure: go.Figure, view: UserMap, by: str, in_3d: bool, extent: np.ndarray | None, touch: bool) -> None:
    figure.update_layout(
        height=620 if in_3d and not touch else map_height(extent, touch),
        margin={"l": 0, "r": 0, "t": 8, "b": 0},
        dragmode="orbit" if in_3d else "pan" if touch else "lasso",
        uirevision="3d" if in_3d else "2d",
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
        coloraxis=_colour_axis(by),
    )
    if in_3d:
        names = ("xaxis", "yaxis", "zaxis")
        corners = None if extent is None or not np.isfinite(extent[0, 2]) else extent[:, 2:]
        figure.update_layout(
            scene={"aspectmode": "cube", "camera": {"eye": EYE}}
            | {
                name: {"visible": False, "range": None if corners is None else padded(corners[:, i])}
                for i, name in enumerate(names)
            }
        )
        return
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    if extent is not None:
        below = 0.12 * np.ptp(extent[:, 1]) if not view.placed.all() else 0
        figure.update_xaxes(range=padded(extent[:, 0]))
        figure.update_yaxes(range=padded(extent[:, 1] - [below, 0]))


def padded(ends: np.ndarray) -> list[float]:
    margin = 0.05 * max(float(ends[1] - ends[0]), 1e-6)
    return [float(ends[0]) - margin, float(ends[1]) + margin]


def ids_of(event: object) -> list[int]:
    """User ids of the selected points, from the points' data: point numbers start at 0 in every trace."""
    selection = (event or {}).get("selection") or {}
    found = []
    for point in selection.get("points") or ():
        data = point.get("customdata")
        first = data.get("0") if isinstance(data, dict) else data[0] if isinstance(data, (list, tuple)) else data
        if first is not None:
            found.append(int(first))
    return list(dict.fromkeys(found))
