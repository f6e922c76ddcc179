"""A duty of the trainer: it looks for accounts whose answers should wait for an owner, and tells owners by the record.

It looks whenever answers have come, and rarely enough to take a small part of a core.  Several trainers may look at one
study: what one has found is no news for another.
"""

from __future__ import annotations

import logging
import time

from copl_core.insight.evidence import grounds, shown
from copl_core.records import Kind, StudyRecord
from copl_core.store import Store
from copl_core.study_settings import QUARANTINE_OFF

log = logging.getLogger("copl.worker")
LOOK_SECONDS = 10.0  # between two looks at a study
SHARE = 0.05  # of a core that looks may take


class LookOut:
    """Looks at each study whose answers have changed.

    Args:
        seconds: between two looks at a study.
    """

    def __init__(self, store: Store, seconds: float = LOOK_SECONDS) -> None:
        self.store, self.seconds = store, seconds
        self._seen: dict[int, tuple[int, ...]] = {}  # study → what it was like at the last look
        self._next: dict[int, float] = {}  # study → when the next look is due, on the monotonic clock

    def attempt(self) -> None:
        for study in self.store.studies():
            started = time.monotonic()
            if started < self._next.get(study.id, 0.0):
                continue
            self._next[study.id] = started + self.seconds
            state = self.store.answers_state(study.id)
            if state != self._seen.get(study.id):
                look_at(self.store, study)
                self._seen[study.id] = state
            self._next[study.id] += (time.monotonic() - started) / SHARE


def look_at(store: Store, study: StudyRecord) -> list[int]:
    """Quarantine the people of a study against whom there are grounds, and end the quarantine of new accounts that have
    shown themselves; returns the ids of those who are newly quarantined.
    """
    if store.assignment_settings(study.id).quarantine == QUARANTINE_OFF:
        return []
    people = {user.id: user for user in store.users(study.id) if user.kind == Kind.HUMAN}
    answers = store.answers(study.id)
    found = grounds(answers, people)
    new = [one.user.id for one in store.quarantines(study.id) if one.user.quarantined and _is_new(one.grounds)]
    for user_id in shown(answers, [one for one in new if one not in found]):
        if store.end_quarantine(user_id):
            log.info("person %s of study %s has shown to answer with care and counts now", user_id, study.id)
    quarantined = [user_id for user_id, reasons in found.items() if store.quarantine(user_id, reasons)]
    for user_id in quarantined:
        words = " ".join(one.sentence for one in found[user_id])
        log.info("person %s of study %s waits for a decision of an owner: %s", user_id, study.id, words)
    return quarantined


def _is_new(reasons: tuple) -> bool:
    return {one.kind for one in reasons} == {"new"}
