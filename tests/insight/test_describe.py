"""What a group is told to prefer: the feature that made it, and nothing where nothing did."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS
from copl_core.insight import describe
from copl_core.insight.describe import contrast, per_person, statements, typical_people

F = len(FEATURE_NAMES)
APART = np.eye(F)  # no feature goes with another
MADE_BY = {0: "lists", 1: "hedging", 2: "questions", 3: "digits"}


def world(n_users: int, n_labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(group (U,), user of each label (N,), differences preferred − rejected (N, F)): each of four groups answers by
    one feature of its own, most of the time.
    """
    group, user = np.arange(n_users) % 4, np.repeat(np.arange(n_users), n_labels)
    differences = rng.normal(size=(len(user), F))
    feature = np.array([FEATURE_NAMES.index(MADE_BY[g]) for g in group[user].tolist()])
    ahead = differences[np.arange(len(user)), feature]
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-2 * ahead))
    return group, user, np.where(wins[:, None], differences, -differences)


def test_every_group_is_told_by_the_feature_that_made_it():
    group, user, chosen = world(80, 12, np.random.default_rng(0))
    leaning, counts = per_person(user, chosen, 80)
    assert (counts == 12).all()
    for number, feature in MADE_BY.items():
        found = contrast(leaning, group == number, int(counts[group == number].sum()), np.random.default_rng(1))
        told = statements(found, APART)
        assert told[0].feature == feature and told[0].words == FEATURE_WORDS[feature][0]
        assert 0 < told[0].low < told[0].effect < told[0].high and told[0].d > 1
        assert (found.people, found.others, found.n) == (20, 60, 240)
        mine = {MADE_BY[other] for other in MADE_BY if other != number} | {feature}
        assert {one.feature for one in told} <= mine  # nothing that made no group


def test_less_of_a_feature_is_told_in_its_own_words():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(40, F))
    leaning[:20, FEATURE_NAMES.index("length")] -= 4
    told = statements(contrast(leaning, np.arange(40) < 20, 1, rng), APART)
    assert told[0].words == "shorter answers" and told[0].effect < 0 and told[0].high < 0


def test_groups_drawn_by_chance_are_seldom_told_apart():
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = contrast(rng.normal(size=(60, F)), rng.random(60) < 0.5, 1, rng)
        wrong += bool(statements(found, APART))
    assert wrong <= 8  # five in a hundred are allowed: 3 of 60 on average


def test_features_that_go_together_are_told_once():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(60, F))
    leaning[:30, 0] += 3
    leaning[:, 1] = leaning[:, 0] + rng.normal(scale=0.3, size=60)
    together = np.eye(F)
    together[0, 1] = together[1, 0] = 0.9
    told = statements(contrast(leaning, np.arange(60) < 30, 1, rng), together)
    first = [one for one in told if one.feature in FEATURE_NAMES[:2]]
    assert len(first) == 1 and len(first[0].along) == 1


def test_of_features_that_are_nearly_as_strong_the_plainest_is_named():
    rng = np.random.default_rng(0)
    plain, odd = FEATURE_NAMES.index("length"), FEATURE_NAMES.index("variety")
    together = np.eye(F)
    together[plain, odd] = together[odd, plain] = 0.9
    for lead, named in ((1.05, "length"), (3.0, "variety")):
        leaning = rng.normal(size=(60, F))
        leaning[:30, plain] += 3
        leaning[:30, odd] += 3 * lead
        told = [one.feature for one in statements(contrast(leaning, np.arange(60) < 30, 1, rng), together)]
        assert told[0] == named and len({"length", "variety"} & set(told)) == 1


def test_an_interval_narrows_with_more_people():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(800, F))
    wide, narrow = (contrast(leaning[:n], np.arange(n) % 2 == 0, 1, rng) for n in (40, 800))
    assert (narrow.high - narrow.low).mean() < 0.5 * (wide.high - wide.low).mean()


def test_a_mean_of_thousands_has_the_interval_that_drawing_people_again_gives(monkeypatch):
    rng = np.random.default_rng(0)
    leaning, inside = rng.normal(size=(2200, F)) + 1, np.arange(2200) < 2100
    drawn_again = contrast(leaning, inside, 1, np.random.default_rng(1))
    monkeypatch.setattr(describe, "_MANY", 10_000)
    by_law = contrast(leaning, inside, 1, np.random.default_rng(1))
    assert np.allclose(drawn_again.effect, by_law.effect)
    assert np.allclose(drawn_again.high - drawn_again.low, by_law.high - by_law.low, rtol=0.25)


@pytest.mark.parametrize("members", [0, 2, 39, 40])
def test_a_side_of_fewer_than_three_is_not_described(members):
    leaning = np.random.default_rng(0).normal(size=(40, F))
    assert contrast(leaning, np.arange(40) < members, 1, np.random.default_rng(0)) is None


def test_a_feature_that_does_not_vary_and_people_without_labels_are_left_out():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(40, F))
    leaning[:, 3] = np.nan
    leaning[::10] = np.nan
    found = contrast(leaning, np.arange(40) < 20, 1, rng)
    assert np.isnan(found.effect[3]) and not found.certain[3] and (found.people, found.others) == (18, 18)
    means, counts = per_person(np.array([0, 0, 2]), np.ones((3, F)), 3)
    assert counts.tolist() == [2, 0, 1] and np.isnan(means[1]).all() and (means[0] == 1).all()


def test_typical_people_are_known_ones_near_the_middle():
    vectors = np.array([[0.0], [1], [2], [10], [1.1]])
    known = np.array([True, True, True, True, False])
    assert typical_people(vectors, known, 2).tolist() == [2, 1]  # the middle is 2.82
    assert len(typical_people(vectors, known & False)) == 0
