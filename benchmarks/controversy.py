"""Does controversy find what divides people, and not what merely tires them?  A synthetic world with a known truth.

    python -m benchmarks.controversy [--users N] [--prompts N] [--labels N] [--seeds N]

Four groups of people (``benchmarks.synthetic``).  A pair is controversial where the groups truly prefer different
sides; of the common pairs, on which all prefer the same, half are noisy: 45 of 100 labels there are turned round, as if
people were torn, and 10 of 100 on every other pair.  The preference graph is fitted to these labels, people are grouped
by k-means on its embeddings, and pairs are ranked.  An AUC of 1 puts every controversial pair above every common one.
"Votes cast" ranks by the variance of the observed votes, "all spread" by the variance of the model's expected answers,
of which "between groups" is the part that the Controversy page ranks by.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.synthetic import Protocol, SyntheticWorld, make_world
from copl_core.insight.controversy import VarianceDecomposition, decompose_variance, member_preferences
from copl_core.insight.layout import answer_space
from copl_core.preference.state import GraphConfig, GraphState

DESCRIPTION = "AUC of controversial pairs over common and noisy common ones, four synthetic groups"
SLIPS, TORN = 0.10, 0.45  # shares of labels turned round: usually, and on noisy common pairs
GROUPS = 4


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controversy", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--labels", type=int, default=40, help="of each person")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(argv)
    print(
        f"{GROUPS} groups, {arguments.users:,} people, {arguments.prompts:,} pairs, {arguments.labels} labels a "
        f"person; {SLIPS:.0%} of labels turned round, {TORN:.0%} on noisy common pairs"
    )
    for seed in range(arguments.seeds):
        found = measure(arguments.users, arguments.prompts, arguments.labels, seed)
        print(f"\nseed {seed}: {found['counts']}; groups found: adjusted Rand index {found['rand']:.3f}")
        methods = list(found["all common"])
        print(f"{'AUC of controversial pairs over':34}" + "".join(f"{name:>16}" for name in methods))
        for against in ("all common", "noisy common"):
            print(f"{against:34}" + "".join(f"{found[against][name]:16.3f}" for name in methods))
        print(f"{'mean share of the ¼ at most':34}{'between':>16}{'within':>16}{'own noise':>16}{'unknown':>16}")
        for kind, shares in found["shares"].items():
            print(f"{kind:34}" + "".join(f"{share:16.1%}" for share in shares), flush=True)
    return 0


def measure(users: int, prompts: int, labels: int, seed: int, config: GraphConfig | None = None) -> dict:
    """AUC by way of ranking, against all common pairs and against the noisy ones alone; and the mean shares."""
    from copl_core.training.graph_fit import fit_graph

    world = make_world(Protocol(GROUPS, users, prompts, labels=labels, asked=0), seed)
    controversial, torn = truth(world, np.random.default_rng(seed))
    turn_round(world, torn, np.random.default_rng(seed + 1))
    state = fit_graph(world.data, world.phi, config or GraphConfig(), seed=seed)
    group, rand = groups(state, world, seed)
    pairs = np.arange(2 * prompts).reshape(-1, 2)  # response rows; one pair a prompt
    chances = member_preferences(state, state.user_vectors, pairs)
    division = decompose_variance(chances, group)
    ranked = {
        "between groups": division.between,
        "all spread": chances.mean(0).var(0),
        "votes cast": spread_of_votes(world),
    }
    common = ~controversial
    return {
        "counts": f"{controversial.sum()} controversial pairs, {common.sum()} common, {torn.sum()} of these noisy",
        "rand": rand,
        "all common": {name: auc(score[controversial], score[common]) for name, score in ranked.items()},
        "noisy common": {name: auc(score[controversial], score[torn]) for name, score in ranked.items()},
        "shares": {
            kind: shares(division, rows)
            for kind, rows in (("controversial", controversial), ("common", common & ~torn), ("noisy common", torn))
        },
    }


def truth(world: SyntheticWorld, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Masks (P,) of the controversial pairs, and of the half of the common ones on which people are torn."""
    first_wins = world.utility[:, ::2] > world.utility[:, 1::2]  # (G, P)
    controversial = first_wins.any(0) & ~first_wins.all(0)
    common = rng.permutation(np.flatnonzero(~controversial))
    torn = np.zeros(len(controversial), bool)
    torn[common[: len(common) // 2]] = True
    return controversial, torn


def turn_round(world: SyntheticWorld, torn: np.ndarray, rng: np.random.Generator) -> None:
    labels = world.data.labels
    turned = rng.random(len(labels)) < np.where(torn[labels.left // 2], TORN, SLIPS)
    labels.outcome[turned] = 1 - labels.outcome[turned]


def groups(state: GraphState, world: SyntheticWorld, seed: int) -> tuple[np.ndarray, float]:
    """Groups of people found in the embeddings, and how well they are the true ones."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    found = KMeans(GROUPS, n_init=4, random_state=seed).fit_predict(state.user_vectors @ answer_space(state))
    return found, float(adjusted_rand_score(world.group, found))


def spread_of_votes(world: SyntheticWorld) -> np.ndarray:
    """Variance (P,) of the votes observed on each pair."""
    labels = world.data.labels
    pair = labels.left // 2
    first = np.where(labels.left % 2 == 0, labels.outcome, 1 - labels.outcome)
    share = np.bincount(pair, first, len(world.utility[0]) // 2) / np.maximum(
        1, np.bincount(pair, minlength=len(world.utility[0]) // 2)
    )
    return share * (1 - share)


def shares(division: VarianceDecomposition, rows: np.ndarray) -> list[float]:
    parts = (division.between, division.within, division.aleatoric, division.epistemic)
    return [float(4 * part[rows].mean()) for part in parts]


def auc(above: np.ndarray, below: np.ndarray) -> float:
    """Chance that one drawn from ``above`` scores higher than one from ``below``, ties counted half."""
    apart = above[:, None] - below
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())


if __name__ == "__main__":
    sys.exit(main())
