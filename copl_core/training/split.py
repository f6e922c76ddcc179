"""Training, test and validation labels, and the draws that decide which labels are held out.  Numpy only.

Labels are held out by (person, response): all labels of a person about a response, or none.  Otherwise a held-out
label follows from the rest: a ≻ c and c ≻ b imply a ≻ b, and where pairs are made from votes for or against, a single
label about a tells the vote on a, and with it every label about a.

A draw depends on ids and a salt, never on the order of labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from copl_core.records import Comparisons, TrainingData

HELD_OUT_SHARE = 0.1
DRAW = "parts"  # stored with a reward model: its labels were held out by ``hold_out``; without it, by ``pair_draw``
LARGEST_PART = 16  # responses
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


def hold_out(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, share: float = HELD_OUT_SHARE, *salt: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (N,), learned and held out: no response of a held-out label occurs in a learned label of the same user.

    A user's responses are divided into parts (``part_draws``), of which a ``share`` is drawn.  A label is held out if
    both of its responses are drawn and learned if neither is, else it is in neither mask.

    Parts keep both sets large.  Where a user meets each response once, a part is a pair: a tenth of the labels is held
    out and nine tenths are learned.  Drawn one by one, responses would be in few drawn pairs.  Where all pairs of four
    to twenty responses are labelled, about a twentieth is held out and five sixths are learned.
    """
    drawn = part_draws(user_ids, left_ids, right_ids, *salt) < share
    return ~np.any(drawn, axis=1), np.all(drawn, axis=1)


def split_of_study(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, decided: np.ndarray, n_responses: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three disjoint masks (N,) of the labels of a study, as a full job divides them: those that its first graph and
    its reward model learn from, decided ones that it is measured on, and decided ones about a few responses that
    nothing is learned about.  A person's held-out labels share no response with those that are learned from them.

    Args:
        n_responses: of the study; with fewer than ``FEWEST_TEXTS`` there are no labels of the third kind.
    """
    ids = user_ids, left_ids, right_ids
    unseen = np.zeros(len(user_ids), bool)
    if n_responses >= FEWEST_TEXTS:
        unseen = unseen_responses(*ids)
    learned, known = hold_out(*ids)
    learned &= ~unseen
    decided = np.asarray(decided, bool)
    return learned, known & ~unseen & decided, unseen & decided & ~shares_response(*ids, learned)


def unseen_responses(user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray) -> np.ndarray:
    """Mask (N,) of labels about one of the few responses that a full job learns nothing about."""
    return np.any(draws("response", user_ids, left_ids, right_ids, 2) < UNSEEN_SHARE, axis=1)


def pair_draw(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, decided: np.ndarray, n_responses: int
) -> np.ndarray:
    """Mask (N,) of the labels that earlier versions learned from, which held out decided labels by (person, pair)."""
    ids = user_ids, left_ids, right_ids
    out = (draws("pair", *ids, 1)[:, 0] < HELD_OUT_SHARE) & np.asarray(decided, bool)
    return ~(out | unseen_responses(*ids)) if n_responses >= FEWEST_TEXTS else ~out


def shares_response(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, learned: np.ndarray
) -> np.ndarray:
    """Mask (N,) of labels with a response that also occurs in a label of ``learned`` (N,) by the same user."""
    edges, users, _ = _edges(user_ids, left_ids, right_ids)
    known = np.zeros(len(users), bool)
    known[edges[learned]] = True
    return known[edges].any(1)


def part_draws(user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, *salt: int) -> np.ndarray:
    """(N, 2) numbers in [0, 1) for the left and the right response of each label, equal within a part of a user.

    The user's labels connect the responses.  Each response points to the lowest among itself and its neighbours, in an
    order drawn by ids, and those that lead to the same one are a part.  A part of more than half of the user's
    responses, or of more than ``LARGEST_PART``, is cut into equal ones of two responses or more, so that no draw takes
    most of what is known about a user who has rated one list.
    """
    edges, user, response = _edges(user_ids, left_ids, right_ids)
    order = np.lexsort((response, uniform(user, response)))
    root = _lowest_reached(edges, order)
    _, number, n_responses = np.unique(user, return_inverse=True, return_counts=True)
    limit = np.clip(n_responses[number] // 2, 2, LARGEST_PART)
    size = np.bincount(root, minlength=len(root))[root]
    piece = _position_in(root, order) * -(-size // limit) // size
    return uniform(*(np.full(len(root), one) for one in salt), user, response[root], piece)[edges]


def _edges(
    user_ids: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the number (N, 2) of each label's two user–response edges, the user (E,) and the response (E,) of each edge)."""
    users, user = np.unique(user_ids, return_inverse=True)
    responses, response = np.unique(np.stack([left_ids, right_ids], 1), return_inverse=True)
    key = user[:, None] * max(1, len(responses)) + response.reshape(-1, 2)
    found, number = np.unique(key, return_inverse=True)
    of_user, of_response = np.divmod(found, max(1, len(responses)))
    return number.reshape(-1, 2), users[of_user].astype(np.int64), responses[of_response].astype(np.int64)


def _lowest_reached(edges: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(E,) where each node of a graph ends that always moves to the lowest of its neighbours and itself in ``order``"""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    lowest = rank.copy()
    for here, there in (edges.T, edges.T[::-1]):
        np.minimum.at(lowest, here, rank[there])
    reached = order[lowest]
    while (further := reached[reached]).tobytes() != reached.tobytes():
        reached = further
    return reached


def _position_in(part: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(E,) position of each node among those of its part, in ``order``."""
    sorted_nodes = order[np.argsort(part[order], kind="stable")]
    position = np.empty(len(part), np.int64)
    position[sorted_nodes] = np.arange(len(part)) - np.searchsorted(part[sorted_nodes], part[sorted_nodes])
    return position


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
