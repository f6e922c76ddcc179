"""Whether reasons, as an auxiliary target, help the text weights of users on prompts that nobody labelled.

    python -m benchmarks.reasons [--cuts N] [--weight W]

A reason is a tag, such as "shorter": it names what a user's choice is made for.  Each tag gets a direction d_k in the
text features, by a linear discriminant between the labels with this tag and those with others.  Two convex terms let
tags speak about the weights w_u of their user:

comparison   a label with tag k is one more label, whose two texts differ along the direction of k alone: what the
             studio fits (``training.linear_fit``)
naming       log softmax over tags of the share (w_u · d_k)(d_k · Δ) that each tag's direction d_k has in the margin of
             a label with difference Δ: the named tag has the largest (after rationales, arXiv 2407.14477); to be held
             against its weight 0, since nothing but the convex fit of all users gives its weights

``chosen`` is the studio's default: the fit itself chooses the weight, on labels about responses that it has not seen,
and 0 is one of the choices.  ``shuffled`` gives the tags of other labels: what a term does without what it says.  Two
worlds, both simulated: the demo's people, who name the axis of style that decides for them, and people with weights on
features that are known exactly, where a tag is a feature.  Leads are over the fit without reasons, with 95 % intervals
over users; ``rescaled`` is the log-loss with the best common factor, since the mix of a snapshot learns one.
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
from copl_core.preference.adapt import label_weights
from copl_core.preference.config import GraphConfig
from copl_core.records import Choice, Comparisons, ImportRow, TrainingData
from copl_core.reward.linear import N_STYLE, LinearConfig, TextFeatures, of_differences
from copl_core.reward.tag_directions import TagDirections
from copl_core.tags import Tags
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
        self.state = fit_graph(cut.train, cut.phi[:n], GRAPH, seed=seed)
        self.world = World.of(self.state, cut.phi[:n], lambda *_: None)
        self.config = replace(LinearConfig(), style=style)
        self.features = TextFeatures.of(self.world.phi, style, self.state.features_version)
        self.x = self.features(self.world.phi)
        labels = self.world.labels
        self.difference = self.x[labels.left] - self.x[labels.right]
        self.chosen = self.difference * np.where(labels.outcome > 0.5, 1.0, -1.0)[:, None]  # less rejected, (N, p)

    def chosen_weight(self, tags: np.ndarray) -> float:
        """The weight of tags that the studio's fit chooses, with the other settings as they are here."""
        return replace(self.world, tags=columns(tags)).chosen(lambda *_: None, self.config, ()).reason

    def margins(self, term: str, tags: np.ndarray, weight: float) -> np.ndarray:
        """Log-odds (M,) of the test labels."""
        weights = self._named(tags, weight) if term == "naming" else self._compared(tags, weight)
        test = self.cut.test
        return of_differences(self.features(self.cut.phi), test, weights[test.user])

    def _compared(self, tags: np.ndarray, weight: float) -> np.ndarray:
        """Weights (U, p) of all users, as the studio fits them."""
        given, state, every = columns(tags), self.state, np.arange(len(self.world.labels))
        world, config = replace(self.world, tags=given), replace(self.config, reason=weight)
        reward = world.reward(self.features, config, world.shared(self.x, config, every, STEPS), given)
        users = np.arange(len(state.user_ids))
        return reward.of_fit(users, state.user_vectors, state.labels, label_weights(state, state.labels))

    def _named(self, tags: np.ndarray, weight: float) -> np.ndarray:
        world, labels = self.world, self.world.labels
        users, user = np.unique(labels.user, return_inverse=True)
        order = np.argsort(user, kind="stable")
        loss = _Loss(
            self.difference[order],
            world.vectors[order],
            user[order],
            labels.take(order),
            world.weight[order],
            len(self.x),
            self.config,
        )
        whole = _Naming(loss, self, tags, user, weight)
        found = minimize(
            whole, np.zeros(loss.size), jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "maxcor": 8}
        )
        common, from_graph, own, *_ = loss.parts(found.x)
        vectors = (self.state.user_vectors - world.user_mean) / world.user_scale
        weights = loss.deviation("common") * common + loss.deviation("graph") * (vectors @ from_graph)
        weights[users] += loss.deviation("own") * own
        return weights


def columns(tags: np.ndarray) -> Tags:
    """Tags (N,) of labels as a fit reads them."""
    carried = np.flatnonzero(tags >= 0)
    return Tags(carried, tags[carried])


class _Naming:
    """A loss with the term ``naming``, and its gradient."""

    def __init__(self, loss: _Loss, fit: Fit, tags: np.ndarray, user: np.ndarray, weight: float) -> None:
        self.loss, self.weight = loss, weight
        found = TagDirections.of(fit.difference, fit.world.labels, columns(tags))
        assert found is not None
        self.directions = found.steps / np.linalg.norm(found.steps, axis=1, keepdims=True)
        carried = np.flatnonzero(np.isin(tags, found.keys))  # a tag without a direction is no choice
        self.named = np.searchsorted(found.keys, tags[carried])
        self.along = fit.chosen[carried] @ self.directions.T  # (M, K)
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


def rows_of(tags: np.ndarray, weight: float, seed: int) -> dict[str, tuple[str, np.ndarray, float | None]]:
    """(term, tags, weight) of each row of the table; no weight: the one that the fit chooses."""
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
        "chosen": ("comparison", tags, None),
        "chosen, 30 % of labels": ("comparison", some, None),
        "chosen, shuffled": ("comparison", shuffled, None),
        "naming, weight 0": ("naming", tags, 0.0),
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
        chosen: dict[str, list[float]] = {}
        for seed in range(1, arguments.cuts + 1):
            cut = make(seed)
            fit = Fit(cut, seed, style=1.0 if name == "demo" else 0.0)
            decided = cut.test.decided
            outcome = cut.test.outcome[decided].astype(np.float64)
            users.append(cut.test.user[decided] + seed * cut.train.n_users)
            for row, (term, tags, weight) in rows_of(cut.tags, arguments.weight, seed).items():
                if weight is None:
                    weight = fit.chosen_weight(tags)
                    chosen.setdefault(row, []).append(weight)
                logits = fit.margins(term, tags, weight)[decided]
                hits.setdefault(row, []).append(correct(logits, outcome).astype(np.float64))
                losses.setdefault(row, []).append(log_losses(logits, outcome))
                rescaled.setdefault(row, []).append(rescaled_loss(logits, outcome))
        of_rows = {row: float(np.mean(one)) for row, one in rescaled.items()}
        print(table(words, hits, losses, of_rows, np.concatenate(users)))
        each = (f"{row} {', '.join(f'{one:g}' for one in weights)}" for row, weights in chosen.items())
        print(f"weights by cut: {'; '.join(each)}\n", flush=True)
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
