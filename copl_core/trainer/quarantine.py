"""A duty of the trainer: it looks for accounts whose answers should wait for an owner, and tells owners by the record.

It looks whenever answers have come, and rarely enough to take a small part of a core.  Several trainers may look at one
study: what one has found is no news for another.
"""

from __future__ import annotations

import logging
import time

from copl_core.insight.evidence import Evidence, grounds, shown
from copl_core.records import Ground, Kind, StudyRecord
from copl_core.store import Store
from copl_core.study_settings import QUARANTINE_OFF, AnswerTable

log = logging.getLogger("copl.worker")
LOOK_SECONDS = 10.0  # between two looks at a study
SHARE = 0.05  # of a core that looks may take
AT_ONCE = 100_000  # answers that a look reads in about a second
BLOCK = 5_000  # people of a look at a larger study
AGAIN_SECONDS = 6 * 3600.0  # from one beginning of such a study to the next


class LookOut:
    """Looks at each study whose answers have changed.

    Args:
        seconds: between two looks at a study.
        at_once: answers of a study up to which each look reads all of them; of a larger one ``BigStudy`` reads parts.
    """

    def __init__(self, store: Store, seconds: float = LOOK_SECONDS, at_once: int = AT_ONCE) -> None:
        self.store, self.seconds, self.at_once = store, seconds, at_once
        self._seen: dict[int, tuple[int, ...]] = {}  # study → what it was like at the last look
        self._next: dict[int, float] = {}  # study → when the next look is due, on the monotonic clock
        self._big: dict[int, BigStudy] = {}

    def attempt(self) -> None:
        for study in self.store.studies():
            started = time.monotonic()
            if started < self._next.get(study.id, 0.0):
                continue
            self._next[study.id] = started + self.seconds
            state = self.store.answers_state(study.id)
            if state != self._seen.get(study.id) and self._look(study):
                self._seen[study.id] = state
            self._next[study.id] += (time.monotonic() - started) / SHARE

    def _look(self, study: StudyRecord) -> bool:
        """Look at a study; whether nothing waits for the next look."""
        if self.store.assignment_settings(study.id).quarantine == QUARANTINE_OFF:
            self._big.pop(study.id, None)
            return True
        if self.store.answer_counts(study.id)[1] <= self.at_once:
            self._big.pop(study.id, None)
            look_at(self.store, study)
            return True
        return self._big.setdefault(study.id, BigStudy(self.store, study.id)).look()


class BigStudy:
    """The looks at a study of very many answers: each reads those of some people, at first of everybody in turn, then
    of those who have answered since the last look.

    A change that adds no answer (one is taken back, somebody leaves, an import has ended) is seen when everybody is
    read again, ``AGAIN_SECONDS`` later at the earliest.  Those who are to be quarantined are read at that moment.

    Args:
        block: people of a look.
    """

    def __init__(self, store: Store, study_id: int, block: int = BLOCK) -> None:
        self.store, self.study_id, self.block = store, study_id, block
        self._begin()

    def _begin(self) -> None:
        """Begin with everybody."""
        self._evidence = Evidence()
        self._label = self.store.newest_label()
        self._waiting = dict.fromkeys(self.store.users_of_kind(self.study_id, Kind.HUMAN))
        self._began = time.monotonic()
        self._everybody = False  # whether everybody has been read

    def look(self) -> bool:
        """Read some people and act on what is known of all; whether nobody waits to be read."""
        if time.monotonic() >= self._began + AGAIN_SECONDS and self._everybody and not self._waiting:
            self._begin()
        changed, self._label = self.store.answered_since(self.study_id, self._label)
        self._waiting = dict.fromkeys(changed) | self._waiting  # first, since they may have shown themselves
        some = list(self._waiting)[: self.block]
        if not some:
            return True
        answers = self._read(some)
        for user_id in some:
            del self._waiting[user_id]
        self._everybody = self._everybody or not self._waiting
        found = self._evidence.grounds() if self._everybody else {}
        if found:  # an answer may have been taken back since
            self._read(list(found))
            found = self._evidence.grounds()
        act_on(self.store, self.study_id, found, answers)
        return not self._waiting

    def _read(self, user_ids: list[int]) -> AnswerTable:
        people = {user.id for user in self.store.users(self.study_id, ids=user_ids) if user.kind == Kind.HUMAN}
        answers = self.store.answers(self.study_id, users=user_ids)
        self._evidence.update(answers, people)
        return answers


def look_at(store: Store, study: StudyRecord) -> list[int]:
    """Quarantine the people of a study against whom there are grounds, and end the quarantine of new accounts that have
    shown themselves; returns the ids of those who are newly quarantined.
    """
    if store.assignment_settings(study.id).quarantine == QUARANTINE_OFF:
        return []
    people = [user.id for user in store.users(study.id) if user.kind == Kind.HUMAN]
    answers = store.answers(study.id)
    return act_on(store, study.id, grounds(answers, people), answers)


def act_on(store: Store, study_id: int, found: dict[int, list[Ground]], answers: AnswerTable) -> list[int]:
    """Do what ``look_at`` says.

    Args:
        found: person → grounds.
        answers: of all people, or of some; new accounts among them may have shown themselves.
    """
    new = [one.user.id for one in store.quarantines(study_id) if one.user.quarantined and _is_new(one.grounds)]
    for user_id in shown(answers, [one for one in new if one not in found]):
        if store.end_quarantine(user_id):
            log.info("person %s of study %s has shown to answer with care and counts now", user_id, study_id)
    quarantined = [user_id for user_id, reasons in found.items() if store.quarantine(user_id, reasons)]
    for user_id in quarantined:
        words = " ".join(one.sentence for one in found[user_id])
        log.info("person %s of study %s waits for a decision of an owner: %s", user_id, study_id, words)
    return quarantined


def _is_new(reasons: tuple) -> bool:
    return {one.kind for one in reasons} == {"new"}
