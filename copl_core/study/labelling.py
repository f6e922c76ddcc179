"""The verbs of the labelling page, as functions of a session.

A task is handed out, answered or put off; every step can be taken back, and an old answer changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from copl_core.ids import rows_of
from copl_core.preference.adapt import Placement
from copl_core.preference.state import GraphState
from copl_core.records import Choice, CoplError, Label, Progress, Task
from copl_core.study import placement
from copl_core.study.access import need_owner, need_researcher
from copl_core.study.assignment import Assignment, Triple, assign
from copl_core.study.session import Session
from copl_core.study.views import Feedback, Receipt
from copl_core.study_settings import (
    UNBIASED_REASONS,
    AssignmentSettings,
    AvailablePairs,
    Draft,
    Guidelines,
    PinnedPair,
    Prediction,
    Report,
    SelectionReason,
)

_POPULATION_VOTES = 2.0  # what the population's forecast weighs beside the votes really cast


# ---- one task after another


def next_task(session: Session, user_id: int) -> Task | None:
    """The pair in front of the user: the open one, or else a newly chosen one; None when no pair is left."""
    return session.store.open_task(user_id) or _choose(session, user_id)


def submit(
    session: Session,
    task_id: int,
    user_id: int,
    choice: Choice,
    *,
    strength: int = 1,
    reason: str = "",
    tags: Sequence[str] = (),
    milliseconds: int | None = None,
    guidelines: int | None = None,
) -> Receipt:
    """Store the answer to a task and hand out the next pair.

    A task that is closed, unknown or somebody else's is stale: nothing is stored and the pair on offer is returned.
    So is one that expired and whose pair was filled by others meanwhile.

    Args:
        strength: 1 slightly better, 2 better, 3 much better.
        guidelines: the version on the screen; the newest one if not said.
    """
    label = session.store.submit(
        task_id,
        user_id,
        Choice(choice),
        strength=strength,
        reason=reason,
        tags=tags,
        milliseconds=milliseconds,
        guidelines=guidelines,
    )
    following = next_task(session, user_id) if label is None else _choose(session, user_id)
    return Receipt(label, following, _feedback(session, label))


def skip(session: Session, task_id: int, user_id: int) -> Receipt:
    """Put a pair off, to be offered again when nothing else is left, and hand out the next one; a stale task stays."""
    skipped = session.store.skip(task_id, user_id)
    return Receipt(None, _choose(session, user_id) if skipped else next_task(session, user_id))


def undo(session: Session, user_id: int) -> Task | None:
    """Take back the user's last answer or skip and show its pair again; may be asked for step after step.

    The reason they gave is the draft of the task that is shown again.
    """
    return session.store.undo(user_id)


def save_draft(session: Session, task_id: int, user_id: int, text: str, tags: Sequence[str] = ()) -> bool:
    """Keep the reason that is being typed at an open task; False where the task is not open any more."""
    return session.store.draft(task_id, user_id, Draft(text, tuple(tags)))


def draft(session: Session, task_id: int, user_id: int) -> Draft:
    return session.store.draft_of(task_id, user_id)


def progress(session: Session, user_id: int) -> Progress:
    return session.store.progress(user_id)


# ---- looking back


def labels_of(session: Session, user_id: int) -> list[Label]:
    """The user's preferences that count, oldest first."""
    return session.store.labels(session.id, user_id=user_id)


def history(session: Session, user_id: int) -> list[Label]:
    """The user's preferences, newest first; one that was edited stands there too, with ``successor_id``."""
    return session.store.history(user_id)


def edit(
    session: Session,
    label_id: int,
    user_id: int,
    choice: Choice,
    *,
    strength: int = 1,
    reason: str = "",
    tags: Sequence[str] = (),
    guidelines: int | None = None,
) -> Label:
    """Change an old answer: a new label counts in its place, the old one is kept as superseded.

    Raises:
        CoplError: the label is not one of this user's that count.
    """
    return session.store.edit(
        label_id, user_id, Choice(choice), strength=strength, reason=reason, tags=tags, guidelines=guidelines
    )


# ---- what the study has settled


def assignment_settings(session: Session) -> AssignmentSettings:
    return session.store.assignment_settings(session.id)


def set_assignment(session: Session, settings: AssignmentSettings, *, by: int | None = None) -> None:
    """Settle how pairs are handed out; open tasks stay as they were given."""
    need_owner(session, by)
    session.store.set_assignment(session.id, settings, by=by)


def guidelines(session: Session) -> Guidelines:
    """The newest version; version 0 with an empty text before anything was written."""
    return next(iter(session.store.guidelines(session.id)), Guidelines(0, ""))


def guidelines_history(session: Session) -> list[Guidelines]:
    """Every version, newest first."""
    return session.store.guidelines(session.id)


def write_guidelines(session: Session, text: str, *, by: int | None = None) -> int:
    """Save Markdown as a new version; returns its number."""
    need_owner(session, by)
    return session.store.write_guidelines(session.id, text.strip(), by=by)


def set_gold(session: Session, pair_id: int, preferred_response_id: int | None, *, by: int | None = None) -> None:
    """Give a pair a known answer, or take it away with None.

    A gold pair is asked for attention only: its answers are no preferences and do not train.
    """
    need_owner(session, by)
    session.store.set_gold(session.id, pair_id, preferred_response_id, by=by)


def gold(session: Session):
    """The gold pairs with their answers."""
    return session.store.gold(session.id)


def report(session: Session, user_id: int, response_id: int, text: str) -> Report:
    """Tell the owner of a problem with a response."""
    return session.store.report(user_id, response_id, text)


def reports(session: Session, *, resolved: bool = False) -> list[Report]:
    """Problems that wait for the owner, newest first; with ``resolved``, the settled ones too."""
    return session.store.reports(session.id, resolved=resolved)


def resolve(session: Session, report_id: int, *, by: int | None = None) -> Report:
    need_owner(session, by)
    return session.store.resolve(session.id, report_id, by=by)


# ---- pairs that everybody is handed next


def pin_pair(session: Session, pair_id: int, *, by: int | None = None) -> PinnedPair:
    """Make a pair the next task of everybody who has not answered it.

    Raises:
        CoplError: ``by`` is neither researcher nor owner, or the pair is a gold pair or not in this study.
    """
    need_researcher(session, by)
    return session.store.pin_pair(session.id, pair_id, by=by)


def unpin_pair(session: Session, pair_id: int, *, by: int | None = None) -> bool:
    """Let a pinned pair wait like any other pair again."""
    need_researcher(session, by)
    return session.store.unpin_pair(session.id, pair_id, by=by)


def pinned_pairs(session: Session) -> list[PinnedPair]:
    """Pairs that everybody is handed next, the last pinned first."""
    return session.store.pinned_pairs(session.id)


# ---- helpers


def _choose(session: Session, user_id: int) -> Task | None:
    """A newly chosen pair, handed out; the task that another window was handed meanwhile; None when none is left."""
    offer = session.store.available_pairs(user_id)
    state, placed = _placed(session, user_id, offer)
    while (chosen := assign(offer, state, placed, np.random.default_rng())) is not None:
        forecast = _forecast(session, user_id, chosen, offer, state, placed)
        minutes = offer.settings.reserve_minutes or session.settings.reserve_seconds / 60
        task = session.store.hand_out(
            user_id,
            chosen.pair_id,
            swap=chosen.left_id > chosen.right_id,
            reason=chosen.reason,
            prediction=forecast,
            expires_at=datetime.now(UTC) + timedelta(minutes=minutes),
        )
        if task is not None:
            return task
        # The pair was labelled, taken or changed since it was chosen: choose again without it.
        offer = replace(
            offer,
            pairs=_but(offer.pairs, chosen),
            gold=_but(offer.gold, chosen),
            pinned=_but(offer.pinned, chosen),
            skipped=offer.skipped | {chosen.pair_id},
        )
    return None


def _but(pairs: list[Triple], chosen: Assignment) -> list[Triple]:
    return [pair for pair in pairs if pair[0] != chosen.pair_id]


def _placed(session: Session, user_id: int, offer: AvailablePairs) -> tuple[GraphState | None, Placement | None]:
    """(graph state, the user's place in it), or nothing where no usable snapshot stands.

    A damaged champion must not stop people from labelling: pages that show it say what is wrong.
    """
    try:
        snapshot = session.open_snapshot(offer.champion)
        if snapshot is not None:
            return snapshot.graph, placement.adapted(snapshot.graph, offer.summaries, snapshot.prior, user_id)
    except (CoplError, OSError):
        pass
    return None, None


def _forecast(
    session: Session,
    user_id: int,
    chosen: Assignment,
    offer: AvailablePairs,
    state: GraphState | None,
    placed: Placement | None,
) -> Prediction | None:
    """P(left is preferred) of a pair that was chosen without the model, by the model and by the crowd's majority.

    The crowd's chance is the share of votes for left by others, with the prediction for the mean person counted as two
    votes more, so that a pair nobody has judged yet has one too.
    """
    if chosen.reason not in UNBIASED_REASONS or state is None or placed is None:
        return None
    rows = rows_of(np.array([[chosen.left_id, chosen.right_id]], np.int64), state.response_ids)
    if (rows < 0).any():
        return None
    both = np.stack([placed.vector, state.population])
    person, population = placement.preferences(state, both, rows)[:, 0].tolist()
    votes = session.store.votes(chosen.pair_id, excluding=user_id)
    for_left = votes[chosen.left_id > chosen.right_id]  # a pair's first response is the one with the smaller id
    crowd = (for_left + _POPULATION_VOTES * population) / (sum(votes) + _POPULATION_VOTES)
    return Prediction(person, crowd, offer.champion)


def _feedback(session: Session, label: Label | None) -> Feedback | None:
    """After a practice pair: what was the known answer?"""
    if label is None or label.selection_reason != SelectionReason.PRACTICE:
        return None
    known = session.store.gold_of(label.pair_id)
    return None if known is None else Feedback(label.preferred_id == known, known)
