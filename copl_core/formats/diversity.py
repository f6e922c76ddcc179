"""Which pairs of an export differ most from one another, after FiFA.

"Automated Filtering of Human Feedback Data for Aligning Text-to-Image Diffusion Models" (arXiv 2410.10166) keeps the
pairs with a large margin and with texts that lie far apart: it adds up, for each pair, a margin by a reward model, a
quality by a language model, and the logarithm of the distance from its prompt to the k-th nearest one, which estimates
the entropy of the kept set.  Taken over: margin and distance of texts, by a frozen text embedding.  Different here:

- The distance of a pair is the one to the nearest pair that is already kept (farthest-first traversal; Gonzalez 1985),
  and not to its neighbours among all.  So one of two equal texts can be kept, and the second one comes last.
- The text is the prompt with both responses.  Pairs of one prompt may differ.
- The margin is what people chose, and no model gives it.  ``Selection.min_margin`` asks for it, and of pairs at equal
  distance the one with the larger margin is kept.
- No language model rates the texts.
"""

from __future__ import annotations

import numpy as np


def farthest_first(vectors: np.ndarray, margins: np.ndarray, n: int) -> np.ndarray:
    """Indices of the ``n`` rows that are kept, in the order in which they are: (min(n, M),) int64.

    The first row is the one farthest from the mean.  Each next one is the row whose nearest kept row is farthest; of
    equal rows the one with the largest margin, then the first.  When every row has an equal among the kept ones, the
    others follow by margin.  Takes n · M · D steps and no randomness.

    Args:
        vectors: (M, D), one per pair; each column is standardised here, and one without variance counts nothing.
        margins: (M,), how decided people are about each pair.
        n: number of rows to keep, 0 or more.
    """
    scaled = _standardised(vectors)
    by_margin = np.argsort(-np.asarray(margins, float), kind="stable")
    first = np.array(list({scaled[row].tobytes(): row for row in by_margin[::-1].tolist()}.values()), np.int64)
    different = np.sort(first)  # of each set of equal rows the best one
    order = different[_traverse(scaled[different], np.asarray(margins, float)[different], n)]
    return np.concatenate([order, by_margin[~np.isin(by_margin, different)]])[:n].astype(np.int64)


def _traverse(points: np.ndarray, margins: np.ndarray, n: int) -> np.ndarray:
    """Indices of at most ``n`` of the points (K, D), which differ."""
    squares = (points**2).sum(axis=1)
    distance = squares.copy()  # squared, to the mean, which is 0
    kept: list[int] = []
    for _ in range(min(n, len(points))):
        most = np.flatnonzero(distance == distance.max())
        kept.append(int(most[np.argmax(margins[most])]))
        to_new = np.maximum(squares + squares[kept[-1]] - 2 * (points @ points[kept[-1]]), 0)
        distance = to_new if len(kept) == 1 else np.minimum(distance, to_new)
        distance[kept] = -1.0
    return np.array(kept, np.int64)


def _standardised(vectors: np.ndarray) -> np.ndarray:
    found = np.asarray(vectors, np.float32)
    if not len(found):
        return found
    spread = found.std(axis=0)
    return (found - found.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf)
