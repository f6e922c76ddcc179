"""The verbs of the Controversy page: what divides people, and what they agree on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from copl_core.features import measure_many
from copl_core.formats.table import csv_text
from copl_core.ids import rows_of
from copl_core.insight.controversy import (
    VarianceDecomposition,
    concatenate,
    decompose_variance,
    member_preferences,
    win_rates,
)
from copl_core.insight.quality import Share
from copl_core.insight.taste import typical
from copl_core.insight.texts import clear_features, word_difference
from copl_core.records import CoplError, Response
from copl_core.study import access, voters
from copl_core.study.roles import RESEARCHER, needs
from copl_core.study.session import Session

if TYPE_CHECKING:
    from copl_core.insight.texts import TextDifference
    from copl_core.snapshots.snapshot import Snapshot

_CELLS = 1_000_000  # members × users × pairs computed in one piece, so that a large study fits into memory
_BUDGET = 10_000_000  # members × users × pairs in all; beyond it a sample of each group stands for the group
_FEWEST = 100  # users of a group in such a sample
_SCALE_PAIRS = 300  # pairs from which typical differences are measured
SMALL = 5  # votes of a group below which its share means next to nothing

Votes = tuple[int, int, int]  # people for the first, for the second, for neither


@dataclass(frozen=True, slots=True)
class ControversyTable:
    """Every pair and every response that a snapshot knows, with the variance of the predicted answers."""

    pairs: np.ndarray  # (P, 4) id, first response, second response, prompt; the pairs of a prompt are adjacent
    of_pairs: VarianceDecomposition
    responses: np.ndarray  # (R, 2) id, prompt
    of_responses: VarianceDecomposition  # of the mean probability to win over the other response of its pairs
    groups: dict[int, int]  # group → number of users
    n_evaluated: int  # users whose answers were predicted
    members: int  # graphs of the ensemble
    snapshot: str


@dataclass(frozen=True, slots=True)
class Query:
    """Which pairs or responses to list, and in which order."""

    kind: str = "pairs"  # "pairs" | "responses"
    consensus: bool = False  # clearest consensus first; else the most divisive first
    prompt: int | None = None
    source: str | None = None  # of one of the responses
    least_votes: int = 0  # people who answered, at least


@dataclass(frozen=True, slots=True)
class ControversyItem:
    """A pair, or a response against the others of its prompt: the predicted answers and the real ones."""

    id: int
    prompt_id: int
    prompt: str
    first: Response
    second: Response | None  # None: ``first`` against every response it is paired with
    between: float  # the four terms of ``insight.controversy``
    within: float
    aleatoric: float
    epistemic: float
    by_group: tuple[tuple[int, float], ...]  # (group, P(first preferred))
    ensemble_std: tuple[float, ...]  # standard deviation of each of these over the members
    votes: dict[int | None, Votes]  # group → people; for a response, comparisons won, lost and undecided
    voters: int  # people behind the votes
    pairs: tuple[int, ...]  # id of the pair; for a response the ids of its pairs, the most divisive first

    @property
    def pair_id(self) -> int:
        return self.pairs[0]

    def observed(self, group: int) -> Share:
        """Of the people of a group who preferred one response, those who preferred the first."""
        first, second, _ = self.votes.get(group, (0, 0, 0))
        return Share(first, first + second)

    @property
    def variance(self) -> float:
        """Variance of one predicted answer of a user drawn at random, ¼ at most: the sum of the four terms."""
        return self.between + self.within + self.aleatoric + self.epistemic


@dataclass(frozen=True, slots=True)
class ControversyView:
    """One page of a list, with what is known about the whole list."""

    items: tuple[ControversyItem, ...]
    n_pairs: int  # in the snapshot
    n_matching: int  # items that pass the filters
    n_split: int  # of these, groups are predicted to prefer different sides by more than the model's uncertainty
    groups: dict[int, int]  # group → number of users
    n_evaluated: int  # users whose answers were predicted
    members: int  # graphs of the ensemble
    snapshot: str


@dataclass(frozen=True, slots=True)
class GroupValue:
    """What it is worth to give each group its own answer, as the model expects it, a mean over pairs."""

    for_all: float  # share of users who get the answer that they prefer, where everybody gets the same one
    for_groups: float  # where each group gets its own
    n_pairs: int
    n_users: int  # of all groups
    snapshot: str


@needs(RESEARCHER)
def group_value(session: Session) -> GroupValue | None:
    """What answers by group are worth on the pairs of the champion; None before there are two groups."""
    every = table(session)
    if every is None or len(every.groups) < 2 or not len(every.pairs):
        return None
    of_pairs = every.of_pairs
    share = np.array([every.groups[group] for group in of_pairs.groups.tolist()], float)
    share /= share.sum()
    return GroupValue(
        float(_better(of_pairs.by_group @ share).mean()),
        float((_better(of_pairs.by_group) @ share).mean()),
        len(every.pairs),
        sum(every.groups.values()),
        every.snapshot,
    )


def _better(first: np.ndarray) -> np.ndarray:
    """From P(first is preferred), the probability of the more popular of the two."""
    return np.maximum(first, 1 - first)


@needs(RESEARCHER)
def table(session: Session) -> ControversyTable | None:
    """The decomposition of everything in the champion, computed once per snapshot; None before the first one."""
    snapshot, record = session.snapshot(), session.record
    if snapshot is None:
        return None
    key = (snapshot.version, record.include_simulated, record.include_models)
    return session.once("controversy", key, lambda: _decompose(session, snapshot))


@needs(RESEARCHER)
def ranked(
    session: Session, limit: int = 30, *, query: Query | None = None, consensus: bool = False, skip: int = 0
) -> ControversyView | None:
    """What divides the groups most, or what they agree on, with the real votes; None before the first snapshot."""
    every = table(session)
    if every is None:
        return None
    query = query or Query(consensus=consensus)
    rows = _matching_rows(session, every, query)
    split = (every.of_pairs if query.kind == "pairs" else every.of_responses).split[rows]
    return ControversyView(
        _items(session, every, query.kind, rows[skip : skip + limit]),
        len(every.pairs),
        len(rows),
        int(split.sum()),
        every.groups,
        every.n_evaluated,
        every.members,
        every.snapshot,
    )


@dataclass(frozen=True, slots=True)
class ControversyRows:
    """The head of a list as columns, the numbers as shares of the largest variance (0 to 1)."""

    ids: np.ndarray  # (N,) of the pairs, or of the responses
    prompts: tuple[str, ...]  # (N,)
    firsts: tuple[str, ...]  # (N,) text of the first response, or of the response
    seconds: tuple[str, ...]  # (N,) text of the second; empty for responses
    between: np.ndarray  # (N,)
    within: np.ndarray  # (N,) within groups, including the noise of single people
    epistemic: np.ndarray  # (N,)
    voters: np.ndarray  # (N,) people who answered a pair; for a response, their answers on its pairs
    split: np.ndarray  # (N,) bool: groups are predicted to prefer different sides
    of_snapshot: bool  # whether ``voters`` counts the snapshot's labels, not those of now


@needs(RESEARCHER)
def list_rows(session: Session, query: Query, most: int) -> ControversyRows | None:
    """The first ``most`` pairs or responses of a query, without votes by group; None before the first snapshot."""
    every = table(session)
    if every is None:
        return None
    of_pairs = query.kind == "pairs"
    rows = _matching_rows(session, every, query)[:most]
    parts, columns = (every.of_pairs, every.pairs) if of_pairs else (every.of_responses, every.responses)
    texts = session.store.responses(np.unique(columns[rows, 1:3] if of_pairs else columns[rows, 0]).tolist())
    prompts = dict(session.store.prompts(session.id))
    return ControversyRows(
        columns[rows, 0],
        tuple(prompts[one] for one in columns[rows, -1].tolist()),
        tuple(texts[one].text for one in columns[rows, 1 if of_pairs else 0].tolist()),
        tuple(texts[one].text for one in columns[rows, 2].tolist()) if of_pairs else ("",) * len(rows),
        4 * parts.between[rows],
        4 * (parts.within + parts.aleatoric)[rows],
        4 * parts.epistemic[rows],
        _voters(session, every, of_pairs)[rows],
        parts.split[rows],
        voters.are_of_snapshot(session),
    )


@needs(RESEARCHER)
def response_item(session: Session, response_id: int) -> ControversyItem | None:
    """One response against the others of its prompt; None where the champion knows no such response."""
    every = table(session)
    if every is None:
        return None
    rows = np.flatnonzero(every.responses[:, 0] == response_id)
    return _items(session, every, "responses", rows)[0] if len(rows) else None


@needs(RESEARCHER)
def item(session: Session, pair_id: int) -> ControversyItem | None:
    """One pair of the champion; None where the champion knows no such pair."""
    every = table(session)
    if every is None:
        return None
    rows = np.flatnonzero(every.pairs[:, 0] == pair_id)
    return _items(session, every, "pairs", rows)[0] if len(rows) else None


@needs(RESEARCHER)
def export_csv(session: Session, query: Query) -> str:
    """Every pair or response of a query as CSV, with texts, numbers and votes.

    Raises:
        CoplError: there is no snapshot yet.
    """
    every = table(session)
    if every is None:
        raise CoplError("There is no snapshot yet, so nothing to export; the trainer makes one from 10 labels.")
    rows = _matching_rows(session, every, query)
    of_groups = [f"group_{group + 1}_{column}" for group in every.groups for column in _GROUP_COLUMNS]
    items = _items(session, every, query.kind, rows)
    return csv_text((_csv_row(one, every) for one in items), [*_COLUMNS, *of_groups, "snapshot"])


@needs(RESEARCHER)
def compare_texts(session: Session, first: str, second: str) -> tuple[TextDifference, tuple[str, ...], tuple[str, ...]]:
    """Two texts word by word, and the features that each has clearly more of than the other."""
    scale = session.once("typical differences", session.record.champion, lambda: _scale(session))
    return word_difference(first, second), *clear_features(first, second, scale)


# ---- computing


def _decompose(session: Session, snapshot: Snapshot) -> ControversyTable:
    state = snapshot.graph
    pairs = np.array(session.store.pairs_by_prompt(session.id), np.int64).reshape(-1, 4)
    rows = rows_of(pairs[:, 1:3], state.response_ids)
    known = (rows >= 0).all(1)
    pairs, rows = pairs[known], rows[known]
    members = int(state.config.get("members", 1))
    users, group, sizes = _sample_users(session, snapshot, members * len(pairs))
    share = np.array(list(sizes.values())) / max(1, sum(sizes.values()))
    most = max(1, _CELLS // max(1, members * len(users)))
    of_pairs, of_responses, responses = [], [], []
    for piece in _by_prompt(pairs[:, 3], most):
        chance = member_preferences(state, state.user_vectors[users], rows[piece])  # (K, N, piece)
        ids, wins = win_rates(chance, pairs[piece, 1:3])
        of_pairs.append(decompose_variance(chance, group, share))
        of_responses.append(decompose_variance(wins, group, share))
        prompt = dict(zip(pairs[piece, 1:3].T.ravel().tolist(), np.tile(pairs[piece, 3], 2).tolist(), strict=True))
        responses += [(one, prompt[one]) for one in ids.tolist()]
    return ControversyTable(
        pairs,
        concatenate(of_pairs),
        np.array(responses, np.int64).reshape(-1, 2),
        concatenate(of_responses),
        sizes,
        len(users),
        members,
        snapshot.version,
    )


def _sample_users(
    session: Session, snapshot: Snapshot, questions: int
) -> tuple[np.ndarray, np.ndarray, dict[int, int]]:
    """Rows (N,) of visible users with a group, their groups (N,), and group → size; samples of large groups."""
    state, layout = snapshot.graph, snapshot.layout
    hidden = np.isin(state.user_ids, access.hidden_users(session))
    on_map = rows_of(state.user_ids, layout.user_ids)
    group = np.where((on_map >= 0) & ~hidden, layout.group[on_map], -1)
    sizes = {int(g): int((group == g).sum()) for g in np.unique(group[group >= 0])}
    most = max(_FEWEST, _BUDGET // max(1, questions * len(sizes)))
    chosen = [np.flatnonzero(group == g) for g in sizes]
    chosen = [rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)] for rows in chosen]
    users = np.concatenate([np.zeros(0, np.int64), *chosen])
    return users, group[users], sizes


def _by_prompt(prompts: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of at most ``most`` pairs, never through a prompt: a prompt with more pairs is a slice of its own.

    At least one slice, empty where there are no pairs.
    """
    ends = np.append(np.flatnonzero(np.diff(prompts)) + 1, len(prompts))
    start, end = 0, 0
    for next_end in ends.tolist():
        if next_end - start > most and end > start:
            yield slice(start, end)
            start = end
        end = next_end
    yield slice(start, end)


def _scale(session: Session) -> np.ndarray:
    """Typical differences (F,) of the study's features, from a sample of its pairs."""
    pairs = np.array(session.store.pairs(session.id), np.int64).reshape(-1, 3)
    pairs = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _SCALE_PAIRS)).astype(int)] if len(pairs) else pairs
    texts = session.store.responses(np.unique(pairs[:, 1:]).tolist())
    first, second = (measure_many([texts[one].text for one in pairs[:, side].tolist()]) for side in (1, 2))
    return typical(first - second)


# ---- filtering and describing


def _matching_rows(session: Session, every: ControversyTable, query: Query) -> np.ndarray:
    """Rows of pairs or responses that pass the filters, in the order of the query."""
    of_pairs = query.kind == "pairs"
    decomposition = every.of_pairs if of_pairs else every.of_responses
    table_ = every.pairs if of_pairs else every.responses
    sides, prompt = (table_[:, 1:3], table_[:, 3]) if of_pairs else (table_[:, :1], table_[:, 1])
    keep = np.ones(len(prompt), bool)
    if query.prompt is not None:
        keep &= prompt == query.prompt
    if query.source is not None:
        from_source = [one for one, source in session.store.sources(session.id) if source == query.source]
        keep &= np.isin(sides, from_source).any(1)
    if query.least_votes > 0:
        keep &= _voters(session, every, of_pairs) >= query.least_votes
    order = decomposition.order(consensus=query.consensus)
    return order[keep[order]]


def _voters(session: Session, every: ControversyTable, of_pairs: bool) -> np.ndarray:
    """People who answered each pair (P,), or answers on the pairs of each response (R,)."""
    people = voters.voters_of(session, every.pairs)
    if of_pairs:
        return people
    rows = rows_of(every.pairs[:, 1:3], every.responses[:, 0])
    return np.bincount(rows.ravel(), np.repeat(people, 2), minlength=len(every.responses))


def _items(
    session: Session, every: ControversyTable, kind: str, rows: Sequence[int] | np.ndarray
) -> tuple[ControversyItem, ...]:
    of_pairs = kind == "pairs"
    decomposition = every.of_pairs if of_pairs else every.of_responses
    columns = every.pairs if of_pairs else every.responses
    own_pairs = [(int(every.pairs[row, 0]),) for row in rows] if of_pairs else _pairs_of(every, rows)
    responses = session.store.responses(np.unique(columns[rows][:, 1:3] if of_pairs else columns[rows][:, 0]).tolist())
    prompts = dict(session.store.prompts(session.id))
    votes = _votes(session, sorted({pair for pairs in own_pairs for pair in pairs}))
    group_of = _group_of(session, every.snapshot)
    found = []
    for row, pairs in zip(rows, own_pairs, strict=True):
        first = int(columns[row, 1 if of_pairs else 0])
        counted, voters = _count([vote for pair in pairs for vote in votes.get(pair, ())], first, group_of)
        found.append(
            ControversyItem(
                int(columns[row, 0]),
                int(columns[row, -1]),
                prompts[int(columns[row, -1])],
                responses[first],
                responses[int(columns[row, 2])] if of_pairs else None,
                float(decomposition.between[row]),
                float(decomposition.within[row]),
                float(decomposition.aleatoric[row]),
                float(decomposition.epistemic[row]),
                tuple(zip(decomposition.groups.tolist(), decomposition.by_group[row].tolist(), strict=True)),
                tuple(decomposition.ensemble_std[row].tolist()),
                counted,
                voters,
                pairs,
            )
        )
    return tuple(found)


def _pairs_of(every: ControversyTable, rows: Sequence[int] | np.ndarray) -> list[tuple[int, ...]]:
    """Ids of the pairs of each response, the most divisive first."""
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
    """(group → votes for the first response, against it, for neither; number of different voters)."""
    counts: dict[int | None, list[int]] = {}
    for user, preferred in votes:
        side = 2 if preferred == 0 else int(preferred != first)
        counts.setdefault(group_of.get(user), [0, 0, 0])[side] += 1
    by_group = {group: (own[0], own[1], own[2]) for group, own in counts.items()}
    return by_group, len({user for user, _ in votes})


def _group_of(session: Session, version: str) -> dict[int, int]:
    """User id → group, of users who have one."""
    layout = session.open_snapshot(version).layout
    grouped = layout.group >= 0
    return dict(zip(layout.user_ids[grouped].tolist(), layout.group[grouped].tolist(), strict=True))


# The file keeps the column names "own_noise" (aleatoric), "unknown" (epistemic) and "doubt" (ensemble_std).
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
_GROUP_COLUMNS = ("expected", "doubt", "first", "second", "neither")


def _csv_row(one: ControversyItem, every: ControversyTable) -> dict[str, object]:
    row: dict[str, object] = {
        "pair": one.id if one.second else None,
        "response": None if one.second else one.id,
        "prompt": one.prompt,
        "first": one.first.text,
        "second": one.second and one.second.text,
        "first_source": one.first.source,
        "second_source": one.second and one.second.source,
        "between": round(one.between, 5),
        "within": round(one.within, 5),
        "own_noise": round(one.aleatoric, 5),
        "unknown": round(one.epistemic, 5),
        "people": one.voters,
        "snapshot": every.snapshot,
    }
    for (group, expected), std in zip(one.by_group, one.ensemble_std, strict=True):
        row |= {f"group_{group + 1}_expected": round(expected, 4), f"group_{group + 1}_doubt": round(std, 4)}
    for number in (None, *every.groups):
        name = "no_group" if number is None else f"group_{number + 1}"
        counts = one.votes.get(number, (0, 0, 0))
        row |= {f"{name}_{side}": count for side, count in zip(("first", "second", "neither"), counts, strict=True)}
    return row
