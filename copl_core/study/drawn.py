"""Which people of a snapshot a map shows: everybody, or of very many an even sample, and counts of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from copl_core.insight.layout import Layout
from copl_core.records import Kind, User
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import access
from copl_core.study.session import Session

MOST_DRAWN = 20_000  # people of a map that shows everybody
DRAWN = 5_000  # people drawn of a larger one


@dataclass(frozen=True, slots=True)
class Everybody:
    """What is counted of all users of a map whose rows are a sample."""

    n_users: int
    sizes: dict[int, int]
    n_placed: tuple[int, int, int]

    def with_viewer(self, before: int, now: int) -> Everybody:
        """The same with the viewer in the group of their present labels instead of that of the snapshot; −1: none."""
        sizes = self.sizes | {now: self.sizes.get(now, 0)}
        sizes = {group: n + (group == now) - (group == before) for group, n in sizes.items()}
        return replace(self, sizes={group: n for group, n in sizes.items() if n and group >= 0})


def people_of_map(
    session: Session, snapshot: Snapshot, viewer: int | None, also: Sequence[int]
) -> tuple[list[User], Everybody | None]:
    """(the users of the rows, counts of everybody where these are a sample: an even one of the snapshot's people)."""
    if len(snapshot.layout.user_ids) <= MOST_DRAWN:
        users = session.store.users(session.id, most=MOST_DRAWN + 1)
        if len(users) <= MOST_DRAWN:
            return users, None
    everybody, drawn = drawn_people(session, snapshot)
    known = {user.id for user in drawn}
    more = [one for one in (*also, *([] if viewer is None else [viewer])) if one not in known]
    users = [*drawn, *session.store.users(session.id, ids=more)] if more else drawn
    return sorted(users, key=lambda user: user.id), everybody


def drawn_people(session: Session, snapshot: Snapshot) -> tuple[Everybody, list[User]]:
    """The even sample of a large snapshot's people, with the counts of everybody; once a snapshot."""
    name, shown = f"drawn people of {snapshot.version}", session.record.include_simulated
    return session.once(name, shown, lambda: _draw(session, snapshot.layout))


def _draw(session: Session, layout: Layout) -> tuple[Everybody, list[User]]:
    shown = ~np.isin(layout.user_ids, access.hidden_users(session))
    placed = shown & np.isfinite(layout.xy[:, 0])
    kinds = (session.store.users_of_kind(session.id, kind) for kind in (Kind.SIMULATED, Kind.MODEL))
    simulated, models = (int(np.isin(layout.user_ids[placed], ids).sum()) for ids in kinds)
    counts = Everybody(int(shown.sum()), sizes_of(layout.group[shown]), (int(placed.sum()), simulated, models))
    rows = np.flatnonzero(placed)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), DRAWN)).astype(int)]
    return counts, session.store.users(session.id, ids=layout.user_ids[rows].tolist())


def sizes_of(group: np.ndarray) -> dict[int, int]:
    numbers, counts = np.unique(group[group >= 0], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))
