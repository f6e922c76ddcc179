"""The verb of the Controversy page that counts preferences which go in circles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.insight.triads import TriadCounts, TriadSummary, count_triads, find_triads, low_wins_probability
from copl_core.records import User
from copl_core.snapshots.snapshot import Snapshot
from copl_core.study import access
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

RARE = 0.025  # share of simulated sets with as many circles, up to which a person has more than noise makes
MOST = 10  # people listed
MOST_LABELS = 300_000  # in which triads are looked for; of more, those of some people


@dataclass(frozen=True, slots=True)
class TriadView:
    """Circular triads in the labels of a snapshot, of visible people."""

    total: TriadSummary
    groups: tuple[tuple[int, TriadSummary], ...]  # those with a triad
    people: tuple[tuple[User, TriadSummary], ...]  # who have more than noise makes, the least likely first; at most 10
    n_above: int  # of these people, listed or not
    sampled_from: int  # triads there are, where a sample was counted; else 0
    n_drawn: int  # people drawn evenly of very many, in whose labels triads were looked for; 0: everybody
    snapshot: str


@needs(RESEARCHER)
def triads(session: Session) -> TriadView | None:
    """Circular triads of all people, of each group and of single people; None before the first snapshot."""
    snapshot = session.snapshot()
    if snapshot is None:
        return None
    key = session.record.include_simulated
    return session.once(f"triads of {snapshot.version}", key, lambda: _triads(session, snapshot))


def _triads(session: Session, snapshot: Snapshot) -> TriadView:
    state = snapshot.graph
    visible = ~np.isin(state.user_ids, access.hidden_users(session))
    n_drawn = 0
    if len(state.labels) > MOST_LABELS:
        rows = np.flatnonzero(visible)
        n_drawn = max(1, len(rows) * MOST_LABELS // len(state.labels))
        visible = np.zeros(len(visible), bool)
        visible[rows[np.linspace(0, len(rows) - 1, n_drawn).astype(int)]] = True
    labels = state.labels.take(visible[state.labels.user])
    found = find_triads(labels, len(state.response_ids))
    counts = count_triads(found, low_wins_probability(state, found))
    group = snapshot.user_groups[counts.user]
    above = np.flatnonzero(counts.chance <= RARE)
    above = above[np.lexsort((counts.expected[above] - counts.circular[above], counts.chance[above]))]
    ids = state.user_ids[counts.user[above[:MOST]]].tolist()
    by_id = access.users_of(session, ids)
    return TriadView(
        counts.summary(),
        tuple((int(one), counts.summary(group == one)) for one in np.unique(group[group >= 0])),
        tuple((by_id[one], _of_one(counts, row)) for one, row in zip(ids, above, strict=False) if one in by_id),
        len(above),
        counts.n_found if counts.n_found > len(found.edges) else 0,
        n_drawn,
        snapshot.version,
    )


def _of_one(counts: TriadCounts, row: np.int64) -> TriadSummary:
    return counts.summary(np.arange(len(counts.user)) == row)
