"""Held-out labels are drawn by (person, response): nothing that is held out follows from what is learned."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl_core.records import Comparisons, TrainingData
from copl_core.training.baselines import HOLDOUT
from copl_core.training.reward_fit import FEWEST_HELD_OUT, MOST_HELD_OUT, SPLIT_SALT, split
from copl_core.training.split import (
    FEWEST_TEXTS,
    LARGEST_PART,
    hold_out,
    pair_draw,
    part_draws,
    shares_response,
    split_of_study,
)

Ids = tuple[np.ndarray, np.ndarray, np.ndarray]


def rated_lists(n_users: int, n_lists: int, length: int, n_texts: int = 400, seed: int = 0) -> Ids:
    """Users who rate lists of responses, each of which makes all its pairs."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        for _ in range(n_lists):
            texts = rng.choice(n_texts, length, replace=False).tolist()
            rows += [(user, *rng.permutation(pair).tolist()) for pair in combinations(texts, 2)]
    user, left, right = np.array(rows).T
    return user + 7, left + 1000, right + 1000


def votes(n_users: int = 200, n_labels: int = 40, n_texts: int = 300, seed: int = 0) -> Ids:
    """Users with labels on random pairs of one list, so that a response is in one or two pairs of a user."""
    rng = np.random.default_rng(seed)
    texts = np.array([rng.choice(50, 2, replace=False) for _ in range(n_users * n_labels)])
    user = np.repeat(np.arange(n_users), n_labels)
    return user, (texts[:, 0] + 3 * user) % n_texts, (texts[:, 1] + 3 * user) % n_texts


def separate_pairs(n: int = 6000, n_texts: int = 300, seed: int = 0) -> Ids:
    """Labels without a common response of a user."""
    user, left = np.arange(n) // 20, np.arange(n) % 20 * 2
    order = np.stack([np.random.default_rng(seed + one).permutation(n_texts) for one in range(n // 20)])
    return user, order[user, left], order[user, left + 1]


def edges(ids: Ids, mask: np.ndarray) -> set[tuple[int, int]]:
    """(user, response) of the labels in a mask."""
    user, left, right = (column[mask].tolist() for column in ids)
    return {*zip(user, left, strict=True), *zip(user, right, strict=True)}


def training_data(ids: Ids, seed: int = 0) -> TrainingData:
    rng = np.random.default_rng(seed)
    users, user = np.unique(ids[0], return_inverse=True)
    texts, text = np.unique(np.stack(ids[1:]), return_inverse=True)
    left, right = text.reshape(2, -1)
    labels = Comparisons.build(user, left, right, rng.choice([0.0, 0.5, 1.0], len(user)))
    words = tuple(f"text {number}" for number in texts)
    return TrainingData(users, texts, np.zeros(len(texts), np.int64), ("Which?",), words, labels)


WORLDS = {
    "separate pairs": separate_pairs(),
    "four answers, all pairs": rated_lists(60, 10, 4),
    "one list of ten": rated_lists(300, 1, 10),
    "one list of forty": rated_lists(40, 1, 40),
    "votes": votes(),
}
world = pytest.mark.parametrize("ids", WORLDS.values(), ids=WORLDS)
small_worlds = st.builds(
    rated_lists, st.integers(1, 6), st.integers(1, 4), st.integers(2, 7), st.just(12), st.integers(0, 99)
)


@given(small_worlds, st.floats(0, 1), st.integers(0, 5))
def test_no_response_of_a_held_out_label_is_in_a_learned_label_of_the_user(ids, share, salt):
    learned, held_out = hold_out(*ids, share, salt)
    assert not (learned & held_out).any()
    assert not edges(ids, learned) & edges(ids, held_out)


@given(small_worlds, st.booleans())
def test_a_study_is_divided_so_that_nothing_held_out_follows_from_the_rest(ids, many):
    decided = np.arange(len(ids[0])) % 5 > 0
    learned, known, new = split_of_study(*ids, decided, FEWEST_TEXTS if many else 1)
    assert (learned.astype(int) + known + new).max(initial=0) <= 1
    assert decided[known | new].all() and (many or not new.any())
    assert not edges(ids, learned) & edges(ids, known | new)
    for text in np.unique(np.stack(ids[1:])[:, new]):
        about = (ids[1] == text) | (ids[2] == text)
        assert not (about & new & shares_response(*ids, learned)).any()


@given(small_worlds, st.floats(0.05, 0.5))
def test_the_reward_fit_learns_nothing_about_what_it_tunes_and_tests_on(ids, holdout):
    data = training_data(ids)
    train, tune, test = split(data, holdout)
    masks = [np.isin(np.arange(len(ids[0])), rows) for rows in (train, tune, test)]
    assert sum(masks).max() <= 1
    if edges(ids, masks[0]) & edges(ids, masks[1] | masks[2]):  # parts would have left less than half of the labels
        number = part_draws(*ids, SPLIT_SALT)
        share = max(holdout, np.nextafter(np.sort(number.max(1))[min(FEWEST_HELD_OUT, len(number)) - 1], 1))
        assert (number.min(1) >= share).mean() <= 0.5


@world
def test_enough_labels_are_held_out_and_enough_are_learned(ids):
    learned, held_out = hold_out(*ids)
    assert 0.02 < held_out.mean() < 0.13 and 0.8 < learned.mean() < 0.93
    assert len(np.unique(ids[0][learned])) >= 0.95 * len(np.unique(ids[0]))


@world
def test_the_reward_fit_holds_enough_out_and_learns_from_enough(ids):
    data = training_data(ids)
    train, tune, test = split(data, 0.15)
    n = len(data.labels)
    assert len(train) > 0.7 * n and min(0.03 * n, MOST_HELD_OUT / 4) < len(tune) + len(test) < 0.2 * n
    assert len(tune) == pytest.approx(len(test), rel=0.35)


def test_where_a_user_meets_each_response_once_a_tenth_is_held_out_and_the_rest_is_learned():
    learned, held_out = hold_out(*separate_pairs())
    assert held_out.mean() == pytest.approx(0.1, abs=0.015) and (learned ^ held_out).all()


@world
def test_the_draw_depends_on_ids_and_not_on_order_or_side(ids):
    order = np.random.default_rng(1).permutation(len(ids[0]))
    turned = np.arange(len(order)) % 2 == 0
    user, left, right = (column[order] for column in ids)
    swapped = user, np.where(turned, right, left), np.where(turned, left, right)
    for before, after in zip(hold_out(*ids), hold_out(*swapped), strict=True):
        assert np.array_equal(before[order], after)


@world
def test_the_labels_of_others_change_no_draw(ids):
    some = ids[0] % 3 == 0
    whole, part = hold_out(*ids), hold_out(*(column[some] for column in ids))
    assert all(np.array_equal(one[some], other) for one, other in zip(whole, part, strict=True))


@world
def test_a_part_is_at_most_half_of_what_a_user_has_labelled(ids):
    number = part_draws(*ids)
    user = np.repeat(ids[0], 2)
    response = np.stack(ids[1:], 1).ravel()
    seen = np.unique(np.column_stack([user, response, number.ravel()]), axis=0)
    assert len(seen) == len(np.unique(np.column_stack([user, response]), axis=0))  # a response has one number
    _, size = np.unique(seen[:, [0, 2]], axis=0, return_counts=True)
    of_user = np.unique(seen[:, 0], return_counts=True)[1].max()
    assert size.max() <= max(2, min(LARGEST_PART, of_user // 2))


def test_several_questions_about_one_pair_stay_together():
    ids = tuple(np.repeat(column, 3) for column in votes())
    learned, held_out = hold_out(*ids)
    for mask in (learned, held_out):
        assert (mask.reshape(-1, 3).sum(1) % 3 == 0).all() and mask.any()


def test_ties_leave_the_learned_labels_too():
    ids = separate_pairs()
    decided = np.arange(len(ids[0])) % 2 == 0
    learned, known, _ = split_of_study(*ids, decided, 1)
    assert not known[~decided].any() and (~learned & ~decided).any()
    assert np.array_equal(learned, split_of_study(*ids, np.ones(len(decided), bool), 1)[0])


def test_a_larger_share_holds_out_more_of_the_same_and_all_or_nothing_can_be_held_out():
    ids = WORLDS["votes"]
    masks = [hold_out(*ids, share) for share in (0.0, 0.1, HOLDOUT + 0.2, 1.0)]
    assert masks[0][0].all() and masks[-1][1].all() and not masks[0][1].any() and not masks[-1][0].any()
    for (learned, held_out), (fewer, more) in zip(masks, masks[1:], strict=False):
        assert (fewer <= learned).all() and (held_out <= more).all()


def test_no_labels_are_no_masks():
    none = np.zeros(0, np.int64)
    assert [len(mask) for mask in split_of_study(none, none, none, none, 80)] == [0, 0, 0]


def test_all_labels_about_a_few_responses_are_held_out_where_there_are_enough_responses():
    ids = separate_pairs()
    decided = np.ones(len(ids[0]), bool)
    learned, known, new = split_of_study(*ids, decided, 300)
    texts = np.unique(np.stack(ids[1:])[:, new])
    gone = [text for text in texts if not (((ids[1] == text) | (ids[2] == text)) & (learned | known)).any()]
    assert 0.02 < len(gone) / 300 < 0.06 and 0.04 < new.mean() < 0.12
    assert not split_of_study(*ids, decided, FEWEST_TEXTS - 1)[2].any()


def test_the_draw_of_earlier_versions_is_still_known():
    """Their snapshots hold graphs that learned from these labels."""
    ids, decided = separate_pairs(), np.ones(6000, bool)
    learned = pair_draw(*ids, decided, 1)
    assert learned.mean() == pytest.approx(0.9, abs=0.015) and learned.tolist() != hold_out(*ids)[0].tolist()
    assert pair_draw(*ids, ~decided, 1).all()
    assert pair_draw(*ids, decided, 300).sum() < learned.sum()
    assert np.flatnonzero(~learned)[:5].tolist() == [1, 19, 32, 50, 51]
