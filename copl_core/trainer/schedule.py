"""When a refit is due: after enough new labels, and after a pause since the last refit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from copl_core.config import Settings
from copl_core.study_settings import Schedule

FEWEST_LABELS = 10  # with fewer labels a fit is meaningless
FEWEST = {"graph": FEWEST_LABELS, "full": 2 * FEWEST_LABELS}  # a full fit holds some labels out to measure itself
_MAX_DOUBLINGS = 8  # of the wait after consecutive failures


@dataclass(frozen=True, slots=True)
class Situation:
    """The state of one study that decides whether a run is due."""

    n_labels: int
    since_graph: int  # label changes after the champion's watermark
    since_reward: int  # label changes after the watermark of its reward model
    has_snapshot: bool
    has_reward: bool
    last_graph: datetime | None  # end of the last run of any kind
    last_reward: datetime | None  # end of the last full run, whatever its result
    failed_graph: int = 0  # consecutive failures of runs of any kind, up to the last run
    failed_reward: int = 0  # consecutive failures of full runs, up to the last one


def due(situation: Situation, settings: Settings | Schedule, now: datetime) -> tuple[str, str] | None:
    """(kind of run, reason) that is due at ``now``, or None.

    "graph" refits the preference graph and shares the champion's reward model; "full" refits both.  Each consecutive
    failure doubles the wait: frequent retries repair nothing, and each one adds a row to the list of runs.
    """
    if situation.n_labels < FEWEST_LABELS:
        return None
    rested = _rested(situation.last_graph, settings.refit_seconds, situation.failed_graph, now)
    if not situation.has_snapshot:
        return ("graph", "first snapshot of the study") if rested else None
    reward_rested = situation.n_labels >= FEWEST["full"] and _rested(
        situation.last_reward, settings.reward_seconds, situation.failed_reward, now
    )
    if not situation.has_reward and reward_rested:
        return "full", "first reward model of the study"
    if situation.has_reward and situation.since_reward >= settings.reward_labels and reward_rested:
        return "full", f"{situation.since_reward} labels changed since the reward model was fitted"
    if situation.since_graph >= settings.refit_labels and rested:
        return "graph", f"{situation.since_graph} labels changed since the last snapshot"
    return None


def _rested(last: datetime | None, seconds: float, failures: int, now: datetime) -> bool:
    """Whether the pause after the last run is over."""
    wait = max(seconds, 1.0) * 2 ** min(failures, _MAX_DOUBLINGS) if failures else seconds
    return last is None or (now - last).total_seconds() >= wait
