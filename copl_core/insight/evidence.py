"""What speaks against counting an account's answers, apart from its taste: the grounds of a quarantine.

The grounds are those of the Quality page without the side of the screen, which the model corrects.  A flag of the page
is a hint; a ground has consequences, so it needs twice as many answers and a level that holds for all people of a study
together (Bonferroni).  Careless people are above the bounds: a ground finds those who always click one side, or do not
read.  Nothing here compares an account with others, so nobody can bring a ground against somebody else: answers that
follow those of others (``insight.collusion``) are a question to owners and no ground.  Numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Collection

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
    evidence = Evidence()
    evidence.update(answers, people)
    return evidence.grounds()


class Evidence:
    """What the answers of each person of a study say for themselves, kept from one look at them to the next.

    A person's figures rest on their own answers; of all others only the number counts who have enough of them.  So
    where somebody has answered, theirs alone are read again.
    """

    def __init__(self) -> None:
        self._judged: dict[str, set[int]] = {kind: set() for kind, *_ in _CHECKS}  # ids of those with enough answers
        # Kind → person → (probability at the bound, share), of those whom any number of people leaves in question
        self._unlikely: dict[str, dict[int, tuple[float, Share]]] = {kind: {} for kind, *_ in _CHECKS}

    def update(self, answers: AnswerTable, people: Collection[int]) -> None:
        """Replace what is known of ``people`` by all of their answers that count, checks included."""
        people = set(people)
        rows = figures(answers.take(np.isin(answers.user, list(people))))
        for kind, name, bound, beyond, _ in _CHECKS:
            judged, unlikely = self._judged[kind], self._unlikely[kind]
            judged -= people
            for user_id in people & unlikely.keys():
                del unlikely[user_id]
            for row in rows:
                share = getattr(row, name)
                if share.n < MORE * FEWEST[name]:
                    continue
                judged.add(row.user_id)
                p = beyond(share, bound)
                if p <= LEVEL:
                    unlikely[row.user_id] = p, share

    def grounds(self) -> dict[int, list[Ground]]:
        """Person → the grounds for a quarantine, at a level that holds for all people of the study."""
        found: dict[int, list[Ground]] = {}
        for kind, _, _, _, words in _CHECKS:
            n = len(self._judged[kind])
            for user_id, (p, share) in sorted(self._unlikely[kind].items()):
                if p <= LEVEL / n:
                    found.setdefault(user_id, []).append(Ground(kind, words.format(share)))
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
