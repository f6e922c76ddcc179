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
    several, the one with the largest margin, then the first.  Takes n · M · D steps and no randomness.

    Args:
        vectors: (M, D), one per pair; each column is standardised here, and one without variance counts nothing.
        margins: (M,), how decided people are about each pair.
        n: number of rows to keep, 0 or more.
    """
    count = min(n, len(vectors))
    if not count:
        return np.zeros(0, np.int64)
    scaled = _standardised(vectors)
    distance = np.linalg.norm(scaled, axis=1)  # to the mean, which is 0
    kept: list[int] = []
    for _ in range(count):
        kept.append(_farthest(distance, margins))
        to_new = np.linalg.norm(scaled - scaled[kept[-1]], axis=1)
        distance = to_new if len(kept) == 1 else np.minimum(distance, to_new)
        distance[kept] = -1.0  # below the 0 of a text that equals a kept one
    return np.array(kept, np.int64)


def _standardised(vectors: np.ndarray) -> np.ndarray:
    found = np.asarray(vectors, np.float32)
    spread = found.std(axis=0)
    return (found - found.mean(axis=0)) / np.where(spread > 1e-6, spread, np.inf)


def _farthest(distance: np.ndarray, margins: np.ndarray) -> int:
    most = np.flatnonzero(distance == distance.max())
    return int(most[np.argmax(margins[most])])
