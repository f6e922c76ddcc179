"""What counts that everybody of a study sees tell about one person's answers: exact ones, and those with noise.

The attacker knows the answers of all others and takes them away from the counts by source (``study.shared``), which
leaves the person's own and the noise.  An answer adds one to what is preferred and one to what is not.  Counts of which
the noise is drawn at every reading are averaged over ten readings; the studio draws once, so ten readings are one.
The last attack is the composition: somebody prefers one source in all answers that count, for ten days.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import numpy as np

from copl_core.noise import two_sided_geometric

EPSILON = 1.0  # of a day
ANSWERS_A_DAY = 10  # as ``study.shared`` counts them
OF_SOURCES = 0.75  # share of a day's ε for counts by source, as there
DAYS = READINGS = 10
ONCE, ALWAYS = f"noise of ε = {EPSILON:g}, drawn once", f"noise of ε = {EPSILON:g}, at each reading"


def guesses(outcome: np.ndarray, seed: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """(what is seen, attack, guess (N,)) for labels whose left response is preferred where ``outcome`` (N,).

    Each label stands for one answer, and for answers that all prefer the same source.
    """
    random = Random(seed)
    answer = np.where(outcome, 2.0, -2.0)  # in the difference of two sources
    day, once = ANSWERS_A_DAY * answer, _noise(len(answer), random)
    readings = np.mean([once, *(_noise(len(answer), random) for _ in range(READINGS - 1))], 0)
    days = once + np.sum([_noise(len(answer), random) for _ in range(DAYS - 1)], 0)
    yield "exact", "one answer", answer
    yield ONCE, "one answer", answer + once
    yield ALWAYS, f"a person's whole day, {READINGS} readings", day + readings
    yield ONCE, f"a person's whole day, {READINGS} readings", day + once
    yield ONCE, f"a person's {DAYS} days", DAYS * day + days


def _noise(n: int, random: Random) -> np.ndarray:
    """(N,) noise of the difference of two sources: each has a count of answers for it and one of answers against it."""
    drawn = two_sided_geometric(4 * n, OF_SOURCES * EPSILON, 2 * ANSWERS_A_DAY, random)
    return np.array(drawn, float).reshape(4, n).T @ np.array([1.0, -1.0, -1.0, 1.0])
