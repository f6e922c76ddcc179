"""What somebody sees of a fit, and the statistics of each label that they make of it.

Three observers.  Who holds the *vectors* of people and responses (a snapshot, or the server's embeddings) and who may
ask for the *rewards* of people by name see the same: a user's log-odds on any pair.  Who has a model *without people*
sees what everybody likes on average.

A fit moves a person's vector by each label it learns: towards d = ê_preferred − ê_rejected, beside all other labels.
The margin e·d of a label therefore holds much that other labels put there.  *Decoding* takes it out: the matrix of
rewards, of people by responses with everybody's mean taken away, is M = U S Vᵀ, and U S/(S + λ S₁) Vᵀ has a flat
spectrum, in which a label stands out where it was learned.  No vector is needed for it, only rewards of many people on
many responses.  Rewards of different prompts are never compared: each prompt's mean is taken away first.

Shapes: U people, R responses, N labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from copl_core.logistic import penalised_logistic
from copl_core.preference.adapt import Prior, label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.rounding import rounded

CUTOFFS = (0.003, 0.03, 0.3)  # λ; the attacker takes the best of them on the shadows
CLIP = 1.0  # log-odds that one label may add to the slope of a private vector, in units of the prior
DELTA = 1e-5  # probability with which the bound of a private vector may fail
SPREAD = 1.0  # log-odds, standard deviation of somebody's preferences on the pairs of a study, before their labels


@dataclass(frozen=True, slots=True)
class Knob:
    """What is done to rewards before they are sent."""

    name: str
    step: float = 0.0  # log-odds to which rewards are rounded; 0: as they are
    noise: float = 0.0  # log-odds, standard deviation of noise drawn for every answer
    times: int = 1  # how often the observer asks for the same and takes the mean
    epsilon: float = 0.0  # people's vectors are placed again with noise that bounds what a label changes; 0: trained


KNOBS = (
    Knob("as they are"),
    Knob("rounded to 0.01", step=0.01),
    Knob("rounded to 0.1", step=0.1),
    Knob("rounded to 1", step=1.0),
    Knob("noise of 0.3", noise=0.3),
    Knob("noise of 0.3, mean of ten answers", noise=0.3, times=10),
    Knob("noise of 1", noise=1.0),
    Knob("private vector, ε = 8", epsilon=8.0),
    Knob("private vector, ε = 2", epsilon=2.0),
)


def signed(values: np.ndarray, labels: Comparisons) -> np.ndarray:
    """Log-odds (N,) of left as log-odds of the preferred response."""
    return np.where(labels.outcome > 0.5, values, -values)


def rewards(state: GraphState, vectors: np.ndarray | None = None) -> np.ndarray:
    """Log-odds (U, R) of people, as the server sends them for responses of one prompt, up to a constant per prompt."""
    vectors = state.user_vectors if vectors is None else vectors
    return state.scores(vectors, state.response_vectors, state.response_bias) / state.temperature


def seen(state: GraphState, knob: Knob, labels: Comparisons, rng: np.random.Generator) -> np.ndarray:
    """The rewards (U, R) that an observer gets through a knob.

    Args:
        labels: of the fit, from which private vectors are placed.
    """
    vectors = private_vectors(state, labels, knob.epsilon, rng) if knob.epsilon else None
    found = rewards(state, vectors)
    if knob.noise:
        found = found + rng.normal(0, knob.noise / np.sqrt(knob.times), found.shape)
    return rounded(found, knob.step)


def difference(table: np.ndarray, labels: Comparisons) -> np.ndarray:
    """Of a table (U, R), what each label's preferred response is ahead for its user (N,)."""
    return signed(table[labels.user, labels.left] - table[labels.user, labels.right], labels)


def decoded(table: np.ndarray, prompt: np.ndarray, cutoff: float) -> np.ndarray:
    """Rewards (U, R) with a flat spectrum, see the head of this file.

    Args:
        prompt: (R,) of each response.
    """
    size = np.bincount(prompt)
    means = np.stack([np.bincount(prompt, row, len(size)) for row in table]) / np.maximum(size, 1)
    centred = table - means[:, prompt]
    u, s, v = np.linalg.svd(centred - centred.mean(0), full_matrices=False)
    largest = s.max(initial=0.0)
    return (u * (s / (s + cutoff * largest))) @ v if largest > 0 else np.zeros_like(table)


def by_everybody(state: GraphState, labels: Comparisons) -> np.ndarray:
    """Margins (N,) by the mean vector: what a model without people says about each label."""
    vectors, bias = state.differences(labels.left, labels.right)
    return signed((vectors @ state.population + bias) / state.temperature, labels)


def placed(state: GraphState, labels: Comparisons) -> np.ndarray:
    """Margins (N,) after each person is placed by these labels of theirs on the response vectors alone.

    The observer has no vector of any person and so no prior from them: it is a round one.
    """
    vectors, bias = state.differences(labels.left, labels.right)
    scale = float(np.sqrt((vectors.astype(np.float64) ** 2).sum(1).mean())) or 1.0
    design, offset = vectors.astype(np.float64) * (SPREAD / scale), bias / state.temperature
    margins = np.zeros(len(labels))
    for rows in _by_person(labels.user):
        found = _in_span(design[rows], offset[rows], labels.outcome[rows])
        margins[rows] = offset[rows] + design[rows] @ found
    return signed(margins, labels)


def _in_span(design: np.ndarray, offset: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """The most probable weights (d,) under N(0, I); they lie in the span of the design's rows, often far fewer."""
    _, size, axes = np.linalg.svd(design, full_matrices=False)
    axes = axes[size > 1e-9 * max(size.max(initial=0.0), 1e-30)]
    q = len(axes)
    return axes.T @ penalised_logistic(design @ axes.T, offset, outcome, 1.0, np.zeros(q), np.eye(q)).mode


def _by_person(user: np.ndarray) -> list[np.ndarray]:
    """The rows of each person's labels."""
    order = np.argsort(user, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(user[order])) + 1) if len(user) else []


# ---- vectors with a bound


def private_vectors(state: GraphState, labels: Comparisons, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Vectors (U, d) placed by labels, with noise: (ε, δ)-private for each label, given the vectors of responses.

    A person's vector is the minimum of a convex loss under the prior of everybody (``adapt``), in coordinates in which
    that prior is N(0, I).  The loss is 1-strongly convex and a label's gradient at most ``CLIP`` long (its weight is
    lowered where it is longer), so a label moves the minimum by ``CLIP`` at most (Chaudhuri and Monteleoni, NIPS 2008).
    Gaussian noise then bounds what the vector tells about the label (``noise_for``).  The prior and the response
    vectors have learned from the label too, and are not covered.
    """
    prior = Prior.of(state)
    vectors, bias = state.differences(labels.left, labels.right)
    design = np.column_stack([vectors, labels.position_known]) / state.temperature
    offset = bias / state.temperature + design @ prior.mean
    x = design @ prior.root
    length = np.linalg.norm(x, axis=1)
    weight = np.minimum(label_weights(state, labels), CLIP / np.maximum(length, 1e-12))
    q, sigma = x.shape[1], noise_for(epsilon)
    z = np.zeros((len(state.user_vectors), q))
    for rows in _by_person(labels.user):
        found = penalised_logistic(x[rows], offset[rows], labels.outcome[rows], weight[rows], np.zeros(q), np.eye(q))
        z[labels.user[rows[0]]] = found.mode
    z += rng.normal(0, sigma, z.shape)
    return (prior.mean + z @ prior.root.T)[:, :-1].astype(np.float32)


def noise_for(epsilon: float, delta: float = DELTA, sensitivity: float = CLIP) -> float:
    """Standard deviation of Gaussian noise for (ε, δ) (Balle and Wang, arXiv 1805.06530, theorem 8)."""

    def excess(sigma: float) -> float:
        a, b = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
        return float(norm.cdf(a - b) - np.exp(epsilon + norm.logcdf(-a - b)) - delta)

    return float(brentq(excess, 1e-3 * sensitivity / epsilon, 1e3 * sensitivity / min(epsilon, 1.0)))
