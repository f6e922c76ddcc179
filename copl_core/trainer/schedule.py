"""When a refit is due: after enough new labels, and after a pause since the last refit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from copl_core.config import Settings
from copl_core.study_settings import Schedule

FEWEST_LABELS = 10  # with fewer labels a fit is meaningless
FEWEST = {"graph": FEWEST_LABELS, "full": 2 * FEWEST_LABELS}  # a full fit holds some labels out to measure itself
LEFT_REASON = "a person has left"
_MAX_DOUBLINGS = 8  # of the wait after consecutive failures


@dataclass(frozen=True, slots=True)
class Situation:
    """The state of one study that decides whether a run is due."""

    n_labels: int  # counted up to the fewest that a run of any kind needs
    since_graph: int  # label changes after the watermark of the newest snapshot, whichever is the champion
    since_reward: int  # label changes after the watermark of the newest reward model
    has_snapshot: bool
    has_reward: bool
    last_graph: datetime | None  # end of the last run of any kind
    last_reward: datetime | None  # end of the last full run, whatever its result
    failed_graph: int = 0  # consecutive failures of graph runs, up to the last one
    failed_reward: int = 0  # consecutive failures of full runs, up to the last one
    left: bool = False  # the champion has learned from somebody who has left since


def due(situation: Situation, settings: Settings | Schedule, now: datetime) -> dict[str, str]:
    """The kinds of runs that are due at ``now``, each with its reason; "graph" comes first, since people wait for it.

    "graph" refits the preference graph and shares the champion's reward model; "full" refits both.  Each consecutive
    failure of a kind doubles its wait: frequent retries repair nothing, and each one adds a row to the list of runs.
    """
    if situation.left:
        return _after_departure(situation, now)
    reasons = {"graph": _graph_reason(situation, settings, now), "full": _full_reason(situation, settings, now)}
    return {kind: reason for kind, reason in reasons.items() if reason}


def _after_departure(situation: Situation, now: datetime) -> dict[str, str]:
    """The run that replaces a champion which knows somebody who has left.  Where there are experts, no graph is fitted
    before it: it would replace the champion without them.
    """
    kind = "full" if situation.has_reward and situation.n_labels >= FEWEST["full"] else "graph"
    last, failed = (
        (situation.last_reward, situation.failed_reward)
        if kind == "full"
        else (situation.last_graph, situation.failed_graph)
    )
    rested = _rested(last if failed else None, 1.0, failed, now)
    return {kind: LEFT_REASON} if rested and situation.n_labels >= FEWEST[kind] else {}


def _graph_reason(situation: Situation, settings: Settings | Schedule, now: datetime) -> str:
    """Why a refit of the graph is due; empty where it is not."""
    rested = _rested(situation.last_graph, settings.refit_seconds, situation.failed_graph, now)
    if situation.n_labels < FEWEST["graph"] or not rested:
        return ""
    if not situation.has_snapshot:
        return "first snapshot of the study"
    if situation.since_graph >= settings.refit_labels:
        return f"{situation.since_graph} labels changed since the last snapshot"
    return ""


def _full_reason(situation: Situation, settings: Settings | Schedule, now: datetime) -> str:
    """Why a refit of graph and reward model is due; empty where it is not."""
    rested = _rested(situation.last_reward, settings.reward_seconds, situation.failed_reward, now)
    if situation.n_labels < FEWEST["full"] or not situation.has_snapshot or not rested:
        return ""
    if not situation.has_reward:
        return "first reward model of the study"
    if situation.since_reward >= settings.reward_labels:
        return f"{situation.since_reward} labels changed since the reward model was fitted"
    return ""


def _rested(last: datetime | None, seconds: float, failures: int, now: datetime) -> bool:
    """Whether the pause after the last run is over."""
    wait = max(seconds, 1.0) * 2 ** min(failures, _MAX_DOUBLINGS) if failures else seconds
    return last is None or (now - last).total_seconds() >= wait
