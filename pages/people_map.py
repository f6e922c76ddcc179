"""A part of the people page: the map itself, coloured, flat or deep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from copl_core.study import user_map
from copl_core.study.session import Session
from copl_core.study.user_map import PeopleMap
from pages.common import GROUP_COLOURS, NO_GROUP_COLOUR, group_colour, group_name, numbers

# what people can be coloured by, in the words of the page
COLOURS = {
    "group": "Group",
    "expert": "Expert",
    "labels": "Number of labels",
    "consistency": "Agrees with themselves",
    "foreseen": "Foreseen by the model",
    "kind": "Human or simulated",
    "taste": "True taste (simulated people)",
}
EXPLAINED = {
    "group": "Colours are groups of people who answer alike; a group keeps its colour in every snapshot.",
    "expert": "Colours are the expert of the reward model with the largest gate weight for the person.",
    "labels": "Colour is how many labels a place rests on; with few, people stand near the middle for want of labels.",
    "consistency": "Colour is the share of pairs asked again that were answered as before; grey: none came again. With "
    "few repeats the share says little, so hover for how many there were.",
    "foreseen": "Colour is prequential accuracy: the share of answers on pairs drawn by chance that the model had "
    "foretold; grey: none yet. With few answers the share says little, so hover for how many there were.",
    "kind": "Colours tell humans from simulated people.",
    "taste": "Colours are the tastes that simulated people were made with; the model never sees them.",
}
NUMBERS = {"labels": "labels", "consistency": "same again", "foreseen": "foretold right"}
EYE = {"x": 1.0, "y": 1.0, "z": 0.6}  # where one looks from, near enough that the map fills its frame
SHAPES = ("circle", "square", "diamond", "cross")  # once the colours are used up
NO_PLACE = "No labels in this snapshot"


@dataclass(frozen=True, slots=True)
class Colouring:
    """A category or a number for each row of a map."""

    by: str
    value: np.ndarray  # (N,) category as a whole number, −1 for none; or a number, NaN for none
    n: np.ndarray  # (N,) answers behind it
    names: tuple[str, ...] = ()  # of the categories


def colouring(session: Session, view: PeopleMap, by: str) -> Colouring | None:
    """None where the study has nothing of the kind yet."""
    if by == "expert":
        trait = user_map.experts_of(session, view.ids, view.snapshot)
        if trait is None:
            return None
        value = np.where(np.isfinite(trait.value), trait.value, -1).astype(int)
        return Colouring(by, value, trait.n, tuple(f"Expert {i + 1}" for i in range(value.max(initial=-1) + 1)))
    if by in ("consistency", "foreseen"):
        trait = (user_map.consistency if by == "consistency" else user_map.predicted)(session, view.ids)
        return Colouring(by, trait.value, trait.n) if (trait.n > 0).any() else None
    if by == "labels":
        return Colouring(by, np.where(view.n_labels > 0, view.n_labels, np.nan).astype(float), view.n_labels)
    if by == "kind":
        return Colouring(by, view.simulated.astype(int), view.n_labels, ("Human", "Simulated"))
    if by == "taste":
        tastes = np.unique(view.tastes[view.tastes != ""])
        value = np.where(view.tastes == "", -1, np.searchsorted(tastes, view.tastes))
        return Colouring(by, value, view.n_labels, tuple(tastes.tolist())) if len(tastes) else None
    names = tuple(group_name(group) for group in range(view.group.max(initial=-1) + 1))
    return Colouring(by, view.group, view.n_labels, names)


def picture(
    view: PeopleMap,
    colour: Colouring,
    *,
    deep: bool = False,
    extent: np.ndarray | None = None,
    chosen: Sequence[int] = (),
    found: int | None = None,
) -> go.Figure:
    """Everybody, one trace a category and kind, so that the legend shows and hides them.

    Args:
        extent: (2, 5) corners that every snapshot's map lies in, see ``map_extent``.
        chosen: ids that a link names, drawn as selected.
        found: row of a person to ring.
    """
    figure = go.Figure()
    marked = view.rows(chosen)
    for name, mask, look in _traces(view, colour):
        _add(figure, view, colour, np.flatnonzero(mask), name, look, deep, marked)
    for row, symbol, text in ((view.me, "star", "You"), (found, "circle-open", None)):
        if row is not None and view.placed[row]:
            _single(figure, view, row, symbol, text or str(view.names[row]), deep)
    if not deep:
        _unplaced(figure, view, extent)
    _frame(figure, view, deep, extent)
    return figure


def _traces(view: PeopleMap, colour: Colouring):
    """(name, mask (N,), look) of each trace; open circles are simulated people, the viewer stands by themselves."""
    shown = view.placed.copy()
    if view.me is not None:
        shown[view.me] = False
    for simulated, symbol in ((True, "-open"), (False, "")):
        kind = shown & (view.simulated == simulated)
        suffix = " (simulated)" if simulated and colour.by not in ("kind", "taste") else ""
        if colour.by in NUMBERS:
            known = np.isfinite(colour.value)
            yield (
                "Simulated" if simulated else "Human",
                kind & known,
                {"symbol": f"circle{symbol}", "coloraxis": "coloraxis"},
            )
            yield "Nothing to show yet" + suffix, kind & ~known, {"symbol": f"circle{symbol}", "color": NO_GROUP_COLOUR}
            continue
        for number, name in enumerate(colour.names):
            shape = SHAPES[number // len(GROUP_COLOURS) % len(SHAPES)]
            yield (
                name + suffix,
                kind & (colour.value == number),
                {"symbol": shape + symbol, "color": group_colour(number)},
            )
        yield "None" + suffix, kind & (colour.value < 0), {"symbol": f"circle{symbol}", "color": NO_GROUP_COLOUR}


def _add(
    figure: go.Figure,
    view: PeopleMap,
    colour: Colouring,
    rows: np.ndarray,
    name: str,
    look: dict,
    deep: bool,
    marked: np.ndarray,
) -> None:
    if not len(rows):
        return
    size = 9 if len(view.ids) < 1000 else 6 if len(view.ids) < 20_000 else 3
    marker = (
        {"size": size * (0.5 if deep else 1)}
        | look
        | ({} if deep or "open" not in look["symbol"] else {"line": {"width": 2 if size > 4 else 1}})
    )
    told = ""
    if colour.by in NUMBERS:
        share = "" if colour.by == "labels" else ":.0%"
        told = f"<br>%{{customdata[3]{share}}} {NUMBERS[colour.by]}"
        told += "" if colour.by == "labels" else " of %{customdata[2]}"
        if "coloraxis" in look:
            marker["color"] = colour.value[rows]
        else:
            told = ""
    more = (colour.n[rows], np.nan_to_num(colour.value[rows])) if told else ()
    common = {
        "mode": "markers",
        "name": name,
        "marker": marker,
        "text": view.names[rows],
        "customdata": _told(view, rows, *more),
        "hovertemplate": f"%{{text}}<br>{name}<br>%{{customdata[1]}} labels{told}<extra></extra>",
    }
    if "coloraxis" in look:
        common |= {"legendgroup": name, "showlegend": False}
        _key(figure, name, look["symbol"], deep)
    if deep:
        x, y, z = view.xyz[rows].T
        figure.add_scatter3d(x=x, y=y, z=z, **common)
        return
    if len(marked):
        common["selectedpoints"] = np.flatnonzero(np.isin(rows, marked))
    x, y = view.xy[rows].T
    figure.add_scattergl(x=x, y=y, **common)


def _key(figure: go.Figure, name: str, symbol: str, deep: bool) -> None:
    """A line of the legend for points coloured by a number, which would be black in it: it shows and hides them."""
    nowhere = {"x": [None], "y": [None]} | ({"z": [None]} if deep else {})
    add = figure.add_scatter3d if deep else figure.add_scatter
    add(
        **nowhere,
        mode="markers",
        name=name,
        legendgroup=name,
        hoverinfo="skip",
        marker={"symbol": symbol, "color": numbers()[1], "size": 9, "line": {"width": 2 if "open" in symbol else 0}},
    )


def _told(view: PeopleMap, rows: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """What travels with each point (n, 2 or more): the person's id and labels first; as short as ids allow."""
    width = np.float32 if view.ids.max(initial=0) < 2**24 else np.float64
    return np.column_stack([view.ids[rows], view.n_labels[rows], *more]).astype(width)


def _single(figure: go.Figure, view: PeopleMap, row: int, symbol: str, text: str, deep: bool) -> None:
    """One person with their name beside them."""
    colour = group_colour(int(view.group[row])) if view.group[row] >= 0 else NO_GROUP_COLOUR
    common = {
        "mode": "markers+text",
        "name": text,
        "text": [text],
        "textposition": "top center",
        "textfont": {"size": 15},
        "hovertemplate": f"{text}<extra></extra>",
        "showlegend": symbol == "star",
        "customdata": _told(view, np.array([row])),
    }
    if deep:
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
    # in WebGL as everybody else, since what is drawn beside it lies below it, and thousands would bury the one
    figure.add_scattergl(x=[view.xy[row, 0]], y=[view.xy[row, 1]], marker=marker, **common)


def _unplaced(figure: go.Figure, view: PeopleMap, extent: np.ndarray | None) -> None:
    """People without a place, grey, in a row below the map: they are in the study and the model knows nothing."""
    rows = np.flatnonzero(~view.placed)
    if not len(rows) or extent is None:
        return
    low, high = extent[:, :2]
    figure.add_scattergl(
        x=np.linspace(low[0], high[0], len(rows) + 2)[1:-1],
        y=np.full(len(rows), low[1] - 0.08 * (high - low)[1]),
        mode="markers",
        name=NO_PLACE,
        text=view.names[rows],
        marker={"symbol": np.where(view.simulated[rows], "circle-open", "circle"), "color": NO_GROUP_COLOUR, "size": 7},
        customdata=_told(view, rows),
        hovertemplate="%{text}<br>no labels in this snapshot, so no place<extra></extra>",
    )


def _frame(figure: go.Figure, view: PeopleMap, deep: bool, extent: np.ndarray | None) -> None:
    figure.update_layout(
        height=620 if deep else 560,
        margin={"l": 0, "r": 0, "t": 8, "b": 0},
        dragmode="orbit" if deep else "lasso",
        uirevision="deep" if deep else "flat",
        legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
        coloraxis={"colorscale": numbers(), "colorbar": {"thickness": 12, "len": 0.6, "title": {"text": ""}}},
    )
    if deep:
        names = ("xaxis", "yaxis", "zaxis")
        corners = None if extent is None or not np.isfinite(extent[0, 2]) else extent[:, 2:]
        figure.update_layout(
            scene={"aspectmode": "cube", "camera": {"eye": EYE}}
            | {
                name: {"visible": False, "range": None if corners is None else _wide(corners[:, i])}
                for i, name in enumerate(names)
            }
        )
        return
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    if extent is not None:
        below = 0.12 * np.ptp(extent[:, 1]) if not view.placed.all() else 0
        figure.update_xaxes(range=_wide(extent[:, 0]))
        figure.update_yaxes(range=_wide(extent[:, 1] - [below, 0]))


def _wide(ends: np.ndarray) -> list[float]:
    margin = 0.05 * max(float(ends[1] - ends[0]), 1e-6)
    return [float(ends[0]) - margin, float(ends[1]) + margin]


def ids_of(event: object) -> list[int]:
    """Ids of the selected points: they travel with the points, since point numbers start again in every trace."""
    selection = (event or {}).get("selection") or {}
    found = []
    for point in selection.get("points") or ():
        data = point.get("customdata")
        first = data.get("0") if isinstance(data, dict) else data[0] if isinstance(data, (list, tuple)) else data
        if first is not None:
            found.append(int(first))
    return list(dict.fromkeys(found))
