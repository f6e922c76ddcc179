"""The verbs of counts that everybody of a study sees: with noise, released once for each day.

An owner switches them on, with the ε of a day.  A day is released once it is over (in UTC), in one draw of noise that
is stored: who reads again reads the same numbers, and nobody can average the noise away.  Days are apart, so a day
tells of an answer as much as if there were no other; over all days a person's ε is the sum of those on which they
answered, up to a total, after which their answers are counted no more.  Of one person's day the first
``ANSWERS_A_DAY`` answers count, so one person changes a count by no more.

It is continual release (Dwork, Naor, Pitassi, Rothblum, STOC 2010) with one node for each day, without their tree of
nodes above the days: a tree of 1,024 days has less noise only in sums of more than a thousand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from random import Random

from copl_core.noise import deviation, two_sided_geometric
from copl_core.records import CoplError
from copl_core.study.roles import MEMBER, OWNER, needs
from copl_core.study.session import Session
from copl_core.study_settings import DayOfAnswers, SharedDay

ANSWERS_A_DAY = 10  # of one person that count
MOST_SOURCES = 30  # with more, their counts are small beside the noise
_OF_ANSWERS = 0.25  # share of a day's ε for the number of answers; the rest is for the counts by source
_SIGMA = 1.96


@dataclass(frozen=True, slots=True)
class SourceCount:
    """How often the responses of a source are preferred."""

    source: str
    preferred: int  # answers, with noise
    not_preferred: int
    share: float | None  # of the two, those preferred; None: the noise is too large for one
    half_width: float  # of its 95 % interval, for the noise alone


@dataclass(frozen=True, slots=True)
class SharedCounts:
    """What everybody of a study sees."""

    epsilon: float  # of a day
    total: float  # of a person over all days
    since: date
    until: date | None  # the last day that is released; None: none yet
    answers: int  # with noise
    answers_deviation: float  # standard deviation of their noise
    sources: tuple[SourceCount, ...]  # the most preferred first


@needs(OWNER)
def share(session: Session, epsilon: float, total: float, *, by: int | None = None) -> None:
    """Share counts with everybody of the study from today on, with this ε for a day and for a person in all; 0: stop.

    Days that are released stay so.

    Raises:
        CoplError: a number is out of range; nothing changes.
    """
    settings = session.store.assignment_settings(session.id)
    since = settings.shared_since
    if epsilon and not (settings.shared_epsilon and since):
        since = datetime.now(UTC).date().isoformat()
    settings = replace(settings, shared_epsilon=epsilon, shared_total=total, shared_since=since)
    session.store.set_assignment(session.id, settings, by=by)


@needs(MEMBER)
def counts(session: Session) -> SharedCounts | None:
    """The counts that everybody sees; None where the study shares none.

    Days that are over are released now, unless the database takes no change at present.
    """
    settings = session.store.assignment_settings(session.id)
    if not settings.shared_epsilon or not settings.shared_since:
        return None
    _release(session)
    since = date.fromisoformat(settings.shared_since)
    days = [day for day in session.store.shared_days(session.id) if day.day >= since]
    return SharedCounts(
        settings.shared_epsilon,
        settings.shared_total,
        since,
        days[-1].day if days else None,
        sum(day.answers for day in days),
        math.hypot(*(deviation(_parts(day.epsilon, bool(day.by_source))[0], ANSWERS_A_DAY) for day in days)),
        tuple(_by_source(days)),
    )


def _release(session: Session) -> None:
    waiting = session.store.days_to_share(session.id)
    if not waiting:
        return
    settings = session.store.assignment_settings(session.id)
    sources = dict(session.store.sources(session.id))
    days = released(waiting, sources, settings.shared_epsilon, settings.shared_total)
    with suppress(CoplError):  # a database that takes no change: what is released already is shown
        session.store.keep_shared(session.id, days)


def released(
    days: Iterable[DayOfAnswers],
    sources: Mapping[int, str],
    epsilon: float,
    total: float,
    random: Random | None = None,
) -> list[SharedDay]:
    """Counts of days with their noise.

    Args:
        sources: response → its source.
        epsilon: of a day.
        total: of a person over all days, those released before included.
        random: of tests; None: the operating system's.
    """
    names = sorted(set(sources.values()))
    names = names if 2 <= len(names) <= MOST_SOURCES else []
    of_answers, of_sources = _parts(epsilon, bool(names))
    spent: dict[int, float] = {}
    found = []
    for day in days:
        by_user: dict[int, list[tuple[int, int]]] = {}
        for user, preferred, other in day.answers:
            by_user.setdefault(user, []).append((preferred, other))
        counted: list[tuple[int, int]] = []
        for user, answers in by_user.items():
            before = spent.setdefault(user, day.spent.get(user, 0.0))
            if before + epsilon <= total + 1e-9:
                counted += answers[:ANSWERS_A_DAY]
                spent[user] = before + epsilon
        (noise,) = two_sided_geometric(1, of_answers, ANSWERS_A_DAY, random)
        found.append(
            SharedDay(day.day, epsilon, len(counted) + noise, _noised(counted, sources, names, of_sources, random))
        )
    return found


def _noised(
    answers: list[tuple[int, int]], sources: Mapping[int, str], names: list[str], epsilon: float, random: Random | None
) -> dict[str, tuple[int, int]]:
    """Source → (answers that prefer it to another source, that prefer another one), with noise."""
    exact = {name: [0, 0] for name in names}
    for preferred, other in answers:
        first, second = sources.get(preferred), sources.get(other)
        if first != second and first in exact and second in exact:
            exact[first][0] += 1
            exact[second][1] += 1
    noise = iter(two_sided_geometric(2 * len(names), epsilon, 2 * ANSWERS_A_DAY, random))
    return {name: (won + next(noise), lost + next(noise)) for name, (won, lost) in exact.items()}


def _parts(epsilon: float, by_source: bool) -> tuple[float, float]:
    """The ε of a day's number of answers, and that of its counts by source."""
    return (_OF_ANSWERS * epsilon, (1 - _OF_ANSWERS) * epsilon) if by_source else (epsilon, 0.0)


def _by_source(days: list[SharedDay]) -> list[SourceCount]:
    found = []
    for name in sorted({name for day in days for name in day.by_source}):
        with_it = [day for day in days if name in day.by_source]
        won, lost = (sum(day.by_source[name][side] for day in with_it) for side in (0, 1))
        noise = math.hypot(*(deviation(_parts(day.epsilon, True)[1], 2 * ANSWERS_A_DAY) for day in with_it))
        n = won + lost
        if n <= 2 * _SIGMA * noise:
            found.append(SourceCount(name, won, lost, None, math.inf))
            continue
        share = min(max(won / n, 0.0), 1.0)
        found.append(SourceCount(name, won, lost, share, _SIGMA * noise * math.hypot(share, 1 - share) / n))
    return sorted(found, key=lambda one: -1.0 if one.share is None else one.share, reverse=True)
