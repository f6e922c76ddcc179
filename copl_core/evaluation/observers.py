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

from copl_core.evaluation.private_rows import by_descent, by_person, private_vectors
from copl_core.logistic import penalised_logistic
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.rounding import rounded

CUTOFFS = (0.003, 0.03, 0.3)  # λ; the attacker takes the best of them on the shadows
SPREAD = 1.0  # log-odds, standard deviation of somebody's preferences on the pairs of a study, before their labels


@dataclass(frozen=True, slots=True)
class Knob:
    """What is done to rewards before they are sent."""

    name: str
    step: float = 0.0  # log-odds to which rewards are rounded; 0: as they are
    noise: float = 0.0  # log-odds, standard deviation of noise drawn for every answer
    times: int = 1  # how often the observer asks for the same and takes the mean
    epsilon: float = 0.0  # people's vectors are placed again with noise that bounds what a label changes; 0: trained
    descent: bool = False  # whether that noise is in the steps (``private_rows.by_descent``) and not in the result


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
    Knob("DP-SGD of rows, ε = 8", epsilon=8.0, descent=True),
    Knob("DP-SGD of rows, ε = 2", epsilon=2.0, descent=True),
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
    found = rewards(state, vectors_of(state, knob, labels, rng))
    if knob.noise:
        found = found + rng.normal(0, knob.noise / np.sqrt(knob.times), found.shape)
    return rounded(found, knob.step)


def vectors_of(state: GraphState, knob: Knob, labels: Comparisons, rng: np.random.Generator) -> np.ndarray:
    """Vectors (U, d) of people behind a knob."""
    if not knob.epsilon:
        return state.user_vectors
    return (by_descent if knob.descent else private_vectors)(state, labels, knob.epsilon, rng)


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
    for rows in by_person(labels.user):
        found = _in_span(design[rows], offset[rows], labels.outcome[rows])
        margins[rows] = offset[rows] + design[rows] @ found
    return signed(margins, labels)


def _in_span(design: np.ndarray, offset: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """The most probable weights (d,) under N(0, I); they lie in the span of the design's rows, often far fewer."""
    _, size, axes = np.linalg.svd(design, full_matrices=False)
    axes = axes[size > 1e-9 * max(size.max(initial=0.0), 1e-30)]
    q = len(axes)
    return axes.T @ penalised_logistic(design @ axes.T, offset, outcome, 1.0, np.zeros(q), np.eye(q)).mode
