"""A synthetic study with accounts that lie: honest people of two groups, and accounts that want a source to win.

Responses come from four sources, and each group has a favourite.  Honest people flip a tenth of their answers and
answer a tenth of their pairs twice.  Numpy only; one seed determines everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from copl_core.records import Comparisons
from copl_core.study_settings import AnswerTable

PEOPLE, SMALL = 132, 12  # of them in the small group
PROMPTS, SOURCES = 70, 4  # one response of each source to each prompt
LABELS, NOISE, REPEATS = 60, 0.1, 0.1
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
    labels: int = LABELS
    fast: bool = False
    alike: bool = True  # answers to a repeated pair
    flip: float = 0.0
    honest: float = 0.0  # share of pairs that they answer as a person of the small group does


@dataclass(frozen=True)
class World:
    """Honest people, and the truth about all pairs."""

    group: np.ndarray  # (U,) 1: the small one
    utility: np.ndarray  # (2, R)
    answers: AnswerTable
    test: Comparisons

    def likes(self, group: int, pair: np.ndarray) -> np.ndarray:
        return self.utility[group, PAIRS[pair, 0]] > self.utility[group, PAIRS[pair, 1]]


def make_world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    shared, own = rng.standard_normal(PROMPTS * SOURCES), rng.standard_normal((2, PROMPTS * SOURCES))
    utility = np.tile(LIKED, PROMPTS) + SHARED * shared + OWN * own
    group = (np.arange(PEOPLE) < SMALL).astype(int)
    world = World(group, utility, joined(), joined_labels([]))
    rows, test = [], []
    for user in range(PEOPLE):
        drawn = rng.permutation(len(PAIRS))
        rows.append(account(rng, user, drawn[:LABELS], honest_key(world, int(group[user])), again=True))
        unseen = drawn[-LABELS:]
        test.append((np.full(LABELS, user), unseen, world.likes(int(group[user]), unseen)))
    return replace(world, answers=joined(*rows), test=joined_labels(test))


def honest_key(world: World, group: int, noise: float = NOISE) -> Key:
    return lambda pair, rng: world.likes(group, pair) ^ (rng.random(len(pair)) < noise)


def account(
    rng: np.random.Generator, user: int, pairs: np.ndarray, key: Key, *, again: bool, fast: bool = False
) -> AnswerTable:
    """The answers of one account: to each pair, then to a tenth of them once more (``again``: decided once more)."""
    first = key(pairs, rng)
    n = round(REPEATS * len(pairs))
    second = key(pairs[:n], rng) if again else first[:n]
    pair, prefers = np.concatenate([pairs, pairs[:n]]), np.concatenate([first, second])
    seconds = np.exp(rng.normal(np.log(0.3 if fast else 8.0), 0.3, len(pair)))
    return table(np.full(len(pair), user), pair, prefers, 1000 * seconds)


def table(user: np.ndarray, pair: np.ndarray, prefers: np.ndarray, milliseconds: np.ndarray) -> AnswerTable:
    """Answers in the columns of the store; ``prefers`` says whether the first response of a pair is preferred."""
    n = len(pair)
    none, one = np.full(n, -1), np.ones(n, np.int64)
    left, right = PAIRS[pair].T if n else (none, none)
    choice = np.where(prefers, 0, 1)
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
    return joined(
        *(
            account(
                rng, PEOPLE + one, rng.permutation(len(PAIRS))[: attack.labels], key, again=not attack.alike,
                fast=attack.fast,
            )
            for one in range(k)
        )
    )  # fmt: skip


def lying_key(world: World, attack: Attack, rng: np.random.Generator) -> Key:
    listed = rng.random(len(PAIRS)) < 0.5  # one list for all of them
    source = PAIRS % SOURCES

    def key(pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        small = world.likes(1, pair)
        otherwise = {"random": rng.random(len(pair)) < 0.5, "inverted": ~small, "raise": listed[pair]}.get(
            attack.kind, small
        )
        if attack.kind in ("raise", "copycats"):
            first, second = (source[pair] == RAISED).T
            otherwise = np.where(first, True, np.where(second, False, otherwise))
        lie = otherwise ^ (rng.random(len(pair)) < attack.flip)
        return np.where(rng.random(len(pair)) < attack.honest, small ^ (rng.random(len(pair)) < NOISE), lie)

    return key
