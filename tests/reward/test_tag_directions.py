"""Directions of tags: what many labels of one person, tags of few people and very many tags do to them."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np

from copl_core.records import Comparisons
from copl_core.reward.tag_directions import MOST, TagDirections
from copl_core.tags import MOST_TAGS, Tags
from copl_core.training.linear_fit import _TagTerms

FIRST, SECOND, OF_TWO = 7, 8, 9


def labels_of(user: np.ndarray, chose_left: np.ndarray) -> Comparisons:
    none = np.zeros(len(user), np.int64)
    return Comparisons.build(user, none, none + 1, chose_left.astype(float))


def test_one_person_neither_turns_the_direction_of_a_tag_nor_has_one_alone():
    """Of 300 people who mean the first feature by a tag and 300 who mean the second by another, and one who gives the
    first tag 1,000 times for the opposite; a tag of two people with 500 labels each has no direction."""
    user = np.concatenate([np.arange(600), np.full(1000, 600), np.repeat([601, 602], 500)])
    key = np.repeat([FIRST, SECOND, FIRST, OF_TWO], [300, 300, 1000, 1000])
    x = np.random.default_rng(0).normal(size=(len(user), 20))
    chose_left = np.where(key == SECOND, x[:, 1], x[:, 0]) > 0
    chose_left[600:1600] ^= True
    found = TagDirections.of(x, labels_of(user, chose_left), Tags(np.arange(len(user)), key))
    assert found.keys.tolist() == [FIRST, SECOND]
    along = found.steps / np.linalg.norm(found.steps, axis=1, keepdims=True)
    assert along[0, 0] > 0.6 and along[1, 1] > 0.6 and along[0, 1] < 0 > along[1, 0]
    some = np.delete(np.arange(len(user)), np.arange(600, 1599))  # one label of the one, as of everybody
    again = TagDirections.of(x[some], labels_of(user[some], chose_left[some]), Tags(np.arange(len(some)), key[some]))
    alike = again.steps / np.linalg.norm(again.steps, axis=1, keepdims=True)
    assert (along * alike).sum(1).min() > 0.99


def test_many_tags_need_no_table_of_tags_and_features_and_the_commonest_have_the_directions():
    n, p, n_tags = 2000, 96, 400
    rng = np.random.default_rng(1)
    user, x = rng.integers(0, 100, n), rng.normal(size=(n, p))
    key = np.sort((n_tags * rng.random((n, MOST_TAGS)) ** 2).astype(np.int64))  # the smaller, the more people give it
    labels = labels_of(user, rng.random(n) < 0.5)
    tags = Tags.of((row, [str(one) for one in set(words)]) for row, words in enumerate(key.tolist()))
    tracemalloc.start()
    found = TagDirections.of(x, labels, tags)
    read = found.among(tags, labels)
    number = rng.random(len(read))
    sums = found.sums(user[read.label], read.key, number, 100)
    loss, slope = _TagTerms(found, read, number)(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.keys) == MOST and peak < len(tags) * p * 8 / 2
    people = Counter(one for one, _ in set(zip(tags.key.tolist(), user[tags.label].tolist(), strict=True)))
    with_one = set(found.keys.tolist())
    assert min(people[one] for one in with_one) >= max(people[one] for one in people.keys() - with_one)
    steps = found.steps[np.searchsorted(found.keys, read.key)].astype(float)  # (M, p)
    expected, slopes = np.zeros((100, p)), np.zeros((n, p))
    np.add.at(expected, user[read.label], number[:, None] * steps)
    np.testing.assert_allclose(sums, expected, atol=1e-9)
    margin = (x[read.label] * steps).sum(1)
    np.add.at(slopes, read.label, (-number / (1 + np.exp(margin)))[:, None] * steps)
    np.testing.assert_allclose(slope, slopes, atol=1e-9)
    np.testing.assert_allclose(loss, (number * np.log1p(np.exp(-margin))).sum())
