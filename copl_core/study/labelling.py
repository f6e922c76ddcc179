"""The verbs of the labelling page: assign, answer and skip tasks, undo steps, and edit old answers."""

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
from copl_core.study.assignment import Assignment, Triple, assign
from copl_core.study.roles import MEMBER, OWN, OWNER, RESEARCHER, needs
from copl_core.study.session import Session
from copl_core.study.views import Feedback, Receipt
from copl_core.study_settings import (
    UNBIASED_REASONS,
    AssignmentSettings,
    AvailablePairs,
    Draft,
    GoldPair,
    Guidelines,
    PinnedPair,
    Prediction,
    Report,
    SelectionReason,
    WithdrawnPair,
)

_POPULATION_VOTES = 2.0  # weight of the population's prediction, in votes


# ---- one task after another


@needs(OWN)
def next_task(session: Session, user_id: int) -> Task | None:
    """The user's open task, else a newly chosen one; None when no pair is left."""
    return session.store.open_task(user_id) or _choose(session, user_id)


@needs(OWN)
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
    """Store the answer to a task and choose the next one.

    A task that is closed, unknown or of another user is stale: nothing is stored, and the user's open task is returned.
    A task is also stale if it expired and other users have filled its pair meanwhile.

    Args:
        strength: 1 slightly better, 2 better, 3 much better.
        guidelines: the version on the screen; by default the newest one.
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


@needs(OWN)
def skip(session: Session, task_id: int, user_id: int) -> Receipt:
    """Skip a pair, which comes again when no other is left, and choose the next one; a stale task changes nothing."""
    skipped = session.store.skip(task_id, user_id)
    return Receipt(None, _choose(session, user_id) if skipped else next_task(session, user_id))


@needs(OWN)
def undo(session: Session, user_id: int) -> Task | None:
    """Take back the user's last answer or skip and reopen its pair; repeated calls go further back.

    The reason of the answer becomes the draft of the reopened task.
    """
    return session.store.undo(user_id)


@needs(OWN)
def save_draft(session: Session, task_id: int, user_id: int, text: str, tags: Sequence[str] = ()) -> bool:
    """Store the reason that a user is typing for an open task; False where the task is closed."""
    return session.store.draft(task_id, user_id, Draft(text, tuple(tags)))


@needs(OWN)
def draft(session: Session, task_id: int, user_id: int) -> Draft:
    return session.store.draft_of(task_id, user_id)


@needs(OWN)
def progress(session: Session, user_id: int) -> Progress:
    return session.store.progress(user_id)


@needs(MEMBER)
def has_pairs(session: Session) -> bool:
    """Whether the study has any pair; a new one has none until a file is imported."""
    return bool(session.store.pairs(session.id))


# ---- looking back


@needs(OWN)
def labels_of(session: Session, user_id: int) -> list[Label]:
    """The user's preferences that count, oldest first."""
    return session.store.labels(session.id, user_id=user_id)


@needs(OWN)
def history(session: Session, user_id: int) -> list[Label]:
    """The user's preferences, newest first, with the superseded ones, which have a ``successor_id``."""
    return session.store.history(user_id)


@needs(OWN)
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
    """Change an old answer: a new label replaces it, and the old one stays as superseded.

    Raises:
        CoplError: the label is not this user's, or does not count.
    """
    return session.store.edit(
        label_id, user_id, Choice(choice), strength=strength, reason=reason, tags=tags, guidelines=guidelines
    )


# ---- settings of the study


@needs(MEMBER)
def assignment_settings(session: Session) -> AssignmentSettings:
    return session.store.assignment_settings(session.id)


@needs(OWNER)
def set_assignment(session: Session, settings: AssignmentSettings, *, by: int | None = None) -> None:
    """Store how pairs are assigned; open tasks stay as they are."""
    session.store.set_assignment(session.id, settings, by=by)


@needs(MEMBER)
def guidelines(session: Session) -> Guidelines:
    """The newest version; version 0 with an empty text before the first one."""
    return next(iter(session.store.guidelines(session.id)), Guidelines(0, ""))


@needs(MEMBER)
def guidelines_history(session: Session) -> list[Guidelines]:
    """Every version, newest first."""
    return session.store.guidelines(session.id)


@needs(OWNER)
def write_guidelines(session: Session, text: str, *, by: int | None = None) -> int:
    """Save Markdown as a new version; returns its number."""
    return session.store.write_guidelines(session.id, text.strip(), by=by)


@needs(OWNER)
def set_gold(session: Session, pair_id: int, preferred_response_id: int | None, *, by: int | None = None) -> None:
    """Give a pair a known answer, or remove it with None.

    A gold pair checks attention only: answers to it are not preferences and do not train the model.
    """
    session.store.set_gold(session.id, pair_id, preferred_response_id, by=by)


@needs(OWNER)
def gold(session: Session) -> list[GoldPair]:
    """The gold pairs with their answers."""
    return session.store.gold(session.id)


@needs(OWN)
def report(session: Session, user_id: int, response_id: int, text: str) -> Report:
    """Report a problem with a response to the owner."""
    return session.store.report(user_id, response_id, text)


@needs(OWNER)
def reports(session: Session, *, resolved: bool = False) -> list[Report]:
    """Open reports, newest first; with ``resolved`` the resolved ones too."""
    return session.store.reports(session.id, resolved=resolved)


@needs(OWNER)
def resolve(session: Session, report_id: int, *, by: int | None = None) -> Report:
    """Mark a report as resolved."""
    return session.store.resolve(session.id, report_id, by=by)


# ---- pinned pairs


@needs(RESEARCHER)
def pin_pair(session: Session, pair_id: int, *, by: int | None = None) -> PinnedPair:
    """Make a pair the next task of every user who has not answered it.

    Raises:
        CoplError: ``by`` is neither researcher nor owner, or the pair is a gold pair or not in this study.
    """
    return session.store.pin_pair(session.id, pair_id, by=by)


@needs(RESEARCHER)
def unpin_pair(session: Session, pair_id: int, *, by: int | None = None) -> bool:
    """Treat a pinned pair like any other pair again; False where it is not pinned."""
    return session.store.unpin_pair(session.id, pair_id, by=by)


@needs(RESEARCHER)
def pinned_pairs(session: Session) -> list[PinnedPair]:
    """Pairs that are the next task of every user, the last pinned first."""
    return session.store.pinned_pairs(session.id)


# ---- withdrawn pairs


@needs(OWNER)
def withdraw_pairs(session: Session, pair_ids: Sequence[int], *, by: int | None = None) -> int:
    """Hand out pairs no more, whatever they are: new, repeated, pinned or gold; returns how many were handed out
    before.

    Whoever has one on the screen gets the next pair, and their answer to it is stale.  Labels stay as they are.

    Raises:
        CoplError: a pair is not in this study; nothing changes.
    """
    return session.store.withdraw_pairs(session.id, pair_ids, by=by)


@needs(OWNER)
def hand_out_again(session: Session, pair_ids: Sequence[int], *, by: int | None = None) -> int:
    """Hand out withdrawn pairs again, where they have free slots; returns how many were withdrawn.

    Raises:
        CoplError: a pair is not in this study; nothing changes.
    """
    return session.store.hand_out_again(session.id, pair_ids, by=by)


@needs(OWNER)
def withdrawn_pairs(session: Session) -> list[WithdrawnPair]:
    """Pairs that nobody is handed, the last withdrawn first."""
    return session.store.withdrawn_pairs(session.id)


@needs(OWNER)
def pairs_with(session: Session, response_id: int) -> list[int]:
    """Ids of the pairs with a response, ascending."""
    return session.store.pairs_with(session.id, response_id)


# ---- helpers


def _choose(session: Session, user_id: int) -> Task | None:
    """A newly chosen task; the open task if another window has one by then; None when no pair is left."""
    available = session.store.available_pairs(user_id)
    state, embedding = _embedding(session, user_id, available)
    while (chosen := assign(available, state, embedding, np.random.default_rng())) is not None:
        minutes = available.settings.reserve_minutes or session.settings.reserve_seconds / 60
        task = session.store.hand_out(
            user_id,
            chosen.pair_id,
            swap=chosen.left_id > chosen.right_id,
            reason=chosen.reason,
            prediction=_prediction(session, user_id, chosen, available, state, embedding),
            expires_at=datetime.now(UTC) + timedelta(minutes=minutes),
        )
        if task is not None:
            return task
        # Meanwhile the pair was labelled, reserved or changed: choose again without it.
        available = replace(
            available,
            pairs=_without(available.pairs, chosen),
            gold=_without(available.gold, chosen),
            pinned=_without(available.pinned, chosen),
            skipped=available.skipped | {chosen.pair_id},
        )
    return None


def _without(pairs: list[Triple], chosen: Assignment) -> list[Triple]:
    return [pair for pair in pairs if pair[0] != chosen.pair_id]


def _embedding(session: Session, user_id: int, available: AvailablePairs) -> tuple[GraphState | None, Placement | None]:
    """(graph state, the user's embedding in it), or (None, None) without a usable snapshot.

    A champion that is damaged or not here yet must not stop users from labelling: the pages say what is wrong.
    """
    try:
        if available.champion is not None:
            session.bring(available.champion, 0.0)
        snapshot = session.open_snapshot(available.champion)
        if snapshot is not None:
            state = snapshot.graph
            return state, placement.adapted(state, available.summaries, snapshot.prior, user_id)
    except (CoplError, OSError):
        pass
    return None, None


def _prediction(
    session: Session,
    user_id: int,
    chosen: Assignment,
    available: AvailablePairs,
    state: GraphState | None,
    embedding: Placement | None,
) -> Prediction | None:
    """P(left is preferred) by the model and by the majority of others; None for a pair that the model chose.

    The majority's probability is the share of votes for left by other users.  The prediction for the mean user counts
    as two more votes, so a pair without votes has a probability too.
    """
    if chosen.reason not in UNBIASED_REASONS or state is None or embedding is None or available.champion is None:
        return None
    rows = rows_of(np.array([[chosen.left_id, chosen.right_id]], np.int64), state.response_ids)
    if (rows < 0).any():
        return None
    both = np.stack([embedding.vector, state.population])
    user, population = placement.preferences(state, both, rows)[:, 0].tolist()
    votes = session.store.votes(chosen.pair_id, excluding=user_id)
    for_left = votes[chosen.left_id > chosen.right_id]  # a pair's first response is the one with the smaller id
    crowd = (for_left + _POPULATION_VOTES * population) / (sum(votes) + _POPULATION_VOTES)
    return Prediction(user, crowd, available.champion)


def _feedback(session: Session, label: Label | None) -> Feedback | None:
    """The known answer, after a practice pair."""
    if label is None or label.selection_reason != SelectionReason.PRACTICE:
        return None
    known = session.store.gold_of(label.pair_id)
    return None if known is None else Feedback(label.preferred_id == known, known)
