"""What speaks against counting an account's answers, apart from its taste: the grounds of a quarantine.

The grounds are those of the Quality page without the side of the screen, which the model corrects, and with twice as
many answers; and answers that follow those of others more exactly than people follow their own (``insight.collusion``).
Nothing here compares an account with the majority.  Numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from copl_core.insight.collusion import Alike, alike
from copl_core.insight.quality import CONSISTENT_BOUND, FAST_BOUND, FEWEST, GOLD_BOUND, Figures, Share, figures
from copl_core.records import Ground
from copl_core.study_settings import AnswerTable

MORE = 2  # times the answers that a flag of the Quality page needs
SHOWN_REPEATS = 5  # repeats from which a new account can have shown that it does not answer at random
_CHANCE = 0.5


def grounds(answers: AnswerTable, people: Collection[int], excluded: Collection[int] = ()) -> dict[int, list[Ground]]:
    """Person → the grounds for a quarantine, of those with any.

    Args:
        answers: every answer that counts, checks included.
        people: ids of those who are judged; others are ignored.
        excluded: of these, those whom the consistency of the study does not know.
    """
    answers = answers.take(np.isin(answers.user, list(people)))
    found: dict[int, list[Ground]] = {}
    for row in figures(answers):
        if own := _of_figures(row):
            found[row.user_id] = own
    for one in alike(answers.take(~np.isin(answers.user, list(excluded)))):
        found.setdefault(one.user_id, []).append(_of_alike(one))
    return found


def shown(answers: AnswerTable, people: Collection[int]) -> list[int]:
    """Of new accounts, those whose repeated pairs show that they do not answer at random."""
    answers = answers.take(np.isin(answers.user, list(people)))
    return [row.user_id for row in figures(answers) if _is_shown(row.consistent)]


def _is_shown(consistent: Share) -> bool:
    return consistent.n >= SHOWN_REPEATS and consistent.interval[0] > _CHANCE


def _of_figures(row: Figures) -> list[Ground]:
    found = []
    enough = {name for name, fewest in FEWEST.items() if getattr(row, name).n >= MORE * fewest}
    if "consistent" in enough and row.consistent.interval[1] < CONSISTENT_BOUND:
        found.append(Ground("repeats", f"Gave the same answer to a repeated pair in {row.consistent}."))
    if "gold" in enough and row.gold.interval[1] < GOLD_BOUND:
        found.append(Ground("gold", f"Gave the known answer in {row.gold}."))
    if "fast" in enough and row.fast.interval[0] > FAST_BOUND:
        found.append(Ground("fast", f"Answered faster than one can read in {row.fast}."))
    return found


def _of_alike(one: Alike) -> Ground:
    others = f"; {len(one.others)} such accounts are nearest" if one.others else ""
    return Ground(
        "alike",
        f"Other accounts forecast {one.hits} of {one.n} answers ({one.hits / one.n:.1%}); of a careful person it would "
        f"be {one.bound:.0%} at most{others}.",
    )
