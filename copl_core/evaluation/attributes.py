"""What embeddings tell of people's attributes: groups of files, facts that files have of people.

A logistic regression reads the attribute from the embedding, each fifth of the people by a model of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from copl_core.evaluation.attacks import RESAMPLES, Figure, auc
from copl_core.insight.layout import answer_space
from copl_core.preference.state import GraphState
from copl_core.training.metrics import interval

FOLDS = 5
FEWEST = 2 * FOLDS  # people of a value; rarer values are left out
MOST_VALUES = 12  # of an attribute; with more it is rather a name


def inferred(
    state: GraphState, values: Sequence[str | None], seed: int = 0
) -> tuple[Figure, tuple[float, float, float], float] | None:
    """(AUC of one value against all others, mean over values; accuracy with its interval; share of the most frequent
    value).

    Args:
        values: of each person of the state; None where unknown.
    Returns:
        None where fewer than two values have ``FEWEST`` people.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, number, names = _usable(state, values)
    if len(names) < 2:
        return None
    x = state.user_vectors[rows] @ answer_space(state)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    p = cross_val_predict(model, x, number, cv=folds, method="predict_proba")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    drawn = [_one_against_others(p, number, weight) for weight in counts]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    one = Figure(_one_against_others(p, number, np.ones(len(rows))), float(low), float(high), float("nan"), len(rows))
    hits = (p.argmax(1) == number).astype(float)
    accuracy = float(hits.mean()), *interval(hits, rows, seed)
    return one, accuracy, float(np.bincount(number).max() / len(number))


def _usable(state: GraphState, values: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(rows of people with labels and a frequent value, its number, the frequent values)."""
    known = [value if n else None for value, n in zip(values, state.n_labels.tolist(), strict=True)]
    counts: dict[str, int] = {}
    for value in known:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    names = sorted(value for value, n in counts.items() if n >= FEWEST)
    if len(names) > MOST_VALUES:
        names = []
    rows = np.array([row for row, value in enumerate(known) if value in names], np.int64)
    return rows, np.array([names.index(known[row]) for row in rows.tolist()], np.int64), names


def _one_against_others(p: np.ndarray, number: np.ndarray, weight: np.ndarray) -> float:
    """Mean AUC over values; p (n, V)."""
    return float(np.nanmean([auc(p[:, value], number == value, weight) for value in range(p.shape[1])]))
