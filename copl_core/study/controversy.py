"""The Controversy page's verbs: what divides people, what they agree on, and asking about it; functions of a study."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from copl_core.features import measure_many
from copl_core.ids import rows_of
from copl_core.insight.controversy import VarianceDecomposition, divide, member_preferences, standing, together
from copl_core.insight.quality import Share
from copl_core.insight.taste import typical
from copl_core.insight.texts import contrast, difference
from copl_core.records import CoplError, Response
from copl_core.study import access
from copl_core.study.session import Session

if TYPE_CHECKING:
    from copl_core.insight.texts import Difference
    from copl_core.snapshots.snapshot import Snapshot

_CELLS = 1_000_000  # members × people × pairs looked at in one piece, so that a large study fits into memory
_BUDGET = 10_000_000  # of these in all: beyond it a sample of each group stands for the group
_FEWEST = 100  # people of a group in such a sample
_SCALE_PAIRS = 300  # pairs from which typical differences are read
SMALL = 5  # votes of a group below which its share says next to nothing

Votes = tuple[int, int, int]  # people for the first, for the second, for neither


@dataclass(frozen=True, slots=True)
class ControversyTable:
    """Every pair and every response that a snapshot knows, with how far groups are apart on it."""

    pairs: np.ndarray  # (P, 4) id, first response, second response, prompt; a prompt's pairs stand together
    of_pairs: VarianceDecomposition
    responses: np.ndarray  # (R, 2) id, prompt
    of_responses: VarianceDecomposition  # of the chance to be preferred to the other one of its pairs
    groups: dict[int, int]  # people of each group
    looked_at: int  # people whose expected answers were computed
    members: int  # graphs of the ensemble
    snapshot: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which pairs or responses, in which order."""

    kind: str = "pairs"  # "pairs" | "responses"
    consensus: bool = False
    prompt: int | None = None
    source: str | None = None  # of one of the responses
    least_votes: int = 0  # people who have answered


@dataclass(frozen=True, slots=True)
class ControversyItem:
    """A pair, or a response against the others of its prompt: what is expected, and what people really answered."""

    id: int
    prompt_id: int
    prompt: str
    first: Response
    second: Response | None  # None: ``first`` against every response it is paired with
    between: float
    within: float
    noise: float
    unknown: float
    by_group: tuple[tuple[int, float], ...]  # (group, P(first preferred))
    doubt: tuple[float, ...]  # standard deviation of each over the members
    votes: dict[int | None, Votes]  # group → people; for a response, its comparisons won, lost and undecided
    voters: int  # people behind the votes
    pairs: tuple[int, ...]  # the pair; for a response its pairs, the most divided first

    @property
    def pair_id(self) -> int:
        return self.pairs[0]

    def observed(self, group: int) -> Share:
        """Of the people of a group who preferred one, those who preferred the first."""
        first, second, _ = self.votes.get(group, (0, 0, 0))
        return Share(first, first + second)

    @property
    def whole(self) -> float:
        """Variance of one answer by somebody drawn at random, ¼ at most."""
        return self.between + self.within + self.noise + self.unknown


@dataclass(frozen=True, slots=True)
class ControversyView:
    pairs: tuple[ControversyItem, ...]  # or responses, as was wanted
    n_pairs: int  # the snapshot knows
    n_wanted: int  # pass the filters
    n_split: int  # of these, groups are expected to prefer different sides, by more than the model's doubt
    groups: dict[int, int]
    looked_at: int
    members: int
    snapshot: str


def table(session: Session) -> ControversyTable | None:
    """Everything the champion knows, computed once a snapshot; None before the first one."""
    snapshot, record = session.snapshot(), session.record
    if snapshot is None:
        return None
    return session.once(
        "divisions", (snapshot.version, record.include_simulated), lambda: _divisions(session, snapshot)
    )


def ranked(
    session: Session, limit: int = 30, *, wanted: Query | None = None, consensus: bool = False, skip: int = 0
) -> ControversyView | None:
    """What divides the groups most, or what they agree on, with the votes that were really cast."""
    every = table(session)
    if every is None:
        return None
    wanted = wanted or Query(consensus=consensus)
    rows = _wanted_rows(session, every, wanted)
    found = _described(session, every, wanted.kind, rows[skip : skip + limit])
    split = (every.of_pairs if wanted.kind == "pairs" else every.of_responses).split[rows]
    return ControversyView(
        found,
        len(every.pairs),
        len(rows),
        int(split.sum()),
        every.groups,
        every.looked_at,
        every.members,
        every.snapshot,
    )


def item(session: Session, pair_id: int) -> ControversyItem | None:
    """One pair of the champion; None where it knows no such pair."""
    every = table(session)
    rows = np.flatnonzero(every.pairs[:, 0] == pair_id) if every is not None else []
    return _described(session, every, "pairs", rows)[0] if len(rows) else None


def export_csv(session: Session, wanted: Query) -> str:
    """Every pair or response that is wanted, as CSV with its texts, numbers and votes."""
    every = table(session)
    if every is None:
        raise CoplError("There is no snapshot yet, so nothing to export; the trainer makes one from 10 labels.")
    rows = _wanted_rows(session, every, wanted)
    out = io.StringIO()
    columns = [
        *_COLUMNS,
        *(
            f"group_{group + 1}_{what}"
            for group in every.groups
            for what in ("expected", "doubt", "first", "second", "neither")
        ),
        "snapshot",
    ]
    writer = csv.DictWriter(out, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(_row(one, every) for one in _described(session, every, wanted.kind, rows))
    return out.getvalue()


def what_differs(session: Session, first: str, second: str) -> tuple[Difference, tuple[str, ...], tuple[str, ...]]:
    """Two texts word by word, and what each has clearly more of, beside typical differences in this study."""
    scale = session.once("typical differences", session.record.champion, lambda: _scale(session))
    return difference(first, second), *contrast(first, second, scale)


# ---- computing


def _divisions(session: Session, snapshot: Snapshot) -> ControversyTable:
    state = snapshot.graph
    pairs = np.array(session.store.pairs_by_prompt(session.id), np.int64).reshape(-1, 4)
    rows = rows_of(pairs[:, 1:3], state.response_ids)
    known = (rows >= 0).all(1)
    pairs, rows = pairs[known], rows[known]
    members = int(state.config.get("members", 1))
    users, group, sizes = _audience(session, snapshot, members * len(pairs))
    share = np.array(list(sizes.values())) / max(1, sum(sizes.values()))
    most = max(1, _CELLS // max(1, members * len(users)))
    of_pairs, of_responses, responses = [], [], []
    for piece in _by_prompt(pairs[:, 3], most):
        chance = member_preferences(state, state.user_vectors[users], rows[piece])  # (K, N, piece)
        ids, stands = standing(chance, pairs[piece, 1:3])
        of_pairs.append(divide(chance, group, share))
        of_responses.append(divide(stands, group, share))
        prompt = dict(zip(pairs[piece, 1:3].T.ravel().tolist(), np.tile(pairs[piece, 3], 2).tolist(), strict=True))
        responses += [(one, prompt[one]) for one in ids.tolist()]
    return ControversyTable(
        pairs,
        together(of_pairs),
        np.array(responses, np.int64).reshape(-1, 2),
        together(of_responses),
        sizes,
        len(users),
        members,
        snapshot.version,
    )


def _audience(session: Session, snapshot: Snapshot, questions: int) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Rows (N,) of visible people with a group, their groups (N,), and the size of each; samples of large groups."""
    state, layout = snapshot.graph, snapshot.layout
    visible = np.array([user.id for user in access.users(session)], np.int64)
    placed = rows_of(state.user_ids, layout.user_ids)
    group = np.where((placed >= 0) & np.isin(state.user_ids, visible), layout.group[placed], -1)
    sizes = {int(g): int((group == g).sum()) for g in np.unique(group[group >= 0])}
    most = max(_FEWEST, _BUDGET // max(1, questions * len(sizes)))
    chosen = [np.flatnonzero(group == g) for g in sizes]
    chosen = [rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)] for rows in chosen]
    users = np.concatenate([np.zeros(0, np.int64), *chosen])
    return users, group[users], sizes


def _by_prompt(prompts: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of at most ``most`` pairs that keep a prompt's pairs together; at least one, maybe empty."""
    ends = np.append(np.flatnonzero(np.diff(prompts)) + 1, len(prompts))
    start, end = 0, 0
    for next_end in ends.tolist():
        if next_end - start > most and end > start:
            yield slice(start, end)
            start = end
        end = next_end
    yield slice(start, end)


def _scale(session: Session) -> np.ndarray:
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    pairs = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _SCALE_PAIRS)).astype(int)] if len(pairs) else pairs
    texts = session.store.responses(np.unique(pairs[:, 1:]).tolist())
    first, second = (measure_many([texts[one].text for one in pairs[:, side].tolist()]) for side in (1, 2))
    return typical(first - second)


# ---- choosing and describing


def _wanted_rows(session: Session, every: ControversyTable, wanted: Query) -> np.ndarray:
    """Rows of pairs or responses that pass the filters, in the wanted order."""
    of_pairs = wanted.kind == "pairs"
    division = every.of_pairs if of_pairs else every.of_responses
    sides, prompt = (
        (every.pairs[:, 1:3], every.pairs[:, 3]) if of_pairs else (every.responses[:, :1], every.responses[:, 1])
    )
    keep = np.ones(len(prompt), bool)
    if wanted.prompt is not None:
        keep &= prompt == wanted.prompt
    if wanted.source is not None:
        keep &= np.isin(
            sides, [one for one, source in session.store.sources(session.id) if source == wanted.source]
        ).any(1)
    if wanted.least_votes > 0:
        keep &= _voters(session, every, of_pairs) >= wanted.least_votes
    order = division.order(consensus=wanted.consensus)
    return order[keep[order]]


def _voters(session: Session, every: ControversyTable, of_pairs: bool) -> np.ndarray:
    """People who have answered each pair, or answers about each response."""
    counts = session.store.vote_counts(session.id)
    people = np.array([counts.get(pair, 0) for pair in every.pairs[:, 0].tolist()], np.int64)
    if of_pairs:
        return people
    rows = rows_of(every.pairs[:, 1:3], every.responses[:, 0])
    return np.bincount(rows.ravel(), np.repeat(people, 2), minlength=len(every.responses))


def _described(
    session: Session, every: ControversyTable, kind: str, rows: Sequence[int] | np.ndarray
) -> tuple[ControversyItem, ...]:
    of_pairs = kind == "pairs"
    division = every.of_pairs if of_pairs else every.of_responses
    columns = every.pairs if of_pairs else every.responses
    own = [(int(every.pairs[row, 0]),) for row in rows] if of_pairs else _pairs_of(every, rows)
    responses = session.store.responses(np.unique(columns[rows][:, 1:3] if of_pairs else columns[rows][:, 0]).tolist())
    prompts = dict(session.store.prompts(session.id))
    votes = _votes(session, sorted({pair for pairs in own for pair in pairs}))
    group_of = _group_of(session, every.snapshot)
    found = []
    for row, pairs in zip(rows, own, strict=True):
        first = int(columns[row, 1 if of_pairs else 0])
        counted, voters = _count([vote for pair in pairs for vote in votes.get(pair, ())], first, group_of)
        found.append(
            ControversyItem(
                int(columns[row, 0]),
                int(columns[row, -1]),
                prompts[int(columns[row, -1])],
                responses[first],
                responses[int(columns[row, 2])] if of_pairs else None,
                float(division.between[row]),
                float(division.within[row]),
                float(division.noise[row]),
                float(division.unknown[row]),
                tuple(zip(division.groups.tolist(), division.by_group[row].tolist(), strict=True)),
                tuple(division.doubt[row].tolist()),
                counted,
                voters,
                pairs,
            )
        )
    return tuple(found)


def _pairs_of(every: ControversyTable, rows: Sequence[int] | np.ndarray) -> list[tuple[int, ...]]:
    """Ids of the pairs of each response, the most divided first."""
    pairs: dict[int, list[int]] = {}
    for pair, first, second, _ in every.pairs[every.of_pairs.order()].tolist():
        pairs.setdefault(first, []).append(pair)
        pairs.setdefault(second, []).append(pair)
    return [tuple(pairs[one]) for one in every.responses[rows, 0].tolist()]


def _votes(session: Session, pair_ids: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """Pair → (user, preferred response or 0) of each person's newest answer."""
    newest: dict[int, dict[int, int]] = {}
    for pair_id, user_id, preferred in session.store.votes_of(session.id, pair_ids):  # oldest first
        newest.setdefault(pair_id, {})[user_id] = preferred
    return {pair_id: list(own.items()) for pair_id, own in newest.items()}


def _count(votes: list[tuple[int, int]], first: int, group_of: dict[int, int]) -> tuple[dict[int | None, Votes], int]:
    counts: dict[int | None, list[int]] = {}
    for user, preferred in votes:
        side = 2 if preferred == 0 else int(preferred != first)
        counts.setdefault(group_of.get(user), [0, 0, 0])[side] += 1
    return {group: tuple(own) for group, own in counts.items()}, len({user for user, _ in votes})


def _group_of(session: Session, version: str) -> dict[int, int]:
    layout = session.open_snapshot(version).layout
    placed = layout.group >= 0
    return dict(zip(layout.user_ids[placed].tolist(), layout.group[placed].tolist(), strict=True))


_COLUMNS = (
    "pair",
    "response",
    "prompt",
    "first",
    "second",
    "first_source",
    "second_source",
    "between",
    "within",
    "own_noise",
    "unknown",
    "people",
    "no_group_first",
    "no_group_second",
    "no_group_neither",
)


def _row(one: ControversyItem, every: ControversyTable) -> dict[str, object]:
    row = {
        "pair": one.id if one.second else None,
        "response": None if one.second else one.id,
        "prompt": one.prompt,
        "first": one.first.text,
        "second": one.second and one.second.text,
        "first_source": one.first.source,
        "second_source": one.second and one.second.source,
        "between": round(one.between, 5),
        "within": round(one.within, 5),
        "own_noise": round(one.noise, 5),
        "unknown": round(one.unknown, 5),
        "people": one.voters,
        "snapshot": every.snapshot,
    }
    for (group, expected), doubt in zip(one.by_group, one.doubt, strict=True):
        row |= {f"group_{group + 1}_expected": round(expected, 4), f"group_{group + 1}_doubt": round(doubt, 4)}
    for group, counts in (
        (None, one.votes.get(None, (0, 0, 0))),
        *((group, one.votes.get(group, (0, 0, 0))) for group in every.groups),
    ):
        name = "no_group" if group is None else f"group_{group + 1}"
        row |= {f"{name}_{what}": count for what, count in zip(("first", "second", "neither"), counts, strict=True)}
    return row
