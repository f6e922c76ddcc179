"""What pages need of a champion before they can show anything, done once and before somebody waits for it.

With a million people the graph, its prior and the map take a second of a processor, what divides people another one,
and the texts on which tastes are measured half of one.
"""

from __future__ import annotations

from copl_core.study import controversy, drawn, small_map, user_profile
from copl_core.study.roles import TERMINAL, needs
from copl_core.study.session import Session


@needs(TERMINAL)
def read_ahead(session: Session) -> None:
    """Read and compute, in the order in which visitors usually come, what stays in memory until the next champion.

    Raises:
        CoplError: the champion's files are missing or damaged.
    """
    snapshot = session.snapshot()
    if snapshot is None:
        return
    snapshot.read_ahead()
    small_map.points(session, snapshot)
    user_profile.measure_pairs(session)
    controversy.table(session)
    if len(snapshot.layout.user_ids) > drawn.MOST_DRAWN:
        drawn.drawn_people(session, snapshot)
