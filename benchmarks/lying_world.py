"""Worlds in which accounts lie: honest people with their answers, a group that is attacked, and how accounts lie.

The synthetic world has a large and a small group.  Every prompt has one response from each of four sources, and each
group has a favourite.  Honest people flip a tenth of their answers and answer a tenth of their pairs twice.  Numpy
only; one seed determines everything.  ``lying_worlds`` makes the same of the demo and of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from copl_core.preference.config import GraphConfig
from copl_core.records import Comparisons, TrainingData
from copl_core.study_settings import AnswerTable
from copl_core.training.influence import largest

PEOPLE, SMALL = 132, 12  # of them in the small group
PROMPTS, SOURCES = 70, 4  # one response of each source to each prompt
LABELS, MANY, NOISE, REPEATS = 60, 400, 0.1, 0.1
LIKED = np.array([[0.9, 0.1, -0.1, -0.9], [-0.3, 0.9, 0.1, -0.7]])  # of each group, by source
SHARED, OWN = 0.2, 1.0  # of what all like, and of what each group likes, apart from sources
RAISED = 2  # the source that the accounts want to win
SIDES = list(combinations(range(SOURCES), 2))
PAIRS = np.array([(SOURCES * prompt + a, SOURCES * prompt + b) for prompt in range(PROMPTS) for a, b in SIDES])
Key = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # rows of pairs → whether the first is preferred


@dataclass(frozen=True)
class Attack:
    """How lying accounts answer."""

    name: str
    kind: str  # "random" | "inverted" | "raise" | "copycats"
    labels: str = "few"  # "few": as a typical person; "bound": as many as have full weight; "many"
    fast: bool = False
    alike: bool = True  # answers to a repeated pair
    flip: float = 0.0
    honest: float = 0.0  # share of pairs that they answer as a person of the attacked group does


@dataclass(frozen=True)
class World:
    """Honest people, their answers, and the group whose winner is attacked."""

    name: str
    data: TrainingData  # people and responses; its labels are not read
    phi: np.ndarray  # (R, P)
    pairs: np.ndarray  # (P, 2) rows of responses
    source: np.ndarray  # (R,)
    raised: int  # the source that the accounts want to win
    group: np.ndarray  # (U,) 1: the attacked one
    liked: np.ndarray  # (2, P) whether the other people, and the group, prefer the first of a pair
    answers: AnswerTable
    test: Comparisons
    counts: dict[str, int]  # "few", "bound", "many" → answers of an account that lies
    repeats: bool = True  # whether honest people answer some pairs twice
    members: int = 1  # of the graphs that are fitted

    @property
    def people(self) -> int:
        return len(self.group)

    def likes(self, group: int, pair: np.ndarray) -> np.ndarray:
        return self.liked[group, pair]


def make_world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal(PROMPTS * SOURCES), rng.standard_normal((2, PROMPTS * SOURCES))
    utility = np.tile(LIKED, PROMPTS) + SHARED * shared + OWN * own
    group = (np.arange(PEOPLE) < SMALL).astype(int)
    counts = counts_for(np.full(PEOPLE, round((1 + REPEATS) * LABELS)), MANY)
    world = World(
        "synthetic", _texts(), np.random.default_rng(seed).standard_normal((PROMPTS * SOURCES, 16), np.float32), PAIRS,
        np.arange(PROMPTS * SOURCES) % SOURCES, RAISED, group, utility[:, PAIRS[:, 0]] > utility[:, PAIRS[:, 1]],
        joined(), joined_labels([]), counts,
    )  # fmt: skip
    rows, test = [], []
    for user in range(PEOPLE):
        drawn = rng.permutation(len(PAIRS))
        rows.append(account(rng, user, drawn[:LABELS], honest_key(world, int(group[user])), again=True))
        unseen = drawn[-LABELS:]
        test.append((np.full(LABELS, user), unseen, world.likes(int(group[user]), unseen)))
    return replace(world, answers=joined(*rows), test=joined_labels(test))


def counts_for(answers: np.ndarray, many: int) -> dict[str, int]:
    """Pairs that an account answers, where honest people have given so many answers (U,): as many as the typical
    person, as many as have full weight with their repeats, and ``many``."""
    priors = GraphConfig().priors
    most = largest(np.append(answers, (1 + REPEATS) * many), priors.influence, priors.influence_times)
    few = round(float(np.median(answers)) / (1 + REPEATS))
    return {"few": few, "bound": int(min(most / (1 + REPEATS), many)), "many": many}


def _texts() -> TrainingData:
    n = PROMPTS * SOURCES
    prompts = tuple(f"Question {i}?" for i in range(PROMPTS))
    texts = tuple(f"Answer {i}." for i in range(n))
    return TrainingData(np.arange(PEOPLE), np.arange(n), np.arange(n) // SOURCES, prompts, texts, joined_labels([]))


def honest_key(world: World, group: int, noise: float = NOISE) -> Key:
    return lambda pair, rng: world.likes(group, pair) ^ (rng.random(len(pair)) < noise)


def account(
    rng: np.random.Generator, user: int, pairs: np.ndarray, key: Key, *, again: bool, fast: bool = False,
    of: np.ndarray = PAIRS,
) -> AnswerTable:  # fmt: skip
    """The answers of one account: to each pair, then to a tenth of them once more (``again``: decided once more).

    Args:
        pairs: rows of ``of``.
    """
    first = key(pairs, rng)
    n = round(REPEATS * len(pairs))
    second = key(pairs[:n], rng) if again else first[:n]
    pair, prefers = np.concatenate([pairs, pairs[:n]]), np.concatenate([first, second])
    seconds = np.exp(rng.normal(np.log(0.3 if fast else 8.0), 0.3, len(pair)))
    return table(np.full(len(pair), user), pair, prefers, 1000 * seconds, of)


def table(
    user: np.ndarray, pair: np.ndarray, prefers: np.ndarray, milliseconds: np.ndarray, of: np.ndarray = PAIRS
) -> AnswerTable:
    """Answers in the columns of the store; ``prefers`` says whether the first response of a pair is preferred."""
    return answer_table(user, pair, np.where(prefers, 0, 1), milliseconds, of)


def answer_table(
    user: np.ndarray, pair: np.ndarray, choice: np.ndarray, milliseconds: np.ndarray, of: np.ndarray
) -> AnswerTable:
    """Answers (N,) to pairs whose first response is on the left; ``choice`` as in ``AnswerTable``."""
    n = len(pair)
    none, one = np.full(n, -1), np.ones(n, np.int64)
    left, right = of[pair].T if n else (none, none)
    return AnswerTable(
        user, pair, left, right, choice, milliseconds.astype(np.int64), one, none, 200 * one, one.astype(bool), one
    )


def joined(*tables: AnswerTable) -> AnswerTable:
    empty = np.zeros(0, np.int64)
    every = (table(empty, empty, empty, empty), *tables)
    return AnswerTable(*(np.concatenate([getattr(one, name) for one in every]) for name in AnswerTable.__slots__))


def joined_labels(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Comparisons:
    user, pair, prefers = (np.concatenate(part) for part in zip(*rows, strict=True)) if rows else [np.zeros(0, int)] * 3
    return Comparisons.build(user, PAIRS[pair, 0], PAIRS[pair, 1], prefers)


def liars(world: World, attack: Attack, k: int, seed: int) -> AnswerTable:
    """The answers of k lying accounts, numbered after the people."""
    rng = np.random.default_rng(seed + 1)
    key = lying_key(world, attack, rng)
    n = min(world.counts[attack.labels], len(world.pairs))
    return joined(
        *(
            account(
                rng, world.people + one, rng.permutation(len(world.pairs))[:n], key, again=not attack.alike,
                fast=attack.fast, of=world.pairs,
            )
            for one in range(k)
        )
    )  # fmt: skip


def lying_key(world: World, attack: Attack, rng: np.random.Generator) -> Key:
    listed = rng.random(len(world.pairs)) < 0.5  # one list for all of them
    source = world.source[world.pairs]

    def key(pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        group = world.likes(1, pair)
        otherwise = {"random": rng.random(len(pair)) < 0.5, "inverted": ~group, "raise": listed[pair]}.get(
            attack.kind, group
        )
        if attack.kind in ("raise", "copycats"):
            first, second = (source[pair] == world.raised).T
            otherwise = np.where(first, True, np.where(second, False, otherwise))
        lie = otherwise ^ (rng.random(len(pair)) < attack.flip)
        return np.where(rng.random(len(pair)) < attack.honest, group ^ (rng.random(len(pair)) < NOISE), lie)

    return key
