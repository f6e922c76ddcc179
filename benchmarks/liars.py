"""Accounts that lie: how many are needed to move the winner of a group, with and without the defences.

    python -m benchmarks.liars [--data FOLDER] [--worlds NAMES] [--parts NAMES] [--seed N]

Worlds: a synthetic one of 132 people in two groups, 10 : 1; the demo, of whose five tastes one is attacked; and
``llmfao.jsonl.gz`` in the folder of ``--data``, whose smallest group of the map is attacked (``lying_world``,
``lying_worlds``).  Responses come from sources. k accounts join and want another source to win in the group: they
answer at random; the opposite of what the group likes; for their source and otherwise as one list of random answers
says; or like the group, until their source is shown (copycats that turn).  Graphs are fitted as the trainer does, of
the demo with four members and else with one, and people are grouped as on the map, accounts that lie among them.  The
winner of a group is the source with the highest predicted win rate.  Accounts that raise a source move it where that
source wins, others where one wins that wins in no fit without them, of five seeds.  k is searched among powers of two.

*By default* is the product: what ``insight.evidence`` finds is left out, and no account weighs more than a twentieth
of all, or than ten times the median account (``training.influence``).  *And owners* adds an owner's clicks on Quality:
what ``insight.collusion`` names (accounts with about three hundred equal answers or more) is left out too.  Adaptive
accounts know the defences: they answer repeated pairs alike, take their time, answer as much as has full weight, flip
some answers, or answer honestly half of the time.

The next tables are what the defences cost.  First honest people who are left out or named to owners, in worlds with
careful and careless people.  Then bounds on the weight of an account, in synthetic worlds in which people answer
differently much, and on real files (which have no repeated pairs, so the bound of a careful person is given). The last
is how long newcomers wait where a study lets them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.forget import embedded
from benchmarks.lying_world import (
    LABELS,
    PAIRS,
    PEOPLE,
    Attack,
    World,
    account,
    honest_key,
    joined,
    joined_labels,
    liars,
    make_world,
    table,
)
from benchmarks.lying_worlds import demo_world, file_world
from copl_core.evaluation.dataset import build_dataset
from copl_core.formats.own import read_rows
from copl_core.insight.collusion import CAREFUL, alike
from copl_core.insight.controversy import member_preferences
from copl_core.insight.evidence import grounds, shown
from copl_core.insight.groups import find_groups
from copl_core.insight.layout import answer_space
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, ImportRow, counted
from copl_core.study_settings import AnswerTable
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_trainer import weight_of
from copl_core.training.influence import account_factors

DESCRIPTION = "how many lying accounts move a group's winner, with and without the defences, and what defences cost"
WORLDS = ("synthetic", "demo", "llmfao")
PARTS = ("attacks", "quarantine", "bounds", "files", "newcomers")
FILES = ("llmfao", "polis_more", "ukpconvarg")
MOST_ROWS = 20_000  # of a file
COUNTED = 8  # synthetic worlds in which honest people are counted
MOST = 64  # accounts that are tried, of those with many answers half
SEEDS = 5  # fits without the accounts
PRIORS = GraphConfig().priors
DEFAULT = {"influence": PRIORS.influence, "influence_times": PRIORS.influence_times}
NONE = {"influence": 0.0}
BOUNDS = {f"{PRIORS.influence:.0%} of all or {PRIORS.influence_times:g} × the median": DEFAULT} | {
    f"{times:g} × the median": {"influence": 1e-9, "influence_times": times} for times in (10.0, 5.0, 2.0)
}
OUTCOMES = np.array([{Choice.LEFT: 1.0, Choice.RIGHT: 0.0}.get(choice, 0.5) for choice in Choice])

ATTACKS = (
    Attack("random, in haste", "random", fast=True, alike=False),
    Attack("random, taking their time", "random", alike=False),
    Attack("inverted", "inverted"),
    Attack("inverted, many", "inverted", "many"),
    Attack("raise a source", "raise"),
    Attack("raise, at the bound", "raise", "bound"),
    Attack("raise, many", "raise", "many"),
    Attack("raise, many, 5 % flipped", "raise", "many", flip=0.05),
    Attack("copycats", "copycats"),
    Attack("copycats, at the bound, 5 % flipped", "copycats", "bound", flip=0.05),
    Attack("copycats, many", "copycats", "many"),
    Attack("copycats, many, 5 % flipped", "copycats", "many", flip=0.05),
    Attack("copycats, half honest", "copycats", honest=0.5),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.liars", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder with {', '.join(FILES)}, each as .jsonl.gz")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="some of the worlds")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of the tables")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    parts, seed = arguments.parts.split(","), arguments.seed
    if "attacks" in parts:
        for world in worlds(arguments.data, seed, arguments.worlds.split(",")):
            attacks(world, seed)
    if "quarantine" in parts:
        false_quarantines(seed)
    if "bounds" in parts:
        bounds(seed)
    if "files" in parts:
        files(arguments.data, seed)
    if "newcomers" in parts:
        newcomers(seed)
    return 0


def worlds(folder: Path | None, seed: int, names: Collection[str]) -> Iterator[World]:
    if "synthetic" in names:
        yield make_world(seed)
    if "demo" in names:
        yield demo_world(seed)
    if "llmfao" in names:
        path = (folder or Path()) / "llmfao.jsonl.gz"
        if folder is None or not path.is_file():
            print(f"llmfao: skipped, since --data names no folder with {path.name}.")
            return
        yield file_world(path, seed)


# ---- fits and winners


def fit(world: World, answers: AnswerTable, n_users: int, seed: int, bound: dict[str, float]) -> GraphState:
    """A graph of ``answers`` of the world's people and of the accounts after them."""
    data = replace(world.data.with_labels(labels_of(answers)), user_ids=np.arange(n_users), tags=None)
    return fit_graph(data, world.phi, GraphConfig.build(members=world.members, **bound), seed=seed)


def labels_of(answers: AnswerTable) -> Comparisons:
    return Comparisons.build(answers.user, answers.left, answers.right, OUTCOMES[answers.choice])


def winner(world: World, state: GraphState) -> int:
    """The winning source of the map's group with most of the attacked group's people."""
    known = np.flatnonzero(state.n_labels > 0)
    vectors = state.user_vectors[known] @ answer_space(state)
    found = find_groups(vectors, state.n_labels[known]).group
    theirs = found[np.isin(known, np.flatnonzero(world.group == 1))]
    members = known[found == np.bincount(theirs).argmax()] if len(theirs) else known
    return int(win_rates(world, state, members).argmax())


def win_rates(world: World, state: GraphState, members: np.ndarray) -> np.ndarray:
    """(S,) how often each source is predicted to win for these people, over all pairs."""
    p = member_preferences(state, state.user_vectors[members], world.pairs).mean((0, 1))
    both = world.source[world.pairs].T.ravel()
    return np.bincount(both, np.concatenate([p, 1 - p])) / np.maximum(np.bincount(both), 1)


def accuracy(world: World, state: GraphState) -> tuple[float, float]:
    """For all honest people, and for those of the attacked group."""
    hit = (state.margins(world.test) > 0) == (world.test.outcome > 0.5)
    return float(hit.mean()), float(hit[world.group[world.test.user] == 1].mean())


# ---- attacks


def attacks(world: World, seed: int) -> None:
    without = [fit(world, world.answers, world.people, seed + s, DEFAULT) for s in range(SEEDS)]
    before = {winner(world, state) for state in without}
    counts = world.counts
    print(
        f"{world.name}: {world.people} honest people, {world.group.sum()} in the attacked group, "
        f"{len(world.answers):,} answers, {len(np.unique(world.source))} sources; without lying accounts, by {SEEDS} "
        f"seeds, the group has {counted(len(before), 'winner')}; accuracy {show(accuracy(world, without[0]))} (all, "
        f"the group)\nA lying account answers {counts['few']} pairs; at the bound {counts['bound']}, many are "
        f"{counts['many']}.\naccounts that move the winner of the group (half of that do not, {MOST} at most are "
        "tried, of those with many answers half);\nof the most accounts tried: how many are left out by default and "
        "with owners, and the accuracy of honest people (all, the group)"
    )
    columns = f"{'no defence':>12}{'by default':>12}{'and owners':>12}{'left out':>12}{'named':>12}"
    print(f"{'':38}{columns}{'no defence':>16}{'by default':>16}{'and owners':>16}")
    for attack in ATTACKS:
        if attack.labels != "bound" or counts["bound"] < counts["many"]:
            attacked(world, attack, before, seed)
    print()


def attacked(world: World, attack: Attack, before: set[int], seed: int) -> None:
    most = MOST if attack.labels == "few" else MOST // 2
    fits: dict[tuple, GraphState] = {}

    def moved(name: str, k: int) -> bool:
        won = winner(world, with_defence(name, k))
        return won == world.raised if attack.kind in ("raise", "copycats") else won not in before

    def with_defence(name: str, k: int) -> GraphState:
        every, out, named = with_liars(world, attack, k, seed)
        left_out = {"none": frozenset(), "default": out, "owners": out | named}[name]
        kept = every.take(~np.isin(every.user, list(left_out)))
        bound = DEFAULT if name != "none" and is_bounded(kept) else NONE
        key = k, bound is NONE, left_out
        if key not in fits:
            fits[key] = fit(world, kept, world.people + k, seed, bound)
        return fits[key]

    names = ("none", "default", "owners")
    cells = [smallest(lambda k, name=name: moved(name, k), most) for name in names]
    _, out, named = with_liars(world, attack, most, seed)
    left = [out_of(world, found, most) for found in (out, named)]
    reached = [accuracy(world, with_defence(name, most)) for name in names]
    shown = "".join(f"{cell:>12}" for cell in [*cells, *left])
    print(f"{attack.name:38}{shown}" + "".join(f"{show(one):>16}" for one in reached), flush=True)


def is_bounded(answers: AnswerTable) -> bool:
    """Whether an account is above the bound of the product; else a fit is the one without a bound."""
    labels = labels_of(answers)
    weight = weight_of(labels, GraphConfig())
    return account_factors(labels, weight, int(labels.user.max()) + 1, *DEFAULT.values()) is not None


def with_liars(world: World, attack: Attack, k: int, seed: int) -> tuple[AnswerTable, frozenset[int], frozenset[int]]:
    """(all answers, accounts that the evidence leaves out, accounts that owners are shown as alike)."""
    every = joined(world.answers, liars(world, attack, k, seed))
    return every, *found(every, set(range(world.people + k)), world.repeats)


def found(answers: AnswerTable, people: set[int], repeats: bool = True) -> tuple[frozenset[int], frozenset[int]]:
    """Accounts that the evidence leaves out, and those that owners are shown as alike."""
    out = frozenset(grounds(answers, people))
    rest = answers.take(~np.isin(answers.user, list(out)))
    return out, frozenset(one.user_id for one in alike(rest, bound=None if repeats else CAREFUL))


def out_of(world: World, found: Collection[int], most: int) -> str:
    honest = sum(one < world.people for one in found)
    return f"{len(found) - honest} of {most}" + (f" + {honest}" if honest else "")


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
    print(f"honest people who are left out or named as alike, by their number of answers, in {COUNTED} worlds:")
    print(f"{'':44}" + "".join(f"{n:>10}" for n in (60, 120, 400)))
    for name, noise in (
        ("10 : 1, a tenth of flips", (0.1, 0.1)),
        ("the small group careful (2 %), others not (15 %)", (0.15, 0.02)),
        ("the small group careless (30 %)", (0.1, 0.3)),
    ):
        counts = [sum(len(honest_left_out(seed + s, n, noise)) for s in range(COUNTED)) for n in (60, 120, 400)]
        print(f"{name:48}" + "".join(f"{count:>6} of {COUNTED * PEOPLE:,}"[-12:] for count in counts))
    print()


def honest_left_out(seed: int, labels: int, noise: tuple[float, float]) -> set[int]:
    world, rng = make_world(seed), np.random.default_rng(seed)
    rows = []
    for user, group in enumerate(world.group.tolist()):
        key = honest_key(world, group, noise[group])
        rows.append(account(rng, user, rng.permutation(len(PAIRS))[:labels], key, again=True))
    return set().union(*found(joined(*rows), set(range(PEOPLE))))


# Name, answers of the large group's people and of the small one's: means of a geometric distribution
UNEVEN = (("everybody differently much", 60, 60), ("the small group most", 30, 240), ("the small group least", 60, 15))


def bounds(seed: int) -> None:
    print(
        f"bounds on the weight of an account: accuracy of all people, of the small group, and of accounts above the "
        f"lowest bound,\nin {COUNTED} worlds, 10 : 1, whose people answer differently much; points, with the 95 % "
        "interval over worlds"
    )
    for name, large, small in UNEVEN:
        found = np.array([uneven(seed + s, large, small) for s in range(COUNTED)])  # (W, 1 + bounds, 3)
        print(f"{name}: {large} and {small} answers on average; without a bound {100 * found[:, 0].mean(0).round(4)}")
        for b, bound in enumerate(BOUNDS, start=1):
            words = (over_worlds(found[:, b, one] - found[:, 0, one]) for one in range(3))
            print(f"  {bound:34}" + "".join(f"{word:>26}" for word in words))
    print()


def uneven(seed: int, large: int, small: int) -> list[list[float]]:
    """Without a bound and with each: accuracies of all people, the small group, and accounts above the lowest bound."""
    world, rng = make_world(seed), np.random.default_rng(seed)
    rows, test = [], []
    for user, group in enumerate(world.group.tolist()):
        drawn = rng.permutation(len(PAIRS))
        n = min(int(rng.geometric(1 / (small if group else large))), len(PAIRS) - LABELS)
        rows.append(account(rng, user, drawn[:n], honest_key(world, group), again=True))
        unseen = drawn[-LABELS:]
        test.append((np.full(LABELS, user), unseen, world.likes(group, unseen)))
    world = replace(world, answers=joined(*rows), test=joined_labels(test))
    count = np.bincount(world.answers.user, minlength=PEOPLE)
    above = (count > 2 * np.median(count))[world.test.user]
    found = []
    for bound in (NONE, *BOUNDS.values()):
        state = fit(world, world.answers, PEOPLE, seed, bound)
        hit = (state.margins(world.test) > 0) == (world.test.outcome > 0.5)
        found.append([hit.mean(), hit[world.group[world.test.user] == 1].mean(), hit[above].mean()])
    return found


def over_worlds(values: np.ndarray) -> str:
    """The mean in points with its 95 % interval."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():+.2f} ({100 * (values.mean() - half):+.2f} to {100 * (values.mean() + half):+.2f})"


def files(folder: Path | None, seed: int) -> None:
    print("real files: people who would be left out, and accuracy without and with bounds; points, 95 % over people")
    for name in FILES:
        path = (folder or Path()) / f"{name}.jsonl.gz"
        if folder is None or not path.is_file():
            print(f"{name}: skipped, since --data names no folder with {path.name}.")
            continue
        rows = [row for row in read_rows(path, []) if row.choice is not None]
        of_file(name, some_prompts(rows, seed) if len(rows) > MOST_ROWS else rows, seed)
    print()


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
    data, phi = split.train, embedded(split)
    answers = answers_of(data.labels)
    named = set().union(*found(answers, set(np.unique(answers.user).tolist())))
    careful = alike(answers, bound=CAREFUL)
    count = np.bincount(data.labels.user)
    print(
        f"{name}: {data.n_users:,} people, {len(data.labels):,} labels, {np.median(count):g} of the median person and "
        f"{count.max():,} at most; {len(named)} left out or named as alike, {len(careful)} with the bound of a careful "
        "person"
    )
    test = split.test.take(np.flatnonzero(~split.new_user & ~split.new_text & split.test.decided))

    def hits(bound: dict[str, float]) -> np.ndarray:
        fits = (fit_graph(data, phi, GraphConfig.build(members=1, **bound), seed=seed + s) for s in range(SEEDS))
        return np.mean([(state.margins(test) > 0) == (test.outcome > 0.5) for state in fits], 0)

    without = hits(NONE)
    print(f"  {without.mean():.4f} without, mean of {SEEDS} seeds; with a bound all, accounts above it, those below")
    for words, bound in BOUNDS.items():
        weight = weight_of(data.labels, GraphConfig())
        factor = account_factors(data.labels, weight, data.n_users, *bound.values())
        above = np.zeros(data.n_users, bool) if factor is None else factor < 1
        difference, of = hits(bound) - without, above[test.user]
        columns = [by_person(difference[some], test.user[some], seed) for some in (of | True, of, ~of)]
        print(f"  {words} ({above.sum()} above)".ljust(42) + "".join(f"{one:>26}" for one in columns), flush=True)


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
    """The mean in points with its 95 % interval by a bootstrap over people."""
    if not len(values):
        return "–"
    _, row = np.unique(user, return_inverse=True)
    total, n = np.bincount(row, values), np.bincount(row)
    draws = np.random.default_rng(seed).multinomial(len(n), np.full(len(n), 1 / len(n)), 2000)
    low, high = np.quantile(draws @ total / (draws @ n), (0.025, 0.975))
    return f"{100 * values.mean():+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def newcomers(seed: int) -> None:
    print("newcomers who count, where a study lets them wait, by the number of their repeated pairs:")
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
