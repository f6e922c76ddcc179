"""What a model tells about its people: membership, attributes, answers and small groups, attacked; and what hides them.

    python -m benchmarks.audit [--data FOLDER] [--worlds NAMES] [--shadows N] [--targets N] [--seed N]

Worlds: the demo, a synthetic one of 150 people in four groups, and ``llmfao.jsonl.gz`` in the folder of ``--data``.
Graphs are fitted to halves of the labels, or of the people, and attacked by what somebody sees of them.  An AUC of 0.5
is chance; ``found`` is the share of the training data that is found where one in a hundred others is taken for it.
Accuracies are of half of a study's labels, on the other half.

*Decoded* attacks ask for the rewards of all people on all texts.  At the end, one answer about a group with its
interval is solved for the people of the group: how far the solution is from their probabilities at most.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.forget import WORLDS, World, worlds
from copl_core.evaluation import small_groups
from copl_core.evaluation.audit import audit
from copl_core.evaluation.audit_report import text
from copl_core.evaluation.shadows import SHADOWS, TARGETS, world_of
from copl_core.preference.state import GraphState

DESCRIPTION = (
    "what a model tells about its people: who and which labels were in training, their attributes and answers, what a "
    "small group gives away, and what knobs hide at which price"
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with llmfao.jsonl.gz")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="some of the worlds")
    parser.add_argument("--shadows", type=int, default=SHADOWS, help=f"fits that teach the attacker ({SHADOWS})")
    parser.add_argument("--targets", type=int, default=TARGETS, help=f"fits that are attacked ({TARGETS})")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    print("Graphs alone; experts were not fitted.")
    for make in worlds(arguments.data, arguments.seed, arguments.worlds.split(",")):
        attack(make(), arguments.shadows, arguments.targets, arguments.seed)
    return 0


def attack(world: World, shadows: int, targets: int, seed: int) -> None:
    began = time.monotonic()
    audited = world_of(world.data, world.phi, seed=seed)
    state = world.fit(audited.labels, seed) if audited.data.n_users == world.data.n_users else None
    attacked = np.flatnonzero(np.isin(world.data.user_ids, audited.data.user_ids))  # those with a preference
    groups = [None if world.group[user] < 0 else str(world.group[user]) for user in attacked.tolist()]
    found = audit(audited, shadows=shadows, targets=targets, serving=state, attributes={"true group": groups})
    print(f"\n== {world.name}\n\n{text(found)}")
    if state is not None:
        solve(state)
    print(f"\nIt took {time.monotonic() - began:.0f} s.", flush=True)


def solve(state: GraphState) -> None:
    """How far the people behind one answer about a group are from what is solved for them."""
    print(
        "\nOne answer about a group, with its interval, solved for its people (probabilities; at most, and on average)"
    )
    near, labels = small_groups.nearest(state), state.labels
    difference, bias = state.differences(labels.left, labels.right)
    for size in small_groups.sizes_for(len(near)):
        members = state.user_vectors[near[labels.user, :size]]
        wins = expit((np.einsum("nkd,nd->kn", members, difference) + bias) / state.temperature)
        apart = np.abs(small_groups.solved(small_groups.sent(wins), size) - np.sort(wins, axis=0))
        print(f"groups of {size:<4} {apart.max():.4f}   {apart.mean():.4f}")


if __name__ == "__main__":
    sys.exit(main())
