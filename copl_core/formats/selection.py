"""Which labels an export holds: those with enough margin and agreement, of pairs that differ enough, with a count of
what is left out and why.

Rows are those of ``Store.export``, oldest first.  The margin of a label is its strength; a tie has none.  Its agreement
is the share of the people who answered the pair and prefer the same response, where a tie counts half; of a tie, the
share of people who see one.  Each person counts once per pair, by their newest answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from copl_core.formats.diversity import farthest_first
from copl_core.records import CoplError
from copl_core.study_settings import STRENGTHS

TIES = ("apart", "split", "out")
Row = dict[str, Any]
Embed = Callable[[Sequence[Row]], np.ndarray]  # rows of M pairs → (M, D)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to export.

    Args:
        ties: of a format without ties: in a file beside ("apart"), as two rows of half weight ("split"), or not at all
            ("out").
        min_margin: smallest strength of a label, 1 to 3.  Above 1, ties are left out; labels of which nobody gave the
            strength stay, and are counted.
        min_agreement: smallest agreement, 0 to 1.
        min_people: fewest people who answered a pair.
        diverse: pairs to keep of those that the filters leave, the most different ones (``formats.diversity``): their
            number, or below 1 their share.
        shares: one row per pair, with the share of people who prefer a response, instead of one per label.
        plain: texts instead of messages, where a format has both; conversations are then left out.

    Raises:
        CoplError: a value is out of range.
    """

    ties: str = "apart"
    min_margin: int = 1
    min_agreement: float = 0.0
    min_people: int = 1
    diverse: float | None = None
    shares: bool = False
    plain: bool = False

    def __post_init__(self) -> None:
        if self.ties not in TIES:
            raise CoplError(f"Ties would be {self.ties!r}; choose one of {', '.join(TIES)}.")
        if self.min_margin not in STRENGTHS:
            raise CoplError(f"The smallest margin is {self.min_margin}; it is a strength, 1 to 3.")
        if not 0 <= self.min_agreement <= 1:
            raise CoplError(f"The smallest agreement is {self.min_agreement}; it is a share, 0 to 1.")
        if self.min_people < 1:
            raise CoplError(f"The fewest people are {self.min_people}; give 1 or more.")
        if self.diverse is not None and not (0 < self.diverse < 1 or (self.diverse >= 1 and self.diverse % 1 == 0)):
            raise CoplError(f"The diverse pairs are {self.diverse}; give a whole number of pairs, or a share below 1.")


@dataclass(frozen=True, slots=True)
class Selected:
    """The rows of an export."""

    rows: list[Row]
    n_labels: int  # read
    left_out: Mapping[str, int] = field(default_factory=dict)  # why → labels, or with shares, pairs
    n_unknown: int = 0  # labels that a smallest margin has kept, since nobody gave their strength


def select(rows: Iterable[Row], selection: Selection, embed: Embed | None = None) -> Selected:
    """The labels, or pairs, that a selection takes; ``embed`` is needed to tell which pairs differ.

    Raises:
        CoplError: diverse pairs are wanted and nothing embeds their texts.
    """
    every = list(rows)
    filtered, left_out = selection.min_margin > 1, Counter[str]()
    decided = [row for row in every if _decided(row)] if filtered else every
    left_out["ties, which have no margin"] = len(every) - len(decided)
    strong = [
        row for row in decided if not filtered or row["strength"] is None or margin_of(row) >= selection.min_margin
    ]
    left_out["below the margin"] = len(decided) - len(strong)
    n_unknown = sum(row["strength"] is None for row in strong) if filtered else 0
    votes = _votes(strong)
    enough = [row for row in strong if len(votes[row["pair"]]) >= selection.min_people]
    left_out["about pairs with too few people"] = len(strong) - len(enough)
    if selection.shares:
        pairs = _shares(enough, votes)
        kept = [row for row in pairs if max(row["share_a"], 1 - row["share_a"]) >= selection.min_agreement]
        left_out["pairs below the agreement"] = len(pairs) - len(kept)
    else:
        kept = [row for row in enough if agreement(row, votes[row["pair"]]) >= selection.min_agreement]
        left_out["below the agreement"] = len(enough) - len(kept)
    if selection.diverse is not None:
        different = _diverse(kept, enough, selection.diverse, embed)
        left_out[f"{'' if selection.shares else 'about '}pairs too like others"] = len(kept) - len(different)
        kept = different
    return Selected(kept, len(every), {why: n for why, n in left_out.items() if n}, n_unknown)


def margin_of(row: Row) -> int:
    """The strength of a label, 1 where nobody gave it."""
    return row["strength"] or 1


def _diverse(rows: list[Row], labels: Iterable[Row], wanted: float, embed: Embed | None) -> list[Row]:
    """The rows of the pairs that differ most; their margins are the mean strengths of the labels."""
    first: dict[int, Row] = {}
    for row in rows:
        first.setdefault(row["pair"], row)
    n = max(1, round(wanted * len(first))) if wanted < 1 else int(wanted)
    if n >= len(first):
        return rows
    if embed is None:
        raise CoplError("Which pairs differ is not known here, since nothing embeds their texts; leave out --diverse.")
    strengths: dict[int, list[int]] = defaultdict(list)
    for row in labels:
        strengths[row["pair"]].append(margin_of(row) if _decided(row) else 0)
    margins = np.array([np.mean(strengths[pair]) for pair in first])
    chosen = farthest_first(embed(list(first.values())), margins, n)
    pairs = set(np.array(list(first))[chosen].tolist())
    return [row for row in rows if row["pair"] in pairs]


def agreement(row: Row, votes: Mapping[str, str]) -> float:
    """Share of the people of a pair who agree with a label; ``votes`` is person → choice."""
    if not _decided(row):
        return sum(choice not in ("a", "b") for choice in votes.values()) / len(votes)
    same = sum(1.0 if choice == row["choice"] else 0.5 * (choice not in ("a", "b")) for choice in votes.values())
    return same / len(votes)


def _decided(row: Row) -> bool:
    return row["choice"] in ("a", "b")


def _votes(rows: Iterable[Row]) -> dict[int, dict[str, str]]:
    """Pair → person → their newest choice."""
    votes: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows:
        votes[row["pair"]][row["annotator"]] = row["choice"]
    return votes


def _shares(rows: Iterable[Row], votes: Mapping[int, Mapping[str, str]]) -> list[Row]:
    """One row per pair, in the order of its first label."""
    first: dict[int, Row] = {}
    for row in rows:
        first.setdefault(row["pair"], row)
    texts = ("study", "pair", "prompt", "response_a", "response_b", "model_a", "model_b")
    found = []
    for pair, row in first.items():
        choices = Counter(votes[pair].values())
        people = choices.total()
        ties = people - choices["a"] - choices["b"]
        share = (choices["a"] + ties / 2) / people
        found.append({name: row[name] for name in texts} | {"share_a": share, "people": people, "ties": ties})
    return found
