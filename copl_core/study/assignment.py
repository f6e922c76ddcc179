"""Which pair a user gets next, and which response is on the left.  Numpy only.

By default about 70 % of pairs are the most informative ones about *this* user and 20 % are uniform; only on the latter
may accuracy be reported, since the choice of the others depends on the model.  10 % repeat one of the user's pairs with
sides swapped.  Studies with gold pairs mix in a few of those, and a newcomer may begin with some as practice.  A pinned
pair comes before all but practice.  Before the first snapshot every new pair is uniform.
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

_CANDIDATES = 500  # pairs compared; the best of more is hardly better, and the next pair must appear at once
_REPEAT_AFTER = 8  # labels between a pair and its repeat, at least

Triple = tuple[int, int, int]  # (pair id, first response id, second response id)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The pair that a user gets next."""

    pair_id: int
    left_id: int  # the response on the left
    right_id: int
    reason: str  # a value of ``SelectionReason``


@dataclass(frozen=True, slots=True)
class SelectionMix:
    """Probabilities of each reason.  Where no repeat or gold pair is available, a new pair takes its place."""

    informative: float = 0.7
    uniform: float = 0.2
    repeat: float = 0.1
    gold: float = 0.0
    imported: float = 0.0

    @classmethod
    def of(cls, settings: AssignmentSettings, *, any_gold: bool = True) -> SelectionMix:
        gold = settings.gold if any_gold else 0.0
        new = 1 - settings.repeats - gold
        if settings.order == SelectionReason.INFORMATIVE:
            return cls(max(0.0, new - settings.uniform), settings.uniform, settings.repeats, gold)
        if settings.order == SelectionReason.IMPORTED:
            return cls(0, 0, settings.repeats, gold, new)
        return cls(0, new, settings.repeats, gold)


def assign(
    available: AvailablePairs, state: GraphState | None, placement: Placement | None, rng: np.random.Generator
) -> Assignment | None:
    """The next pair of a user by the settings of their study; None when no pair is left.

    Practice comes first, then pinned pairs, then the mix.
    """
    if available.newcomer and available.n_practice < available.settings.practice and available.gold:
        return _drawn(available.gold, SelectionReason.PRACTICE, rng)
    if available.pinned:
        return _sides(available.pinned[0], SelectionReason.PINNED, rng)
    mix = SelectionMix.of(available.settings, any_gold=bool(available.gold))
    return choose(available.pairs, available.summaries, state, placement, rng, mix, available.gold, available.skipped)


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
        pairs: those that the user can still get.
        labels: the user's labels that count, oldest first.
        state, placement: the champion's graph and the user's embedding in it; None before the first snapshot.
        gold: gold pairs that the user has not seen.
        skipped: pairs that the user skipped; they are not repeated either.

    Returns:
        None when no pair is left.
    """
    mix = mix or SelectionMix()
    if not pairs:
        return None  # not even a repeat: a user who is done stays done
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
    """A pair that the user answered once and some time ago, with its sides swapped, or drawn where they are unknown."""
    counts: dict[int, int] = {}
    for label in labels:
        counts[label.pair_id] = counts.get(label.pair_id, 0) + 1
    old = [label for label in labels[:-_REPEAT_AFTER] if counts[label.pair_id] == 1 and label.pair_id not in skipped]
    if not old:
        return None
    label = old[int(rng.integers(len(old)))]
    if not label.position_known:
        first, second = sorted((label.left_id, label.right_id))
        return _sides((label.pair_id, first, second), SelectionReason.REPEAT, rng)
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
    pair, first, second = table[known][best].tolist()
    return pair, first, second
