"""The map that fits beside a sentence: some people as points, and where one person stands among them.

It is drawn after every answer, so the points are prepared once per snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.records import Kind
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import access, placement
from copl_core.study.roles import MEMBER, OWN, needs
from copl_core.study.session import Session
from copl_core.study.views import UserPosition

_MOST = 300  # points: more of them are a grey cloud at this size


@dataclass(frozen=True, slots=True)
class SmallMap:
    """People on the map, scaled to the unit square."""

    xy: np.ndarray  # (P, 2) in [0, 1], y upwards
    group: np.ndarray  # (P,) int64
    kind: np.ndarray  # (P,) text: the ``Kind`` of each user
    low: np.ndarray  # (2,) the corner of the unit square, on the snapshot's map
    size: np.ndarray  # (2,) its width and height there, positive
    snapshot: str
    n_placed: int  # people with a place on the map, of whom the points may be a sample
    n_simulated: int  # of these
    n_models: int  # of these, language models

    def place(self, xy: tuple[float, float]) -> tuple[float, float]:
        """A point of the snapshot's map in the unit square; points outside are drawn on its edge."""
        x, y = np.clip((np.asarray(xy) - self.low) / self.size, 0, 1).tolist()
        return x, y


@needs(OWN)
def small_map(session: Session, user_id: int) -> tuple[SmallMap, UserPosition] | None:
    """The points of the champion and the user's position by their present labels; None before the first map.

    Raises:
        CoplError: the champion's files are missing or damaged.
    """
    snapshot = session.snapshot()
    if snapshot is None:
        return None
    found = points(session, snapshot)
    if found is None:
        return None
    return found, placement.position_in(snapshot, user_id, session.store.labels(session.id, user_id=user_id))


@needs(MEMBER)
def points(session: Session, snapshot: Snapshot) -> SmallMap | None:
    """The points of a snapshot, prepared once; None where nobody has a place on its map."""
    key = snapshot.version, session.record.include_simulated
    return session.once("small map", key, lambda: _points(session, snapshot))


def _points(session: Session, snapshot: Snapshot) -> SmallMap | None:
    layout, store = snapshot.layout, session.store
    placed = np.isfinite(layout.xy[:, 0])
    rows = np.flatnonzero(placed & ~np.isin(layout.user_ids, access.hidden_users(session)))
    if not len(rows):
        return None
    simulated, models = (store.users_of_kind(session.id, kind) for kind in (Kind.SIMULATED, Kind.MODEL))
    low, high = layout.xy[rows].min(0), layout.xy[rows].max(0)
    size = np.where(high > low, high - low, 1.0)
    kept = rows if len(rows) <= _MOST else np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))
    kinds = np.where(np.isin(layout.user_ids[kept], simulated), Kind.SIMULATED.value, Kind.HUMAN.value)
    return SmallMap(
        (layout.xy[kept] - low) / size,
        layout.group[kept],
        np.where(np.isin(layout.user_ids[kept], models), Kind.MODEL.value, kinds),
        low,
        size,
        snapshot.version,
        n_placed=len(rows),
        n_simulated=int(np.isin(layout.user_ids[rows], simulated).sum()),
        n_models=int(np.isin(layout.user_ids[rows], models).sum()),
    )
