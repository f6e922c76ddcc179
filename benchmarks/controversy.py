"""Does controversy rank pairs that divide users above pairs with noisy labels?  A synthetic world with a known truth.

    python -m benchmarks.controversy [--users N] [--prompts N] [--labels N] [--seeds N]

Four groups of users (``benchmarks.synthetic``).  A pair is controversial if the groups truly prefer different
responses; on a common pair all prefer the same one.  Half of the common pairs are noisy: 45 of 100 of their labels are
flipped, as if users were undecided, and 10 of 100 on every other pair.  The preference graph is fitted to these labels,
users are grouped by k-means on its embeddings, and pairs are ranked.  An AUC of 1 ranks every controversial pair above
every common one.  "Observed votes" ranks by the variance of the observed votes, "total" by the variance of the model's
expected preferences, of which "between groups" is the part that the Controversy page ranks by.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.synthetic import Protocol, SyntheticWorld, make_world
from copl_core.insight.controversy import VarianceDecomposition, decompose_variance, member_preferences
from copl_core.insight.layout import answer_space
from copl_core.preference.config import GraphConfig
from copl_core.preference.state import GraphState

DESCRIPTION = "AUC of controversial pairs over common and noisy common ones, four synthetic groups"
NOISE, HIGH_NOISE = 0.10, 0.45  # shares of flipped labels: usually, and on noisy common pairs
GROUPS = 4


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controversy", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--labels", type=int, default=40, help="labels per user")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(argv)
    print(
        f"{GROUPS} groups, {arguments.users:,} users, {arguments.prompts:,} pairs, {arguments.labels} labels per "
        f"user; {NOISE:.0%} of the labels are flipped, {HIGH_NOISE:.0%} on noisy common pairs"
    )
    for seed in range(arguments.seeds):
        found = measure(arguments.users, arguments.prompts, arguments.labels, seed)
        print(f"\nseed {seed}: {found['counts']}; groups found: adjusted Rand index {found['rand']:.3f}")
        methods = list(found["all common"])
        print(f"{'AUC of controversial pairs over':34}" + "".join(f"{name:>16}" for name in methods))
        for against in ("all common", "noisy common"):
            print(f"{against:34}" + "".join(f"{found[against][name]:16.3f}" for name in methods))
        print(f"{'mean share of the maximum of ¼':34}{'between':>16}{'within':>16}{'aleatoric':>16}{'epistemic':>16}")
        for kind, shares in found["shares"].items():
            print(f"{kind:34}" + "".join(f"{share:16.1%}" for share in shares), flush=True)
    return 0


def measure(users: int, prompts: int, labels: int, seed: int, config: GraphConfig | None = None) -> dict:
    """AUC of each ranking, against all common pairs and against the noisy ones alone, and the mean variance shares."""
    from copl_core.training.graph_fit import fit_graph

    world = make_world(Protocol(GROUPS, users, prompts, labels=labels, test=0), seed)
    controversial, noisy = truth(world, np.random.default_rng(seed))
    flip(world, noisy, np.random.default_rng(seed + 1))
    state = fit_graph(world.data, world.phi, config or GraphConfig(), seed=seed)
    group, rand = groups(state, world, seed)
    pairs = np.arange(2 * prompts).reshape(-1, 2)  # response rows; one pair per prompt
    preferences = member_preferences(state, state.user_vectors, pairs)
    parts = decompose_variance(preferences, group)
    ranked = {
        "between groups": parts.between,
        "total": preferences.mean(0).var(0),
        "observed votes": vote_variance(world),
    }
    common = ~controversial
    return {
        "counts": f"{controversial.sum()} controversial pairs, {common.sum()} common, {noisy.sum()} of these noisy",
        "rand": rand,
        "all common": {name: auc(score[controversial], score[common]) for name, score in ranked.items()},
        "noisy common": {name: auc(score[controversial], score[noisy]) for name, score in ranked.items()},
        "shares": {
            kind: shares(parts, rows)
            for kind, rows in (("controversial", controversial), ("common", common & ~noisy), ("noisy common", noisy))
        },
    }


def truth(world: SyntheticWorld, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Masks (P,) of the controversial pairs, and of the noisy half of the common ones."""
    first_wins = world.utility[:, ::2] > world.utility[:, 1::2]  # (G, P)
    controversial = np.asarray(np.any(first_wins, axis=0) & ~np.all(first_wins, axis=0))
    common = rng.permutation(np.flatnonzero(~controversial))
    noisy = np.zeros_like(controversial)
    noisy[common[: len(common) // 2]] = True
    return controversial, noisy


def flip(world: SyntheticWorld, noisy: np.ndarray, rng: np.random.Generator) -> None:
    """Flip labels in place."""
    labels = world.data.labels
    flipped = rng.random(len(labels)) < np.where(noisy[labels.left // 2], HIGH_NOISE, NOISE)
    labels.outcome[flipped] = 1 - labels.outcome[flipped]


def groups(state: GraphState, world: SyntheticWorld, seed: int) -> tuple[np.ndarray, float]:
    """Groups of users found in the embeddings, and their adjusted Rand index with the true groups."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    found = KMeans(GROUPS, n_init=4, random_state=seed).fit_predict(state.user_vectors @ answer_space(state))
    return found, float(adjusted_rand_score(world.group, found))


def vote_variance(world: SyntheticWorld) -> np.ndarray:
    """Variance (P,) of the votes observed on each pair."""
    labels = world.data.labels
    pair = labels.left // 2
    first = np.where(labels.left % 2 == 0, labels.outcome, 1 - labels.outcome)
    share = np.bincount(pair, first, len(world.utility[0]) // 2) / np.maximum(
        1, np.bincount(pair, minlength=len(world.utility[0]) // 2)
    )
    return share * (1 - share)


def shares(variance: VarianceDecomposition, rows: np.ndarray) -> list[float]:
    """Mean over pairs of each part, as a share of the largest possible variance, ¼."""
    parts = (variance.between, variance.within, variance.aleatoric, variance.epistemic)
    return [float(4 * part[rows].mean()) for part in parts]


def auc(above: np.ndarray, below: np.ndarray) -> float:
    """Probability that a draw from ``above`` scores higher than one from ``below``, with ties counted half."""
    difference = above[:, None] - below
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


if __name__ == "__main__":
    sys.exit(main())
