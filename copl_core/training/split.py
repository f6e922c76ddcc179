"""Which labels are kept for measuring: a draw that reads ids alone, so that a label stays on its side of the line in
every later fit, and a pair that somebody answers twice is kept or learned as a whole.  Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from copl_core.records import Comparisons, TrainingData

KEPT_SHARE = 0.1
NEW_SHARE = 0.04  # of the responses, each in about two labels of a hundred
FEWEST_TEXTS = 50  # with fewer, one response can hold a good part of all labels


@dataclass(frozen=True)
class ValidationSplit:
    """A part of the training labels of a dataset, split again: what options are tried on.

    Shapes: U users and R texts of the split, those of its training first; N test labels.
    """

    train: TrainingData
    test: Comparisons  # scored; its users and responses are rows of the split
    context: Comparisons  # labels given of new users; never scored
    weight: np.ndarray  # (N,) of each test label; sums to one
    user_rows: np.ndarray  # (U,) row of each user in the dataset
    text_rows: np.ndarray  # (R,) row of each text in the dataset

    @property
    def n_users(self) -> int:
        return len(self.user_rows)

    @property
    def new_user(self) -> np.ndarray:
        """Mask (N,) of test labels whose user training lacks."""
        return self.test.user >= self.train.n_users

    @property
    def new_text(self) -> np.ndarray:
        """Mask (N,) of test labels of which training lacks a response."""
        return np.maximum(self.test.left, self.test.right) >= self.train.n_responses


def held_back(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, decided: np.ndarray, share: float = KEPT_SHARE
) -> np.ndarray:
    """Mask (N,) of decided labels that a full job keeps from its first graph and from the reward model."""
    return (label_draw(user_ids, left_ids, right_ids, salt=1) < share) & np.asarray(decided, bool)


def kept_apart(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, decided: np.ndarray, n_responses: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,), apart from one another, of labels that a full job keeps from its first graph and the reward model:
    those drawn by ``held_back``, and all about a few responses, which are new texts to both.

    Args:
        n_responses: of the study; where they are few, none of them is given up.
    """
    new = np.zeros(len(user_ids), bool)
    if n_responses >= FEWEST_TEXTS:
        for ids in (left_ids, right_ids):
            new |= uniform(np.full(len(ids), 2), np.asarray(ids)) < NEW_SHARE
    return held_back(user_ids, left_ids, right_ids, decided) & ~new, new


def label_draw(user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, *, salt: int) -> np.ndarray:
    """A number in [0, 1) for each label (N,), by who answered which two responses; each salt draws anew."""
    sides = np.sort(np.column_stack([left_ids, right_ids]), axis=1)
    return uniform(np.full(len(sides), salt), np.asarray(user_ids), sides[:, 0], sides[:, 1])


def uniform(*columns: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each row of ids, the same whenever the same ids meet (splitmix64's finaliser, chained)."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64) + np.uint64(0x632BE59BD9B4E019)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2.0**24
