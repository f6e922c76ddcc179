"""The verbs of the labelling room, as functions of a study; ``Study`` carries each under the same name.

A task is handed out, answered or put off; every step can be taken back, and an old answer changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from copl_core import places
from copl_core.access import need_owner
from copl_core.assign import Assignment, Triple, assign
from copl_core.preference.adapt import Placement
from copl_core.preference.state import GraphState
from copl_core.records import Choice, CoplError, Label, Pair, Progress, Response, Task
from copl_core.rules import HONEST, Asked, Draft, Forecast, Guidelines, Offer, Report, RoomSettings
from copl_core.tables import rows_of
from copl_core.views import Feedback, Receipt

if TYPE_CHECKING:
    from copl_core.study import Study

_POPULATION_VOTES = 2.0  # what the population's forecast weighs beside the votes really cast


# ---- one task after another


def next_task(study: Study, user_id: int) -> Task | None:
    """The pair in front of the user: the open one, or else a newly chosen one; None when no pair is left."""
    return study.store.open_task(user_id) or _choose(study, user_id)


def submit(
    study: Study,
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
    label = study.store.submit(
        task_id,
        user_id,
        Choice(choice),
        strength=strength,
        reason=reason,
        tags=tags,
        milliseconds=milliseconds,
        guidelines=guidelines,
    )
    following = next_task(study, user_id) if label is None else _choose(study, user_id)
    return Receipt(label, following, _feedback(study, label))


def skip(study: Study, task_id: int, user_id: int) -> Receipt:
    """Put a pair off, to be offered again when nothing else is left, and hand out the next one; a stale task stays."""
    skipped = study.store.skip(task_id, user_id)
    return Receipt(None, _choose(study, user_id) if skipped else next_task(study, user_id))


def undo(study: Study, user_id: int) -> Task | None:
    """Take back the user's last answer or skip and show its pair again; may be asked for step after step.

    The reason they gave is the draft of the task that is shown again.
    """
    return study.store.undo(user_id)


def draft(study: Study, task_id: int, user_id: int, text: str, tags: Sequence[str] = ()) -> bool:
    """Keep the reason that is being typed at an open task; False where the task is not open any more."""
    return study.store.draft(task_id, user_id, Draft(text, tuple(tags)))


def draft_of(study: Study, task_id: int, user_id: int) -> Draft:
    return study.store.draft_of(task_id, user_id)


def progress(study: Study, user_id: int) -> Progress:
    return study.store.progress(user_id)


# ---- looking back


def labels_of(study: Study, user_id: int) -> list[Label]:
    """The user's preferences that count, oldest first."""
    return study.store.labels(study.id, user_id=user_id)


def history(study: Study, user_id: int) -> list[Label]:
    """The user's preferences, newest first; one that was edited stands there too, with ``successor_id``."""
    return study.store.history(user_id)


def edit(
    study: Study,
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
    return study.store.edit(
        label_id, user_id, Choice(choice), strength=strength, reason=reason, tags=tags, guidelines=guidelines
    )


# ---- what the study has settled


def room_settings(study: Study) -> RoomSettings:
    return study.store.room(study.id)


def set_room(study: Study, settings: RoomSettings, *, by: int | None = None) -> None:
    """Settle how pairs are handed out; open tasks stay as they were given."""
    need_owner(study, by)
    study.store.set_room(study.id, settings, by=by)


def guidelines(study: Study) -> Guidelines:
    """The newest version; version 0 with an empty text before anything was written."""
    return next(iter(study.store.guidelines(study.id)), Guidelines(0, ""))


def guidelines_history(study: Study) -> list[Guidelines]:
    """Every version, newest first."""
    return study.store.guidelines(study.id)


def write_guidelines(study: Study, text: str, *, by: int | None = None) -> int:
    """Save Markdown as a new version; returns its number."""
    need_owner(study, by)
    return study.store.write_guidelines(study.id, text.strip(), by=by)


def set_gold(study: Study, pair_id: int, preferred_response_id: int | None, *, by: int | None = None) -> None:
    """Give a pair a known answer, or take it away with None.

    A gold pair is asked for attention only: its answers are no preferences and do not train.
    """
    need_owner(study, by)
    study.store.set_gold(study.id, pair_id, preferred_response_id, by=by)


def gold(study: Study):
    """The gold pairs with their answers."""
    return study.store.gold(study.id)


def find_pairs(study: Study, wanted: str, limit: int = 10) -> tuple[list[Pair], int]:
    """(some pairs in whose prompt or responses every word occurs, how many there are), by id."""
    words = wanted.casefold().split()
    prompts = dict(study.store.prompts(study.id))
    pairs = study.store.pairs(study.id)
    texts = study.store.responses(sorted({side for pair in pairs for side in pair[1:]}))
    found = []
    for pair_id, first, second in pairs:
        prompt = prompts[texts[first].prompt_id]
        whole = f"{prompt} {texts[first].text} {texts[second].text}".casefold()
        if all(word in whole for word in words):
            found.append(Pair(pair_id, texts[first].prompt_id, prompt, texts[first], texts[second]))
    return found[:limit], len(found)


def responses(study: Study, response_ids: Sequence[int]) -> dict[int, Response]:
    """The responses of these ids that there are, by id."""
    return study.store.responses(response_ids)


def report(study: Study, user_id: int, response_id: int, text: str) -> Report:
    """Tell the owner of a problem with a response."""
    return study.store.report(user_id, response_id, text)


def reports(study: Study, *, resolved: bool = False) -> list[Report]:
    """Problems that wait for the owner, newest first; with ``resolved``, the settled ones too."""
    return study.store.reports(study.id, resolved=resolved)


def resolve(study: Study, report_id: int, *, by: int | None = None) -> Report:
    need_owner(study, by)
    return study.store.resolve(study.id, report_id, by=by)


# ---- helpers


def _choose(study: Study, user_id: int) -> Task | None:
    """A newly chosen pair, handed out; the task that another window was handed meanwhile; None when none is left."""
    offer = study.store.offer(user_id)
    state, placement = _placed(study, user_id, offer)
    while (chosen := assign(offer, state, placement, np.random.default_rng())) is not None:
        forecast = _forecast(study, user_id, chosen, offer, state, placement)
        minutes = offer.room.reserve_minutes or study.settings.reserve_seconds / 60
        task = study.store.hand_out(
            user_id,
            chosen.pair_id,
            swap=chosen.left_id > chosen.right_id,
            reason=chosen.reason,
            forecast=forecast,
            expires_at=datetime.now(UTC) + timedelta(minutes=minutes),
        )
        if task is not None:
            return task
        # The pair was labelled, taken or changed since it was chosen: choose again without it.
        offer = replace(
            offer,
            pairs=_but(offer.pairs, chosen),
            gold=_but(offer.gold, chosen),
            front=_but(offer.front, chosen),
            skipped=offer.skipped | {chosen.pair_id},
        )
    return None


def _but(pairs: list[Triple], chosen: Assignment) -> list[Triple]:
    return [pair for pair in pairs if pair[0] != chosen.pair_id]


def _placed(study: Study, user_id: int, offer: Offer) -> tuple[GraphState | None, Placement | None]:
    """(graph state, the user's place in it), or nothing where no usable snapshot stands.

    A damaged champion must not stop people from labelling: pages that show it say what is wrong.
    """
    try:
        snapshot = study.open_snapshot(offer.champion)
        if snapshot is not None:
            return snapshot.graph, places.adapted(snapshot.graph, offer.said, snapshot.prior, user_id)
    except (CoplError, OSError):
        pass
    return None, None


def _forecast(
    study: Study, user_id: int, chosen: Assignment, offer: Offer, state: GraphState | None, placement: Placement | None
) -> Forecast | None:
    """P(left is preferred) of a pair that was chosen without the model, by the model and by the crowd's majority.

    The crowd's chance is the share of votes for left by others, with the prediction for the mean person counted as two
    votes more, so that a pair nobody has judged yet has one too.
    """
    if chosen.reason not in HONEST or state is None or placement is None:
        return None
    rows = rows_of(np.array([[chosen.left_id, chosen.right_id]], np.int64), state.response_ids)
    if (rows < 0).any():
        return None
    both = np.stack([placement.vector, state.population])
    person, population = places.preferences(state, both, rows)[:, 0].tolist()
    votes = study.store.votes(chosen.pair_id, besides=user_id)
    for_left = votes[chosen.left_id > chosen.right_id]  # a pair's first response is the one with the smaller id
    crowd = (for_left + _POPULATION_VOTES * population) / (sum(votes) + _POPULATION_VOTES)
    return Forecast(person, crowd, offer.champion)


def _feedback(study: Study, label: Label | None) -> Feedback | None:
    """After a practice pair: what was the known answer?"""
    if label is None or label.asked != Asked.PRACTICE:
        return None
    known = study.store.gold_of(label.pair_id)
    return None if known is None else Feedback(label.preferred_id == known, known)
