"""Which pair a user is handed next, and which response stands on the left.  Numpy only.

Unless the study settles otherwise, about 70 % of pairs are chosen to teach the most about *this* person, 20 % uniformly
(the only ones on which accuracy may be reported, since the choice of the others depends on the model), 10 % repeat a
pair of theirs with sides swapped.  Where the study has gold pairs a few of those are mixed in, and a newcomer may begin
with some as practice.  A pair that a researcher has asked for comes before all but practice.  Before there is a
snapshot every new pair is uniform.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from copl_core.ids import rows_of
from copl_core.preference.acquire import informative
from copl_core.preference.adapt import Placement
from copl_core.preference.state import GraphState
from copl_core.records import Label
from copl_core.study_settings import AssignmentSettings, AvailablePairs, LabelSummary, SelectionReason

_CANDIDATES = 500  # the best of more is hardly better, and the next pair should be there at once
_REPEAT_AFTER = 8  # labels that must lie between a pair and its repeat

Triple = tuple[int, int, int]  # (pair id, first response id, second response id)


@dataclass(frozen=True, slots=True)
class Assignment:
    pair_id: int
    left_id: int  # the response that stands on the left
    right_id: int
    reason: str  # a value of ``SelectionReason``


@dataclass(frozen=True, slots=True)
class SelectionMix:
    """Chances of each reason; those of new pairs are shared out anew where a repeat or gold pair is not to be had."""

    informative: float = 0.7
    uniform: float = 0.2
    repeat: float = 0.1
    gold: float = 0.0
    imported: float = 0.0

    @classmethod
    def of(cls, room: AssignmentSettings, *, any_gold: bool = True) -> SelectionMix:
        gold = room.gold if any_gold else 0.0
        new = 1 - room.repeats - gold
        if room.order == SelectionReason.INFORMATIVE:
            return cls(max(0.0, new - room.uniform), room.uniform, room.repeats, gold)
        if room.order == SelectionReason.IMPORTED:
            return cls(0, 0, room.repeats, gold, new)
        return cls(0, new, room.repeats, gold)


def assign(
    offer: AvailablePairs, state: GraphState | None, placement: Placement | None, rng: np.random.Generator
) -> Assignment | None:
    """The next pair of a user by the rules of their study; None when nothing is left.

    Practice comes first, then what a researcher has put at the front, then the mix.
    """
    if offer.newcomer and offer.n_practice < offer.settings.practice and offer.gold:
        return _drawn(offer.gold, SelectionReason.PRACTICE, rng)
    if offer.pinned:
        return _sides(offer.pinned[0], SelectionReason.PINNED, rng)
    mix = SelectionMix.of(offer.settings, any_gold=bool(offer.gold))
    return choose(offer.pairs, offer.summaries, state, placement, rng, mix, offer.gold, offer.skipped)


def choose(
    pairs: Sequence[Triple],
    labels: Sequence[Label | LabelSummary],
    state: GraphState | None,
    placement: Placement | None,
    rng: np.random.Generator,
    mix: SelectionMix | None = None,
    gold: Sequence[Triple] = (),
    skipped: Collection[int] = (),
) -> Assignment | None:
    """Pick the next pair of a user.

    Args:
        pairs: those still open to the user.
        labels: the user's counting labels, oldest first.
        state, placement: the champion's graph and the user's place in it; None before the first snapshot.
        gold: gold pairs the user has not seen.
        skipped: pairs the user has put off, which are not repeated either.

    Returns:
        None when no pair is left.
    """
    mix = mix or SelectionMix()
    if not pairs:
        return None  # not even a repeat: whoever is done stays done
    draw = rng.random()
    repeat = _repeat(labels, skipped, rng) if draw < mix.repeat else None
    if repeat:
        return repeat
    if gold and mix.repeat <= draw < mix.repeat + mix.gold:
        return _drawn(gold, SelectionReason.GOLD, rng)
    if mix.imported:
        return _sides(pairs[0], SelectionReason.IMPORTED, rng)
    chosen = None
    if state is not None and placement is not None and rng.random() * (mix.informative + mix.uniform) < mix.informative:
        chosen = _most_informative(pairs, state, placement, rng)
    return (
        _drawn(pairs, SelectionReason.UNIFORM, rng)
        if chosen is None
        else _sides(chosen, SelectionReason.INFORMATIVE, rng)
    )


def _drawn(pairs: Sequence[Triple], reason: SelectionReason, rng: np.random.Generator) -> Assignment:
    return _sides(pairs[int(rng.integers(len(pairs)))], reason, rng)


def _sides(pair: Triple, reason: SelectionReason, rng: np.random.Generator) -> Assignment:
    left = int(rng.integers(2))
    return Assignment(pair[0], pair[1 + left], pair[2 - left], reason.value)


def _repeat(
    labels: Sequence[Label | LabelSummary], skipped: Collection[int], rng: np.random.Generator
) -> Assignment | None:
    """An earlier pair of the user's, answered once and not lately, with its sides swapped."""
    counts: dict[int, int] = {}
    for label in labels:
        counts[label.pair_id] = counts.get(label.pair_id, 0) + 1
    old = [label for label in labels[:-_REPEAT_AFTER] if counts[label.pair_id] == 1 and label.pair_id not in skipped]
    if not old:
        return None
    label = old[int(rng.integers(len(old)))]
    return Assignment(
        label.pair_id, left_id=label.right_id, right_id=label.left_id, reason=SelectionReason.REPEAT.value
    )


def _most_informative(
    pairs: Sequence[Triple], state: GraphState, placement: Placement, rng: np.random.Generator
) -> Triple | None:
    if len(pairs) > _CANDIDATES:
        pairs = [pairs[i] for i in rng.choice(len(pairs), _CANDIDATES, replace=False).tolist()]
    table = np.array(pairs, np.int64)
    rows = rows_of(table[:, 1:], state.response_ids)
    known = (rows >= 0).all(1)
    if not known.any():
        return None
    best = int(np.argmax(informative(state, placement, rows[known])))
    return tuple(table[known][best].tolist())
