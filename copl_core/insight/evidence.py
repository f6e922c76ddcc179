"""What speaks against counting an account's answers, apart from its taste: the grounds of a quarantine.

The grounds are those of the Quality page without the side of the screen, which the model corrects.  A flag of the page
is a hint; a ground has consequences, so it needs twice as many answers and a level that holds for all people of a study
together (Bonferroni).  Careless people are above the bounds: a ground finds those who always click one side, or do not
read.  Nothing here compares an account with others, so nobody can bring a ground against somebody else: answers that
follow those of others (``insight.collusion``) are a question to owners and no ground.  Numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from scipy.special import bdtr, bdtrc

from copl_core.insight.quality import CONSISTENT_BOUND, FAST_BOUND, FEWEST, GOLD_BOUND, Figures, Share, figures
from copl_core.records import Ground
from copl_core.study_settings import AnswerTable

LEVEL = 0.01  # probability that anybody of a study is found though all are at the bound, for each kind of ground
MORE = 2  # times the answers that a flag of the Quality page needs
SHOWN_REPEATS = 5  # repeats from which a new account can have shown that it does not answer at random
_CHANCE = 0.5


def grounds(answers: AnswerTable, people: Collection[int]) -> dict[int, list[Ground]]:
    """Person → the grounds for a quarantine, of those with any.

    Args:
        answers: every answer that counts, checks included.
        people: ids of those who are judged; others are ignored.
    """
    answers = answers.take(np.isin(answers.user, list(people)))
    found: dict[int, list[Ground]] = {}
    for user_id, ground in _of_figures(figures(answers)):
        found.setdefault(user_id, []).append(ground)
    return found


def present(ground: Ground, row: Figures) -> Ground:
    """A ground with the figures of now, which change while its person goes on answering."""
    for kind, name, _, _, words in _CHECKS:
        if kind == ground.kind and getattr(row, name).n:
            return Ground(kind, words.format(getattr(row, name)))
    return ground


def shown(answers: AnswerTable, people: Collection[int]) -> list[int]:
    """Of new accounts, those whose repeated pairs show that they do not answer at random."""
    answers = answers.take(np.isin(answers.user, list(people)))
    return [row.user_id for row in figures(answers) if _is_shown(row.consistent)]


def _is_shown(consistent: Share) -> bool:
    return consistent.n >= SHOWN_REPEATS and consistent.interval[0] > _CHANCE


def _of_figures(rows: Sequence[Figures]) -> Iterator[tuple[int, Ground]]:
    """(user, ground) of each figure that is beyond its bound, at a level that holds for all people of the study."""
    for kind, name, bound, beyond, words in _CHECKS:
        shares = [(row.user_id, getattr(row, name)) for row in rows if getattr(row, name).n >= MORE * FEWEST[name]]
        for user_id, share in shares:
            if beyond(share, bound) <= LEVEL / len(shares):
                yield user_id, Ground(kind, words.format(share))


def _as_few(share: Share, bound: float) -> float:
    """Probability of as few hits or fewer, at the bound."""
    return float(bdtr(share.hits, share.n, bound))


def _as_many(share: Share, bound: float) -> float:
    """Probability of as many hits or more, at the bound."""
    return float(bdtrc(share.hits - 1, share.n, bound))


# Kind, figure, bound, probability of what was seen at the bound, sentence
_CHECKS = (
    ("repeats", "consistent", CONSISTENT_BOUND, _as_few, "Gave the same answer to a repeated pair in {}."),
    ("gold", "gold", GOLD_BOUND, _as_few, "Gave the known answer in {}."),
    ("fast", "fast", FAST_BOUND, _as_many, "Answered faster than one can read in {}."),
)
