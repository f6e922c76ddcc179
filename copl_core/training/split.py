"""Training, test and validation labels, and the draws that decide which labels are held out.  Numpy only.

A draw depends on ids and a salt, never on the order or number of labels: a label that is held out once stays held out
in every later fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from copl_core.records import Comparisons, TrainingData

HELD_OUT_SHARE = 0.1
UNSEEN_SHARE = 0.04  # of the responses; each is in about two of a hundred labels
FEWEST_TEXTS = 50  # with fewer, a single response may hold a large part of all labels
Unit = Literal["pair", "edge", "response"]


@dataclass(frozen=True)
class LabelSplit:
    """Labels to learn from and labels to predict.  Users and responses of ``train`` have the first rows of the split,
    so that a row past the end of the training tables is new."""

    train: TrainingData
    test: Comparisons  # (N,) labels that are scored
    context: Comparisons  # labels given by new users; never scored

    @property
    def new_user(self) -> np.ndarray:
        """Mask (N,) of test labels whose user is not in the training data."""
        return self.test.user >= self.train.n_users

    @property
    def new_text(self) -> np.ndarray:
        """Mask (N,) of test labels with at least one response that is not in the training data."""
        return np.maximum(self.test.left, self.test.right) >= self.train.n_responses


@dataclass(frozen=True)
class ValidationSplit(LabelSplit):
    """A split of the training labels of a dataset, on which options are chosen.

    Shapes: U users and R texts of the split; N test labels.
    """

    weight: np.ndarray  # (N,) of each test label, sums to one
    user_rows: np.ndarray  # (U,) row in the dataset of each user
    text_rows: np.ndarray  # (R,) row in the dataset of each text

    @property
    def n_users(self) -> int:
        return len(self.user_rows)


def held_out(
    user_ids: np.ndarray,
    left_ids: np.ndarray,
    right_ids: np.ndarray,
    decided: np.ndarray,
    share: float = HELD_OUT_SHARE,
) -> np.ndarray:
    """Mask (N,) of decided labels that a full job holds out from its first graph and from the reward model."""
    return (draws("pair", user_ids, left_ids, right_ids, 1)[:, 0] < share) & np.asarray(decided, bool)


def held_out_and_unseen(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, decided: np.ndarray, n_responses: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint masks (N,) of labels that a full job holds out from its first graph and from the reward model:
    the labels of ``held_out``, and all labels about a few responses, which stay unseen by both.

    Args:
        n_responses: of the study; with fewer than ``FEWEST_TEXTS`` no response is held out.
    """
    unseen = np.zeros(len(user_ids), bool)
    if n_responses >= FEWEST_TEXTS:
        unseen = np.any(draws("response", user_ids, left_ids, right_ids, 2) < UNSEEN_SHARE, axis=1)
    return held_out(user_ids, left_ids, right_ids, decided) & ~unseen, unseen


def split_by_edge(data: TrainingData, share: float, draw: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,), learned and test: each user's responses are divided, and both responses of a label are on its side.

    Labels with one response on each side are in neither mask.

    Args:
        share: of each user's responses that are held out.
        draw: each number holds out other responses.
    """
    labels = data.labels
    ids = data.user_ids[labels.user], data.response_ids[labels.left], data.response_ids[labels.right]
    out = draws("edge", *ids, *([draw] if draw else [])) < share
    return ~np.any(out, axis=1), np.all(out, axis=1)


def draws(unit: Unit, user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, *salt: int) -> np.ndarray:
    """(N, 2) numbers in [0, 1) for the left and the right response of each label.

    Labels that must be held out together get the same number, by ``unit``:

        pair      a user's labels on one pair of responses, in either order; left and right get the same number
        edge      a user's labels on one response: a user–response edge of the preference graph
        response  all labels on one response

    Each salt gives other numbers.
    """
    user_ids, left_ids, right_ids = (np.asarray(ids) for ids in (user_ids, left_ids, right_ids))
    salts = [np.full(len(user_ids), number) for number in salt]
    if unit == "pair":
        number = uniform(*salts, user_ids, np.minimum(left_ids, right_ids), np.maximum(left_ids, right_ids))
        return np.column_stack([number, number])
    user = [user_ids] if unit == "edge" else []
    return np.column_stack([uniform(*salts, *user, ids) for ids in (left_ids, right_ids)])


def uniform(*columns: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each row of ids; equal rows get equal numbers (splitmix64's finaliser, chained)."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64) + np.uint64(0x632BE59BD9B4E019)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(40)).astype(np.float64) / 2.0**24
