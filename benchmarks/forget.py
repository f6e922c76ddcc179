"""A person leaves: retrained from scratch without them, against dropping their rows and going on from the old weights.

    python -m benchmarks.forget [--data FOLDER] [--worlds NAMES] [--people N] [--seed N]

Worlds: the demo, a synthetic one of 150 people in four groups, and ``llmfao.jsonl.gz`` in the folder of ``--data``.  A
tenth of the labels is held out; of the synthetic world the test is the truth about pairs that nobody labelled.  Some
people leave, one at a time, each from the whole study.  Graphs alone are fitted, with the default priors that a graph
run takes: experts take minutes a fit, and they start from nothing in both ways.

*exact* is fitted from scratch without the person, as the product does.  *fast* is the graph before without the rows of
the person, refitted from its weights.  *another seed* is the graph of everybody once more, from another seed: what a
refit changes without any reason.  Distances are between predictions for the others about all labelled pairs: the mean
difference of the probability, and the share of predictions whose winner changes.

Inference: somebody who knows the pairs that the person labelled, and the people who used to answer like them, guesses
each answer by the mean vector of these people.  AUC of the person's answers against the same answers turned round; 0.5
is chance.  What *exact* leaves is what others tell about the person, and no forgetting can take it back; what *fast*
leaves beyond it was not forgotten.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.special import expit

from benchmarks.synthetic import Protocol, make_world
from copl_core.__main__ import open_store, seed_demo
from copl_core.config import Settings
from copl_core.demo.world import demo_rows
from copl_core.evaluation.dataset import EvalDataset, build_dataset
from copl_core.formats.own import read_rows
from copl_core.insight.layout import answer_space
from copl_core.install.weights import resolver
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState
from copl_core.records import Choice, Comparisons, ImportRow, TrainingData
from copl_core.study import access, labelling
from copl_core.trainer.departures import clean_up, remove_outdated
from copl_core.trainer.schedule import FEWEST
from copl_core.training.graph_fit import fit_graph
from copl_core.training.text_embedder import TextEmbedder

DESCRIPTION = (
    "a person leaves: exact and fast forgetting, what changes for others, what can still be inferred and found"
)
WORLDS = ("demo", "synthetic", "llmfao")
NEAR = 10  # people who answer most like the one who leaves
FEWEST_LABELS = 8  # of a person who leaves
NAME, REASON = "Zyxwvut Qponmlk", "because it smells of wet umbrellas"


@dataclass(frozen=True)
class World:
    """Labels to learn from and labels to test on, by the rows of ``data``."""

    name: str
    data: TrainingData
    phi: np.ndarray
    test: Comparisons
    group: np.ndarray  # (U,) true group, or −1

    def fit(self, labels: Comparisons, seed: int, warm: GraphState | None = None) -> GraphState:
        return fit_graph(self.data.with_labels(labels), self.phi, GraphConfig(), seed=seed, warm=warm)


@dataclass(frozen=True)
class Leaving:
    """One person who leaves, in the rows of a world."""

    user: int
    near: np.ndarray  # rows of the people who answered most like them
    theirs: Comparisons
    others: np.ndarray  # rows of everybody else with labels


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forget", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with llmfao.jsonl.gz")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="some of the worlds")
    parser.add_argument("--people", type=int, default=3, help="who leave, in each world")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    print(
        "Graphs alone; experts were not fitted. Others' accuracy on held-out labels; AUC of the person's own answers."
    )
    for make in worlds(arguments.data, arguments.seed, arguments.worlds.split(",")):
        forget_some(make(), arguments.people, arguments.seed)
    on_disk()
    return 0


def worlds(folder: Path | None, seed: int, names: Collection[str]) -> Iterable[Callable[[], World]]:
    """Those of ``names``.

    Raises:
        SystemExit: a name that none has.
    """
    if unknown := set(names) - set(WORLDS):
        sys.exit(f"No world is named {', '.join(sorted(unknown))}; choose from {', '.join(WORLDS)}.")
    if "demo" in names:
        yield lambda: of_rows("demo", [row for row in demo_rows(seed) if row.choice is not None], seed)
    if "synthetic" in names:
        yield lambda: synthetic(seed)
    if "llmfao" not in names:
        return
    path = None if folder is None else folder / "llmfao.jsonl.gz"
    if path is not None and path.is_file():
        yield lambda: of_rows("llmfao", [row for row in read_rows(path, []) if row.choice is not None], seed)
    else:
        print("llmfao.jsonl.gz: missing, skipped")


def of_rows(name: str, rows: list[ImportRow], seed: int) -> World:
    """A world of rows with labels, a tenth of them held out."""
    held = np.random.default_rng(seed).random(len(rows)) < 0.1
    split = build_dataset(
        [row for row, out in zip(rows, held, strict=True) if not out],
        [row for row, out in zip(rows, held, strict=True) if out],
    )
    known = np.flatnonzero(~split.new_user & ~split.new_text)
    numbers = {taste: n for n, taste in enumerate(dict.fromkeys(filter(None, split.groups)))}
    group = np.array([-1 if taste is None else numbers[taste] for taste in split.groups], np.int64)
    return World(name, split.train, embedded(split), split.test.take(known), group)


def embedded(split: EvalDataset) -> np.ndarray:
    """φ (R, P) of the responses of the training labels."""
    settings = Settings.from_environment()
    phi = TextEmbedder(resolver(settings.weights)("minilm"), cache=settings.cache / "phi").embed(list(split.texts))
    return phi[: split.train.n_responses]


def synthetic(seed: int) -> World:
    world = make_world(Protocol(users=150, prompts=200, labels=20, noise=0.1), seed)
    return World("synthetic", world.data, world.phi, world.test, world.group)


# ---- one world


def forget_some(world: World, n_people: int, seed: int) -> None:
    labels = world.data.labels
    began = time.monotonic()
    before = world.fit(labels, seed)
    seconds = time.monotonic() - began
    other = world.fit(labels, seed + 1)
    counts = np.bincount(labels.user, minlength=len(world.data.user_ids))
    rng = np.random.default_rng(seed)
    people = rng.choice(np.flatnonzero(counts >= FEWEST_LABELS), n_people, replace=False)
    print(
        f"\n{world.name}: {(counts > 0).sum()} people, {len(labels):,} labels, {len(world.test):,} test labels; "
        f"{n_people} leave ({counts[people].mean():.0f} labels each)"
    )
    print(
        f"{'':22}{'mean |Δp|':>10}{'turned':>9}{'accuracy':>10}{'near':>8}{'group':>8}{'AUC by the near':>17}"
        f"{'by own row':>12}{'seconds':>9}"
    )
    rows: dict[str, list[list[float]]] = {}
    for user in people.tolist():
        leaving = of_person(world, before, user)
        kept = labels.take(labels.user != user)
        began = time.monotonic()
        exact = world.fit(kept, seed)
        middle = time.monotonic()
        fast = world.fit(kept, seed, warm=before.without_users([int(world.data.user_ids[user])]))
        end = time.monotonic()
        for name, state, taken in (
            ("before", before, seconds),
            ("another seed", other, seconds),
            ("exact", exact, middle - began),
            ("fast", fast, end - middle),
        ):
            rows.setdefault(name, []).append(
                [*distance(before, state, leaving, labels), *rest(world, state, leaving, name), taken]
            )
        rows.setdefault("fast against exact", []).append([*distance(exact, fast, leaving, labels), *[float("nan")] * 6])
    for name, found in rows.items():
        show(name, mean(found))
    bound(rows)


def of_person(world: World, before: GraphState, user: int) -> Leaving:
    labels = world.data.labels
    others = np.setdiff1d(np.unique(labels.user), [user])
    positions = before.user_vectors @ answer_space(before)
    away = np.square(positions[others] - positions[user]).sum(1)
    return Leaving(user, others[np.argsort(away)[:NEAR]], labels.take(labels.user == user), others)


def distance(first: GraphState, second: GraphState, leaving: Leaving, labels: Comparisons) -> list[float]:
    """Of the predictions for the others about all labelled pairs."""
    pairs = np.unique(np.sort(np.column_stack([labels.left, labels.right]), 1), axis=0)
    p, q = (
        expit(state.log_odds(state.user_vectors[leaving.others], pairs[:, 0], pairs[:, 1])) for state in (first, second)
    )
    return [float(np.abs(p - q).mean()), float(((p > 0.5) != (q > 0.5)).mean())]


def rest(world: World, state: GraphState, leaving: Leaving, name: str) -> list[float]:
    """Accuracy for all others, for those near the person and for their group; and what can be inferred about them."""
    test = world.test.take((world.test.user != leaving.user) & world.test.decided)
    hit = (state.margins(test) > 0) == (test.outcome > 0.5)
    near, group = np.isin(test.user, leaving.near), world.group[test.user] == world.group[leaving.user]
    group &= world.group[leaving.user] >= 0
    own = (
        inferred(state, state.user_vectors[leaving.user], leaving)
        if name in ("before", "another seed")
        else float("nan")
    )
    return [
        float(hit.mean()),
        float(hit[near].mean()) if near.any() else float("nan"),
        float(hit[group].mean()) if group.any() else float("nan"),
        inferred(state, state.user_vectors[leaving.near].mean(0), leaving),
        own,
    ]


def inferred(state: GraphState, vector: np.ndarray, leaving: Leaving) -> float:
    """AUC of the person's decided answers against the same turned round, by the log-odds for one vector."""
    theirs = leaving.theirs.take(leaving.theirs.decided)
    margin = state.margins(theirs, np.repeat(vector[None], len(theirs), 0)) * np.where(theirs.outcome > 0.5, 1, -1)
    above = margin[:, None] - -margin[None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def show(name: str, figures: np.ndarray) -> None:
    apart, turned, accuracy, near, group, by_near, by_own, seconds = (
        "–" if not np.isfinite(figure) else f"{figure:{how}}"
        for figure, how in zip(figures, (".4f", ".2%", ".4f", ".3f", ".3f", ".3f", ".3f", ".1f"), strict=True)
    )
    print(
        f"{name:22}{apart:>10}{turned:>9}{accuracy:>10}{near:>8}{group:>8}{by_near:>17}{by_own:>12}{seconds:>9}",
        flush=True,
    )


def mean(rows: list[list[float]]) -> np.ndarray:
    """Means of columns over the people for whom there is a figure; NaN where there is none."""
    figures = np.array(rows)
    known = np.isfinite(figures)
    return np.where(known.any(0), np.where(known, figures, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def bound(rows: dict[str, list[list[float]]]) -> None:
    """Whether forgetting changes the predictions for others by less than another seed does."""
    exact, seed = (np.array(rows[name])[:, 0] for name in ("exact", "another seed"))
    held = "holds" if exact.mean() < seed.mean() else "does not hold"
    print(
        f"bound, exact changes less than another seed: {held} ({exact.mean():.4f} against {seed.mean():.4f}; "
        f"for {(exact < seed).sum()} of {len(exact)} people)"
    )


# ---- what is found on disk


def on_disk() -> None:
    """Files of a home that hold a person's name or reasons: before, after the transaction alone, and after the verb."""
    with TemporaryDirectory(prefix="copl-forget-") as folder:
        settings = replace(Settings.from_environment(), home=Path(folder), database_url="")
        session = seed_demo(open_store(settings), settings)
        access.owner(session)
        joined = access.join(session, NAME)
        for _ in range(40):
            task = labelling.next_task(session, joined.id)
            labelling.submit(session, task.id, joined.id, Choice.LEFT, reason=REASON)
        print(f"\ndisk, the demo with 40 answers of one more person, each with a reason: {found(settings.home)} before")
        began = time.monotonic()
        session.store.forget_user(joined.id, fewest=FEWEST)
        deleted = time.monotonic()
        print(f"  rows deleted ({deleted - began:.2f} s): {found(settings.home)}")
        remove_outdated(session.store, session.snapshot_root, session.id)
        clean_up(session.store, settings)
        print(f"  files rewritten ({time.monotonic() - deleted:.2f} s): {found(settings.home)}")
        session.store.close()


def found(home: Path) -> str:
    texts = {
        path.name: content
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and (content := path.read_bytes())
        and (NAME.encode() in content or REASON.encode() in content)
    }
    copies = sum(content.count(REASON.encode()) + content.count(NAME.encode()) for content in texts.values())
    return f"{copies} copies in {', '.join(texts)}" if texts else "nothing is found"


if __name__ == "__main__":
    sys.exit(main())
