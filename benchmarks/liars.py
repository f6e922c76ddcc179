"""Accounts that lie: how many are needed to move the winner of a group, with and without the defences.

    python -m benchmarks.liars [--data FOLDER] [--seed N]

The honest world has 132 people in two groups, 10 : 1, who answer 60 of 420 pairs with a tenth of flips, and a tenth of
their pairs twice.  Responses come from four sources, and each group has a favourite.  k accounts join and want another
source to win in the small group: they answer at random; the opposite of what the group likes; for their source and
otherwise as one list of random answers says; or like the group, until their source is shown (copycats that turn).  The
graph is fitted as the trainer does, with one member, and people are grouped as on the map, accounts that lie among
them.  The winner of a group is the source with the highest predicted win rate.  k is searched among powers of two.

*quarantine* is the product's default and an owner's clicks: what ``insight.evidence`` finds is left out by itself, and
what ``insight.collusion`` names (accounts with about three hundred equal answers or more) once an owner leaves it out
on Quality; here all of it is left out. *bound* is not in the product: a label of an account with more than twice the
median number of labels weighs less, so that all labels of an account weigh no more than that. Adaptive accounts know
the defences: they answer repeated pairs alike, take their time, answer little, flip some answers, or answer honestly
half of the time.

The second table is what the defences cost: honest people who are left out or named to owners, in worlds with careful
and careless people and on real files (which have no repeated pairs, so the bound of a careful person is given), and the
accuracy of fits with the bound. The third is how long newcomers wait where a study lets them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.lying_world import (
    LABELS,
    LIKED,
    PAIRS,
    PEOPLE,
    PROMPTS,
    SMALL,
    SOURCES,
    Attack,
    World,
    account,
    honest_key,
    joined,
    liars,
    make_world,
    table,
)
from copl_core.config import Settings
from copl_core.evaluation.dataset import build_dataset
from copl_core.formats.own import read_rows
from copl_core.insight.collusion import CAREFUL, alike
from copl_core.insight.controversy import member_preferences
from copl_core.insight.evidence import grounds, shown
from copl_core.insight.groups import find_groups
from copl_core.insight.layout import answer_space
from copl_core.install.weights import resolver
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, ImportRow, TrainingData
from copl_core.study_settings import AnswerTable
from copl_core.training.graph_fit import fit_graph
from copl_core.training.text_embedder import TextEmbedder

DESCRIPTION = "how many lying accounts move a group's winner, with and without the defences, and what defences cost"
FILES = ("llmfao", "polis_more", "ukpconvarg")
MOST_ROWS = 20_000  # of a file
WORLDS = 8  # in which honest people are counted
MOST = 32  # accounts that are tried
BOUND = 2.0  # labels of an account that have full weight, relative to the median account
CONFIG = GraphConfig.build(members=1)

ATTACKS = (
    Attack("random, in haste", "random", fast=True, alike=False),
    Attack("random, taking their time", "random", alike=False),
    Attack("inverted", "inverted"),
    Attack("inverted, 400 answers", "inverted", 400),
    Attack("raise a source", "raise"),
    Attack("raise, 400 answers", "raise", 400),
    Attack("raise, 400, 5 % flipped", "raise", 400, flip=0.05),
    Attack("copycats", "copycats"),
    Attack("copycats, 400 answers", "copycats", 400),
    Attack("copycats, 400, 5 % flipped", "copycats", 400, flip=0.05),
    Attack("copycats, half honest", "copycats", honest=0.5),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.liars", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder with {', '.join(FILES)}, each as .jsonl.gz")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    attacks(arguments.seed)
    false_quarantines(arguments.seed)
    files(arguments.data, arguments.seed)
    newcomers(arguments.seed)
    return 0


# ---- fits and winners


def fit(answers: AnswerTable, n_users: int, seed: int, *, bound: bool = False) -> GraphState:
    labels = Comparisons.build(answers.user, answers.left, answers.right, answers.choice == 0)
    labels = bounded(labels) if bound else labels
    n = PROMPTS * SOURCES
    texts = tuple(f"Answer {i}." for i in range(n))
    prompts = tuple(f"Question {i}?" for i in range(PROMPTS))
    data = TrainingData(np.arange(n_users), np.arange(n), np.arange(n) // SOURCES, prompts, texts, labels)
    phi = np.random.default_rng(seed).standard_normal((n, 16), np.float32)
    return fit_graph(data, phi, CONFIG, seed=seed)


def bounded(labels: Comparisons) -> Comparisons:
    """The labels, those of an account weighing no more in all than twice the labels of the median account."""
    counts = np.bincount(labels.user)
    most = BOUND * np.median(counts[counts > 0])
    weight = np.minimum(1.0, most / np.maximum(counts, 1))[labels.user]
    return replace(labels, strength=(labels.strength * weight).astype(np.float32))


def winners(world: World, state: GraphState) -> list[int]:
    """The winning source of the map's group with most of the large, and of the small group's people."""
    known = np.flatnonzero(state.n_labels > 0)
    vectors = state.user_vectors[known] @ answer_space(state)
    found = find_groups(vectors, state.n_labels[known]).group
    won = []
    for group in (0, 1):
        theirs = found[np.isin(known, np.flatnonzero(world.group == group))]
        members = known[found == np.bincount(theirs).argmax()] if len(theirs) else known
        p = member_preferences(state, state.user_vectors[members], PAIRS).mean((0, 1))
        source = np.concatenate([PAIRS[:, 0], PAIRS[:, 1]]) % SOURCES
        won.append(int(np.bincount(source, np.concatenate([p, 1 - p])).argmax()))
    return won


def accuracy(world: World, state: GraphState) -> tuple[float, float]:
    """For all honest people, and for those of the small group."""
    hit = (state.margins(world.test) > 0) == (world.test.outcome > 0.5)
    return float(hit.mean()), float(hit[world.group[world.test.user] == 1].mean())


# ---- attacks


def attacks(seed: int) -> None:
    world = make_world(seed)
    state = fit(world.answers, PEOPLE, seed)
    before = winners(world, state)
    right = "those of the truth" if before == LIKED.argmax(1).tolist() else "not those of the truth"
    print(f"{PEOPLE} honest people, {SMALL} in the small group, {len(world.answers):,} answers; no account lies:")
    print(f"winners are {right}; accuracy {show(accuracy(world, state))} (all, small group)\n")
    print(f"accounts that move the winner of the small group (half of that do not, {MOST} at most are tried);")
    print("of the most accounts tried: how many are left out, and the accuracy of honest people (all, small group)")
    head = ("no defence", "bound", "quarantine", "left out")
    print(f"{'':28}" + "".join(f"{one:>12}" for one in head) + "".join(f"{one:>16}" for one in head[::2]))
    for attack in ATTACKS:
        attacked(world, attack, before[1], seed)


def attacked(world: World, attack: Attack, winner: int, seed: int) -> None:
    most = MOST if attack.labels <= LABELS else MOST // 2
    fits: dict[tuple[str, int], GraphState] = {}

    def moved(defence: str, k: int) -> bool:
        every, out = with_liars(world, attack, k, seed)
        if defence == "quarantine" and not out:
            defence = "none"
        if (defence, k) not in fits:
            kept = every.take(~np.isin(every.user, list(out))) if defence == "quarantine" else every
            fits[defence, k] = fit(kept, PEOPLE + k, seed, bound=defence == "bound")
        return winners(world, fits[defence, k])[1] != winner

    names = ("none", "bound", "quarantine") if attack.labels > LABELS else ("none", "quarantine")
    cells = {name: smallest(lambda k, name=name: moved(name, k), most) for name in names}
    out = with_liars(world, attack, most, seed)[1]
    left_out = f"{sum(one >= PEOPLE for one in out)} of {most}"
    if honest := sum(one < PEOPLE for one in out):
        left_out += f" + {honest}"
    reached = [accuracy(world, fits.get((name, most), fits["none", most])) for name in ("none", "quarantine")]
    shown = "".join(f"{cells.get(name, ''):>12}" for name in ("none", "bound", "quarantine"))
    print(f"{attack.name:28}{shown}{left_out:>12}" + "".join(f"{show(one):>16}" for one in reached), flush=True)


def with_liars(world: World, attack: Attack, k: int, seed: int) -> tuple[AnswerTable, set[int]]:
    """(all answers, accounts that the evidence leaves out or that owners are shown as alike)."""
    every = joined(world.answers, liars(world, attack, k, seed))
    return every, found(every, set(range(PEOPLE + k)))


def found(answers: AnswerTable, people: set[int]) -> set[int]:
    """Accounts that the evidence leaves out, and those that owners are shown as alike."""
    return {*grounds(answers, people), *(one.user_id for one in alike(answers))}


def smallest(moved: Callable[[int], bool], most: int) -> str:
    """The smallest power of two that moves, by bisection: more accounts are taken to move no less."""
    if not moved(most):
        return f">{most}"
    low, high = -1, int(np.log2(most))  # 2^low does not move, 2^high does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if moved(2**middle) else (middle, high)
    return str(2**high)


def show(both: tuple[float, float]) -> str:
    return f"{both[0]:.3f} / {both[1]:.3f}"


# ---- what the defences cost


def false_quarantines(seed: int) -> None:
    print(f"\nhonest people who are left out or named as alike, by their number of answers, in {WORLDS} worlds:")
    print(f"{'':44}" + "".join(f"{n:>10}" for n in (60, 120, 400)))
    for name, noise in (
        ("10 : 1, a tenth of flips", (0.1, 0.1)),
        ("the small group careful (2 %), others not (15 %)", (0.15, 0.02)),
        ("the small group careless (30 %)", (0.1, 0.3)),
    ):
        counts = [sum(len(honest_left_out(seed + s, n, noise)) for s in range(WORLDS)) for n in (60, 120, 400)]
        print(f"{name:48}" + "".join(f"{count:>6} of {WORLDS * PEOPLE:,}"[-12:] for count in counts))


def honest_left_out(seed: int, labels: int, noise: tuple[float, float]) -> set[int]:
    world, rng = make_world(seed), np.random.default_rng(seed)
    rows = []
    for user, group in enumerate(world.group.tolist()):
        key = honest_key(world, group, noise[group])
        rows.append(account(rng, user, rng.permutation(len(PAIRS))[:labels], key, again=True))
    return found(joined(*rows), set(range(PEOPLE)))


def files(folder: Path | None, seed: int) -> None:
    print(
        f"\nreal files: people who would be left out, and accuracy without and with the bound ({BOUND:g} × the median)"
    )
    for name in FILES:
        path = (folder or Path()) / f"{name}.jsonl.gz"
        if folder is None or not path.is_file():
            print(f"{name}: skipped, since --data names no folder with {path.name}.")
            continue
        rows = [row for row in read_rows(path, []) if row.choice is not None]
        of_file(name, some_prompts(rows, seed) if len(rows) > MOST_ROWS else rows, seed)


def some_prompts(rows: list[ImportRow], seed: int) -> list[ImportRow]:
    """Rows of as many prompts, drawn at random, as give no more than ``MOST_ROWS``."""
    prompts, count = np.unique([row.prompt for row in rows], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(prompts))
    kept = set(prompts[order[np.cumsum(count[order]) <= MOST_ROWS]].tolist())
    return [row for row in rows if row.prompt in kept]


def of_file(name: str, rows: list[ImportRow], seed: int) -> None:
    held = np.random.default_rng(seed).random(len(rows)) < 0.15
    split = build_dataset(
        [row for row, out in zip(rows, held, strict=True) if not out],
        [row for row, out in zip(rows, held, strict=True) if out],
    )
    data = split.train
    answers = answers_of(data.labels)
    named = found(answers, set(np.unique(answers.user).tolist()))
    careful = alike(answers, bound=CAREFUL)
    counts = np.bincount(data.labels.user)
    print(
        f"{name}: {data.n_users:,} people, {len(data.labels):,} labels, at most {counts.max():,} of one person; "
        f"{len(named)} left out or named as alike, {len(careful)} with the bound of a careful person"
    )
    settings = Settings.from_environment()
    phi = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi").embed(list(split.texts))
    phi = phi[: data.n_responses]
    test = split.test.take(np.flatnonzero(~split.new_user & ~split.new_text & split.test.decided))
    hits = [
        (fit_graph(one, phi, CONFIG, seed=seed).margins(test) > 0) == (test.outcome > 0.5)
        for one in (data, data.with_labels(bounded(data.labels)))
    ]
    difference = by_person(hits[1].astype(float) - hits[0], test.user, seed)
    print(f"  {hits[0].mean():.4f} without, {hits[1].mean():.4f} with it: {difference}")


def answers_of(labels: Comparisons) -> AnswerTable:
    """Decided labels of a file as answers, without times and reasons of selection."""
    decided = labels.take(labels.decided)
    first, second = np.minimum(decided.left, decided.right), np.maximum(decided.left, decided.right)
    pair = np.unique(first * (int(second.max(initial=0)) + 1) + second, return_inverse=True)[1]
    n = len(decided)
    none, one = np.full(n, -1), np.ones(n, np.int64)
    choice = np.where(decided.outcome > 0.5, 0, 1)
    return AnswerTable(
        decided.user, pair, decided.left, decided.right, choice, none, none, none, one, one.astype(bool), one
    )


def by_person(values: np.ndarray, user: np.ndarray, seed: int) -> str:
    """The mean with its 95 % interval by a bootstrap over people."""
    _, row = np.unique(user, return_inverse=True)
    total, n = np.bincount(row, values), np.bincount(row)
    draws = np.random.default_rng(seed).multinomial(len(n), np.full(len(n), 1 / len(n)), 2000)
    low, high = np.quantile(draws @ total / (draws @ n), (0.025, 0.975))
    return f"{100 * values.mean():+.2f} points (95 % {100 * low:+.2f} to {100 * high:+.2f})"


def newcomers(seed: int) -> None:
    print("\nnewcomers who count, where a study lets them wait, by the number of their repeated pairs:")
    at = (5, 8, 12, 20, 30)
    print(f"{'':34}" + "".join(f"{n:>8}" for n in at))
    rng = np.random.default_rng(seed)
    for name, same in (("a tenth of flips (0.82 the same)", 0.82), ("careful (0.96)", 0.96), ("at random (0.5)", 0.5)):
        print(f"{name:34}" + "".join(f"{share_shown(rng, same, n):>8.0%}" for n in at))


def share_shown(rng: np.random.Generator, same: float, most: int, people: int = 300) -> float:
    """The share of people who have counted after ``most`` repeats; who has counted once goes on to count."""
    agree = rng.random((people, most)) < same
    done: set[int] = set()
    for n in range(1, most + 1):
        waiting = np.setdiff1d(np.arange(people), list(done))
        user, pair = np.repeat(waiting, n), np.tile(np.arange(n), len(waiting))
        first = table(user, pair, np.ones(len(user), bool), np.full(len(user), 8000))
        second = table(user, pair, agree[waiting, :n].ravel(), np.full(len(user), 8000))
        done |= set(shown(joined(first, second), waiting.tolist()))
    return len(done) / people


if __name__ == "__main__":
    sys.exit(main())
