"""Whether reasons, as an auxiliary target, help the text weights of users on prompts that nobody labelled.

    python -m benchmarks.reasons [--cuts N] [--weight W]

A reason is a tag, such as "shorter": it names what a user's choice is made for.  Each tag gets a direction d_k in the
text features, by a linear discriminant that tells the labels with this tag from those with others.  Two convex terms
let tags speak about the weights w_u of their user (``training.linear_fit``):

comparison   a label with tag k is one more label, whose two texts differ along the direction of k alone
naming       log softmax over tags of the share (w_u · d_k)(d_k · Δ) that each tag's direction d_k has in the margin of
             a label with difference Δ: the named tag has the largest (after rationales, arXiv 2407.14477)

``shuffled`` gives the tags of other labels: what a term does without what it says.  Two worlds, both simulated: the
demo's people, who name the axis of style that decides for them, and people with weights on features that are known
exactly, where a tag is a feature.  Leads are over the fit without reasons, with 95 % intervals over users; ``rescaled``
is the log-loss with the best common factor, since the mix of a snapshot learns one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from benchmarks.quality import TEST, TRAIN, new_prompts
from copl_core.config import Settings
from copl_core.demo.world import AXES, demo_rows, study_prompts, tastes
from copl_core.evaluation.dataset import build_dataset
from copl_core.install.weights import resolver
from copl_core.preference.config import GraphConfig
from copl_core.records import Choice, Comparisons, ImportRow, TrainingData
from copl_core.reward.linear import N_STYLE, LinearConfig, TextFeatures, of_differences
from copl_core.training.graph_fit import fit_graph
from copl_core.training.linear_fit import STEPS, World, _Loss
from copl_core.training.metrics import correct, interval, log_losses
from copl_core.training.text_embedder import installed_embedder

DESCRIPTION = "Reasons of labels as an auxiliary target of the text weights, on unseen prompts of simulated people"
CUTS = 3
GRAPH = GraphConfig()
NO_TAG = -1
FACTORS = np.geomspace(0.25, 4, 81)
SHARPNESS = 3.0  # of the choice among tags
SHRUNK = 3.0  # times the mean variance, added to each feature's: most of the embedding is noise
FEWEST = 3  # labels with a tag
OWN_FEATURES, OWN_USERS, OWN_LABELS, OWN_TEXTS = 16, 150, 18, 240  # of the world whose features are known


@dataclass(frozen=True)
class Tagged:
    """One cut of a world: labels to learn from, a tag or ``NO_TAG`` for each, and labels about unseen texts."""

    train: TrainingData
    phi: np.ndarray  # (T, p) of all texts; those of the training labels come first
    tags: np.ndarray  # (N,)
    test: Comparisons


def demo_cut(seed: int) -> Tagged:
    """The demo's people; 15 % of the prompts are tested."""
    rows = [row for row in demo_rows() if row.choice is not None]
    kind = new_prompts([asdict(row) for row in rows], seed).astype(int)
    train, test = ([row for row, part in zip(rows, kind, strict=True) if part == own] for own in (TRAIN, TEST))
    dataset, settings = build_dataset(train, test), Settings.from_environment()
    phi = installed_embedder(settings, resolver(settings.weights)("minilm")).embed(list(dataset.texts))
    known = dataset.test.user < dataset.train.n_users
    return Tagged(dataset.train, phi, demo_tags(train), dataset.test.take(known))


def demo_tags(rows: list[ImportRow]) -> np.ndarray:
    """The axis of style, with its sign, that speaks most for the chosen response by the taste of who labels (N,); none
    for ties, and where no axis speaks for it."""
    style = {
        (p.prompt, r.text): np.array([r.style[axis] for axis in AXES]) for p in study_prompts() for r in p.responses
    }
    taste = {one.name: np.array(one.weights) for one in tastes().values()}
    tags = np.full(len(rows), NO_TAG)
    for i, row in enumerate(rows):
        if row.choice in (Choice.LEFT, Choice.RIGHT) and row.true_group is not None:
            difference = style[(row.prompt, row.response_a)] - style[(row.prompt, row.response_b)]
            difference = difference if row.choice is Choice.LEFT else -difference
            gains = taste[row.true_group] * difference
            axis = int(gains.argmax())
            if gains[axis] > 0:
                tags[i] = 2 * axis + int(difference[axis] > 0)
    return tags


def own_cut(seed: int) -> Tagged:
    """People in four groups with weights on normal features of texts; a tag is the feature that decides, with its
    sign."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2 * OWN_TEXTS, OWN_FEATURES))
    weights = rng.standard_normal((4, OWN_FEATURES))[rng.integers(0, 4, OWN_USERS)]
    weights = 0.5 * (weights + 0.7 * rng.standard_normal(weights.shape))

    def labelled(first: int) -> tuple[Comparisons, np.ndarray]:
        user = np.repeat(np.arange(OWN_USERS), OWN_LABELS)
        left = rng.integers(0, OWN_TEXTS, len(user))
        right = (left + rng.integers(1, OWN_TEXTS, len(user))) % OWN_TEXTS
        difference = x[first + left] - x[first + right]
        margin = (weights[user] * difference).sum(1)
        outcome = (rng.random(len(user)) < 1 / (1 + np.exp(-margin))).astype(np.float64)
        share = weights[user] * difference * np.where(outcome > 0.5, 1, -1)[:, None]
        axis = share.argmax(1)
        up = (weights[user, axis] > 0).astype(int)
        return Comparisons.build(user, first + left, first + right, outcome), 2 * axis + up

    labels, tags = labelled(0)
    test, _ = labelled(OWN_TEXTS)
    responses = tuple(f"text {row}" for row in range(OWN_TEXTS))
    prompts = np.zeros(OWN_TEXTS, np.int64)
    data = TrainingData(np.arange(OWN_USERS), np.arange(OWN_TEXTS), prompts, ("",), responses, labels)
    phi = np.concatenate([x, np.zeros((len(x), N_STYLE))], 1)  # without style features
    return Tagged(data, phi, tags, test)


WORLDS: dict[str, tuple[str, Callable[[int], Tagged]]] = {
    "demo": ("the demo's people, unseen prompts", demo_cut),
    "own": ("people with weights on known features, unseen texts", own_cut),
}


class Fit:
    """Text weights of all users of one cut, with any of the terms."""

    def __init__(self, cut: Tagged, seed: int, style: float) -> None:
        self.cut = cut
        n = cut.train.n_responses
        state = fit_graph(cut.train, cut.phi[:n], GRAPH, seed=seed)
        self.world = World.of(state, cut.phi[:n], lambda *_: None)
        self.config = replace(LinearConfig(), style=style)
        self.features = TextFeatures.of(self.world.phi, style, state.features_version)
        self.x = self.features(self.world.phi)
        self.vectors = (state.user_vectors - self.world.user_mean) / self.world.user_scale
        labels = self.world.labels
        sign = np.where(labels.outcome > 0.5, 1.0, -1.0)[:, None]
        self.chosen = (self.x[labels.left] - self.x[labels.right]) * sign  # chosen less rejected, (N, p)

    def directions(self, tags: np.ndarray) -> np.ndarray:
        """Unit directions (K, p) that tell the labels with a tag from those with other tags, by a linear discriminant;
        0 for a tag of fewer than ``FEWEST`` labels."""
        carried = tags >= 0
        chosen, tag = self.chosen[carried], tags[carried]
        spread = np.cov(chosen.T)
        spread += SHRUNK * np.trace(spread) / len(spread) * np.eye(len(spread))
        found = np.zeros((tags.max() + 1, self.x.shape[1]))
        for k in range(len(found)):
            if (tag == k).sum() >= FEWEST:
                found[k] = np.linalg.solve(spread, chosen[tag == k].mean(0) - chosen.mean(0))
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    def margins(self, term: str, tags: np.ndarray, weight: float) -> np.ndarray:
        """Log-odds (M,) of the test labels."""
        world, labels = self.world, self.world.labels
        users, user = np.unique(labels.user, return_inverse=True)
        difference, vectors, loss_weight = self.x[labels.left] - self.x[labels.right], world.vectors, world.weight
        carried = np.flatnonzero(tags >= 0)
        if term == "comparison":
            size = np.linalg.norm(self.chosen, axis=1).mean() / 2
            difference = np.concatenate([difference, size * self.directions(tags)[tags[carried]]])
            vectors, user = np.concatenate([vectors, vectors[carried]]), np.concatenate([user, user[carried]])
            loss_weight = np.concatenate([loss_weight, weight * loss_weight[carried]])
            none = np.zeros(len(carried), np.int64)
            labels = labels.joined(Comparisons.build(labels.user[carried], none, none, none + 1.0, position_known=none))
        order = np.argsort(user, kind="stable")
        loss = _Loss(
            difference[order],
            vectors[order],
            user[order],
            labels.take(order),
            loss_weight[order],
            len(self.x),
            self.config,
        )
        whole: Callable = loss
        if term == "naming":
            whole = _Naming(
                loss, self.directions(tags), tags[carried], self.chosen[carried], carried, user, self, weight
            )
        found = minimize(
            whole, np.zeros(loss.size), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "maxcor": 8}
        )
        common, from_graph, own, *_ = loss.parts(found.x)
        weights = loss.deviation("common") * common + loss.deviation("graph") * (self.vectors @ from_graph)
        weights[users] += loss.deviation("own") * own
        test = self.cut.test
        return of_differences(self.features(self.cut.phi), test, weights[test.user])


class _Naming:
    """A loss with the term ``naming``, and its gradient."""

    def __init__(
        self,
        loss: _Loss,
        directions: np.ndarray,
        tags: np.ndarray,
        chosen: np.ndarray,
        carried: np.ndarray,
        user: np.ndarray,
        fit: Fit,
        weight: float,
    ) -> None:
        self.loss, self.weight = loss, weight
        known = np.unique(tags)  # a tag that no label carries is no choice
        self.directions, self.named = directions[known], np.searchsorted(known, tags)
        self.along = chosen @ self.directions.T  # (M, K)
        self.user, self.vectors = user[carried], fit.world.vectors[carried]

    def __call__(self, v: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = self.loss(v)
        common, from_graph, own, *_ = self.loss.parts(v)
        scale = [self.loss.deviation(name) for name in ("common", "graph", "own")]
        weights = scale[0] * common + scale[1] * (self.vectors @ from_graph) + scale[2] * own[self.user]
        chances = log_softmax(SHARPNESS * (weights @ self.directions.T) * self.along, axis=1)
        rows = np.arange(len(self.named))
        value -= self.weight * chances[rows, self.named].sum()
        error = np.exp(chances)
        error[rows, self.named] -= 1
        pulled = self.weight * SHARPNESS * (error * self.along) @ self.directions  # (M, p)
        of_own = np.zeros_like(own)
        np.add.at(of_own, self.user, scale[2] * pulled)
        parts = scale[0] * pulled.sum(0), scale[1] * (self.vectors.T @ pulled).ravel(), of_own.ravel()
        added = np.concatenate(parts)
        slope = slope.copy()
        slope[: len(added)] += added
        return value, slope


def rows_of(tags: np.ndarray, weight: float, seed: int) -> dict[str, tuple[str, np.ndarray, float]]:
    """(term, tags, weight) of each row of the table."""
    rng = np.random.default_rng(seed)
    some = np.where(rng.random(len(tags)) < 0.3, tags, NO_TAG)
    shuffled = tags.copy()
    shuffled[tags >= 0] = rng.permutation(tags[tags >= 0])
    return {
        "without reasons": ("none", tags, 0.0),
        f"comparison, weight {weight:g}": ("comparison", tags, weight),
        f"comparison, weight {3 * weight:.2g}": ("comparison", tags, 3 * weight),
        "comparison, 30 % of labels": ("comparison", some, weight),
        "comparison, shuffled": ("comparison", shuffled, weight),
        f"naming, weight {weight:g}": ("naming", tags, weight),
        "naming, shuffled": ("naming", shuffled, weight),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reasons", description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=CUTS)
    parser.add_argument("--weight", type=float, default=0.3, help="of a tag, where a label has 1 (default 0.3)")
    parser.add_argument("--worlds", default=",".join(WORLDS))
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.worlds.split(",")) - set(WORLDS):
        parser.error(f"{min(unknown)!r} is not known; worlds are {', '.join(WORLDS)}")
    import torch

    torch.set_num_threads(1)
    for name in arguments.worlds.split(","):
        words, make = WORLDS[name]
        hits: dict[str, list[np.ndarray]] = {}
        losses: dict[str, list[np.ndarray]] = {}
        users: list[np.ndarray] = []
        rescaled: dict[str, list[float]] = {}
        for seed in range(1, arguments.cuts + 1):
            cut = make(seed)
            fit = Fit(cut, seed, style=1.0 if name == "demo" else 0.0)
            decided = cut.test.decided
            outcome = cut.test.outcome[decided].astype(np.float64)
            users.append(cut.test.user[decided] + seed * cut.train.n_users)
            for row, given in rows_of(cut.tags, arguments.weight, seed).items():
                logits = fit.margins(*given)[decided]
                hits.setdefault(row, []).append(correct(logits, outcome).astype(np.float64))
                losses.setdefault(row, []).append(log_losses(logits, outcome))
                rescaled.setdefault(row, []).append(rescaled_loss(logits, outcome))
        print(
            table(
                words, hits, losses, {row: float(np.mean(one)) for row, one in rescaled.items()}, np.concatenate(users)
            )
            + "\n",
            flush=True,
        )
    return 0


def rescaled_loss(logits: np.ndarray, outcome: np.ndarray) -> float:
    """Log-loss with the best common factor, which the mix of a snapshot learns on held-out labels."""
    return min(float(log_losses(factor * logits, outcome).mean()) for factor in FACTORS)


def table(
    words: str,
    hits: dict[str, list[np.ndarray]],
    losses: dict[str, list[np.ndarray]],
    rescaled: dict[str, float],
    users: np.ndarray,
) -> str:
    """One line per row: accuracy, log-loss, and the lead over the fit without reasons."""
    user = np.unique(users, return_inverse=True)[1]
    first = np.concatenate(hits["without reasons"])
    lines = [f"{words}: {len(next(iter(hits.values())))} cuts, {len(users):,} test labels, tags simulated"]
    lines.append(f"{'':<28}{'accuracy':>9}{'log-loss':>10}{'rescaled':>10}{'over none, points':>24}")
    for row in hits:
        own = np.concatenate(hits[row])
        low, high = interval(100 * (own - first), user, 0)
        lead = f"{100 * (own - first).mean():+.1f} ({low:+.1f} to {high:+.1f})" if row != "without reasons" else ""
        lines.append(
            f"{row:<28}{own.mean():>9.3f}{np.concatenate(losses[row]).mean():>10.3f}{rescaled[row]:>10.3f}{lead:>24}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
