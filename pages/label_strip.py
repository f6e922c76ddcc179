"""A part of the labelling page: what one's answers have led to so far, in one slim line and a small map."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

import numpy as np
import streamlit as st

from copl_core.records import Kind, Progress, SnapshotAway
from copl_core.study import small_map
from copl_core.study.small_map import SmallMap
from copl_core.study.views import UserPosition
from pages.common import count_people, current, group_colour, group_name, page_link

ENOUGH = 10  # answers for a first picture
CARD_UNTIL = 15  # answers up to which a card points to My taste; then the line does
FEWEST = 3  # people on the map: fewer points say nothing
WIDTH, HEIGHT, EDGE, STAR = 150, 56, 6, 11  # px; the star's middle stays so far inside
_APPEARS = f"The map appears once {FEWEST} people have a place on it."
_DOT = "M{x:.0f} {y:.0f}h0"
_RING = "M{left:.1f} {y:.1f}a1.5 1.5 0 1 0 3 0a1.5 1.5 0 1 0 -3 0"  # of simulated people, as on the large map
STYLE = """<style>
.copl-strip { display: flex; align-items: center; gap: .9rem; font-size: .93rem; line-height: 1.35; }
.copl-strip .map { position: relative; flex: none; width: 150px; height: 56px; border-radius: 4px;
  background: color-mix(in srgb, currentColor 5%, transparent); }
.copl-strip .map img { display: block; width: 150px; height: 56px; }
.copl-strip .star { position: absolute; width: 20px; height: 20px; margin: -11px 0 0 -10px; font-size: 19px;
  line-height: 20px; text-align: center; animation: copl-star .7s cubic-bezier(0, 0, .58, 1);
  text-shadow: 0 0 2px light-dark(#fff, #000), 0 0 3px light-dark(#fff, #000); }
.copl-strip .ten { display: inline-flex; gap: 3px; margin-right: .5rem; vertical-align: middle; }
.copl-strip .ten i { width: 9px; height: 9px; border-radius: 50%; border: 1px solid currentColor; }
.copl-strip .ten i.done { background: currentColor; }
[class*=st-key-strip] [data-testid=stPageLink] p, .st-key-taste-card [data-testid=stPageLink] p,
.st-key-ways [data-testid=stPageLink] p { text-decoration: underline; }
.copl-strip .dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .3em; }
@keyframes copl-star { from { transform: translate(var(--from-x), var(--from-y)); } }
@media (prefers-reduced-motion: reduce) { .copl-strip .star { animation: none; } }
</style>"""


def strip(progress: Progress) -> None:
    """The small map with one's star, how far one is, and whom one answers like."""
    session, me = current()
    found, problem = None, ""
    try:
        found = small_map.small_map(session, me.id)
    except Exception as why:  # a snapshot that is away or broken must not stop anybody from labelling
        problem = without_model(why)
    with st.container(key="strip", horizontal=True, vertical_alignment="center"):
        shown = found is not None and found[0].n_placed >= FEWEST
        picture = f'<div class="map">{points(found[0])}{star(*found)}</div>' if found and shown else ""
        words = how_far(progress.done) + (problem or like(found))
        st.html(f'{STYLE}<div class="copl-strip">{picture}<div>{words}</div></div>')
        if progress.done >= CARD_UNTIL:
            page_link("taste", "My taste")
    if ENOUGH <= progress.done < CARD_UNTIL:
        card(found is not None and found[1].clear)


def without_model(why: Exception) -> str:
    """That labelling goes on without the model, and why; the pages that show the snapshot say more."""
    reason = "is being fetched" if isinstance(why, SnapshotAway) and not why.failed else "cannot be read at present"
    return f"The model {reason}: pairs are chosen without it until then. Every answer is stored as always."


def how_far(done: int) -> str:
    if done >= ENOUGH:
        return ""
    dots = "".join(f"<i{' class=done' if number < done else ''}></i>" for number in range(ENOUGH))
    return f'<span class="ten" aria-hidden="true">{dots}</span><b>{done} of {ENOUGH}</b> '


def like(found: tuple[SmallMap, UserPosition] | None) -> str:
    """Whom the person answers like, in words."""
    if found is None:
        return "The map appears when the first answers have been learned from."
    points, position = found
    few = points.n_placed < FEWEST
    if position.n_labels == 0:
        return _APPEARS if few else "After each answer, your star moves to the people who answer like you."
    if position.group is None:
        return f"Nobody else has answered these pairs yet. {_APPEARS if few else 'So your star has no place so far.'}"
    if few:
        return _APPEARS
    people = count_people(points.n_placed, points.n_simulated, points.n_models)
    among = f"among {people}, " if points.n_simulated or points.n_models else ""
    if position.n_groups <= 1:
        return f"So far, {among}there is one group of people, and none to tell it from."
    if not position.likely:
        return f"So far, {among}no group is clear yet."
    dot = f'<span class="dot" style="background:{group_colour(position.group)}"></span>'
    name = group_name(position.group)
    the = "" if name.startswith("Group ") else "the group "
    whom = f"{the}<b>{dot}{escape(name)}</b>"
    return f"So far, {among}you answer most like {whom}." if position.clear else f"Nearest {among}so far: {whom}."


def card(clear: bool) -> None:
    """What ten answers have led to; it claims no more than My taste shows."""
    with st.container(border=True, key="taste-card", horizontal=True, vertical_alignment="center"):
        st.write(
            f"**{ENOUGH} answers show where you stand.** See what they say about you."
            if clear
            else f"**{ENOUGH} answers give a first, rough picture.** See what they say about you so far."
        )
        page_link("taste", "My taste")


def points(shown: SmallMap) -> str:
    """The people as a picture, made once per snapshot."""
    session, _ = current()
    colours = tuple(group_colour(int(group)) for group in np.unique(shown.group))
    return session.once("small map picture", (id(shown), colours), lambda: _picture(shown))


def _picture(shown: SmallMap) -> str:
    paths = []
    for group in np.unique(shown.group).tolist():
        of_group = shown.group == group
        colour = group_colour(group)
        dots = _path(_DOT, shown.xy[of_group & (shown.kind == Kind.HUMAN)])
        rings = _path(_RING, shown.xy[of_group & (shown.kind != Kind.HUMAN)])
        middles = _path(_DOT, shown.xy[of_group & (shown.kind == Kind.MODEL)])
        paths.append(f'<path d="{dots}" stroke="{colour}" stroke-width="4"/>')
        paths.append(f'<path d="{rings}{middles}" stroke="{colour}" stroke-width="1"/>')
    body = f'<g fill="none" stroke-linecap="round">{"".join(paths)}</g>'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">{body}</svg>'
    return f'<img alt="The people of this study as points" src="data:image/svg+xml,{quote(svg)}">'


def _path(mark: str, xy: np.ndarray) -> str:
    """A mark at each point (n, 2) of the unit square."""
    return "".join(mark.format(x=x, y=y, left=x - 1.5) for x, y in map(_pixel, xy.tolist()))


def _pixel(point) -> tuple[float, float]:
    x, y = point
    return EDGE + x * (WIDTH - 2 * EDGE), EDGE + (1 - y) * (HEIGHT - 2 * EDGE)


def star(shown: SmallMap, position: UserPosition) -> str:
    """One's own place; it moves there from the place before."""
    if position.xy is None:
        return ""
    x, y = _pixel(shown.place(position.xy))
    x, y = min(max(x, STAR), WIDTH - STAR), min(max(y, STAR), HEIGHT - STAR)
    before = st.session_state.get("star", (x, y))
    st.session_state["star"] = (x, y)
    moved = f"--from-x:{before[0] - x:.1f}px;--from-y:{before[1] - y:.1f}px"
    return f'<span class="star" role="img" aria-label="You" style="left:{x:.1f}px;top:{y:.1f}px;{moved}">★</span>'
