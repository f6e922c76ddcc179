"""When a refit is due: enough new labels, and not too soon after the last one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from copl_core.config import Settings
from copl_core.study_settings import Schedule

FEWEST_LABELS = 10  # below this a fit would say nothing
FEWEST = {"graph": FEWEST_LABELS, "full": 2 * FEWEST_LABELS}  # a full fit keeps some labels out to measure itself
_MOST_DOUBLINGS = 8  # of the wait after runs that failed one after the other


@dataclass(frozen=True, slots=True)
class Situation:
    """What the trainer knows about one study."""

    n_labels: int
    since_graph: int  # label changes after the champion's watermark
    since_reward: int  # label changes after the watermark of its reward model
    has_snapshot: bool
    has_reward: bool
    last_graph: datetime | None  # when the last run of any kind ended
    last_reward: datetime | None  # when the last full run ended, whatever came of it
    failed_graph: int = 0  # runs of any kind that failed in a row, up to the last one
    failed_reward: int = 0  # full runs that failed in a row, up to the last one


def due(situation: Situation, settings: Settings | Schedule, now: datetime) -> tuple[str, str] | None:
    """(kind of run, reason) that is due now, or None.

    "graph" refits the preference graph and shares the reward model of the champion; "full" refits both.  Each failure
    in a row doubles the wait: what is broken is not mended by trying every few seconds, and each try is a row to read.
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


def _rested(last: datetime | None, seconds: float, failed: int, now: datetime) -> bool:
    wait = max(seconds, 1.0) * 2 ** min(failed, _MOST_DOUBLINGS) if failed else seconds
    return last is None or (now - last).total_seconds() >= wait
