"""What a group prefers: the feature that made it, and nothing where no feature did."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS
from copl_core.insight import describe
from copl_core.insight.describe import contrast, statements, typical_users, user_means

F = len(FEATURE_NAMES)
APART = np.eye(F)  # no two features correlate
MADE_BY = {0: "lists", 1: "hedging", 2: "questions", 3: "digits"}


def world(n_users: int, n_labels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(group (U,), user of each label (N,), differences preferred − rejected (N, F)).

    Each of four groups mostly answers by one feature, another one per group.
    """
    group, user = np.arange(n_users) % 4, np.repeat(np.arange(n_users), n_labels)
    differences = rng.normal(size=(len(user), F))
    feature = np.array([FEATURE_NAMES.index(MADE_BY[g]) for g in group[user].tolist()])
    ahead = differences[np.arange(len(user)), feature]
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-2 * ahead))
    return group, user, np.where(wins[:, None], differences, -differences)


def test_every_group_is_described_by_the_feature_that_made_it():
    group, user, chosen = world(80, 12, np.random.default_rng(0))
    leaning, counts = user_means(user, chosen, 80)
    assert (counts == 12).all()
    for number, feature in MADE_BY.items():
        found = contrast(leaning, group == number, int(counts[group == number].sum()), np.random.default_rng(1))
        found_statements = statements(found, APART)
        assert found_statements[0].feature == feature and found_statements[0].words == FEATURE_WORDS[feature][0]
        assert (
            0 < found_statements[0].low < found_statements[0].effect < found_statements[0].high
            and found_statements[0].d > 1
        )
        assert (found.people, found.others, found.n) == (20, 60, 240)
        mine = {MADE_BY[other] for other in MADE_BY if other != number} | {feature}
        assert {one.feature for one in found_statements} <= mine  # nothing that made no group


def test_less_of_a_feature_has_its_own_words():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(40, F))
    leaning[:20, FEATURE_NAMES.index("length")] -= 4
    found_statements = statements(contrast(leaning, np.arange(40) < 20, 1, rng), APART)
    assert (
        found_statements[0].words == "shorter answers"
        and found_statements[0].effect < 0
        and found_statements[0].high < 0
    )


def test_random_groups_are_seldom_described():
    wrong = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = contrast(rng.normal(size=(60, F)), rng.random(60) < 0.5, 1, rng)
        wrong += bool(statements(found, APART))
    assert wrong <= 8  # five in a hundred are allowed: 3 of 60 on average


def test_correlated_features_share_one_statement():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(60, F))
    leaning[:30, 0] += 3
    leaning[:, 1] = leaning[:, 0] + rng.normal(scale=0.3, size=60)
    correlation = np.eye(F)
    correlation[0, 1] = correlation[1, 0] = 0.9
    found_statements = statements(contrast(leaning, np.arange(60) < 30, 1, rng), correlation)
    first = [one for one in found_statements if one.feature in FEATURE_NAMES[:2]]
    assert len(first) == 1 and len(first[0].correlated) == 1


def test_of_features_that_are_nearly_as_strong_the_plainest_is_named():
    rng = np.random.default_rng(0)
    plain, odd = FEATURE_NAMES.index("length"), FEATURE_NAMES.index("variety")
    correlation = np.eye(F)
    correlation[plain, odd] = correlation[odd, plain] = 0.9
    for lead, named in ((1.05, "length"), (3.0, "variety")):
        leaning = rng.normal(size=(60, F))
        leaning[:30, plain] += 3
        leaning[:30, odd] += 3 * lead
        found_statements = [
            one.feature for one in statements(contrast(leaning, np.arange(60) < 30, 1, rng), correlation)
        ]
        assert found_statements[0] == named and len({"length", "variety"} & set(found_statements)) == 1


def test_an_interval_narrows_with_more_people():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(800, F))
    wide, narrow = (contrast(leaning[:n], np.arange(n) % 2 == 0, 1, rng) for n in (40, 800))
    assert (narrow.high - narrow.low).mean() < 0.5 * (wide.high - wide.low).mean()


def test_a_mean_of_thousands_has_the_interval_of_the_bootstrap(monkeypatch):
    rng = np.random.default_rng(0)
    leaning, inside = rng.normal(size=(2200, F)) + 1, np.arange(2200) < 2100
    normal = contrast(leaning, inside, 1, np.random.default_rng(1))
    monkeypatch.setattr(describe, "_MANY", 10_000)
    bootstrap = contrast(leaning, inside, 1, np.random.default_rng(1))
    assert np.allclose(normal.effect, bootstrap.effect)
    assert np.allclose(normal.high - normal.low, bootstrap.high - bootstrap.low, rtol=0.25)


@pytest.mark.parametrize("members", [0, 2, 39, 40])
def test_a_side_of_fewer_than_three_is_not_described(members):
    leaning = np.random.default_rng(0).normal(size=(40, F))
    assert contrast(leaning, np.arange(40) < members, 1, np.random.default_rng(0)) is None


def test_a_feature_that_does_not_vary_and_users_without_labels_are_excluded():
    rng = np.random.default_rng(0)
    leaning = rng.normal(size=(40, F))
    leaning[:, 3] = np.nan
    leaning[::10] = np.nan
    found = contrast(leaning, np.arange(40) < 20, 1, rng)
    assert np.isnan(found.effect[3]) and not found.certain[3] and (found.people, found.others) == (18, 18)
    means, counts = user_means(np.array([0, 0, 2]), np.ones((3, F)), 3)
    assert counts.tolist() == [2, 0, 1] and np.isnan(means[1]).all() and (means[0] == 1).all()


def test_the_model_states_nothing_of_a_group_that_its_labels_are_even_about_or_speak_against():
    rng = np.random.default_rng(0)
    inside = np.arange(40) < 20
    expected, shown = rng.normal(size=(40, F)), rng.normal(scale=0.1, size=(40, F))
    lists, code, length = (FEATURE_NAMES.index(name) for name in ("lists", "code", "length"))
    expected[:20, [lists, code, length]] += 4
    shown[:20, [lists, code, length]] += np.array([0.5, -0.5, 0.5])
    shown[:, length] = 0.2  # even
    model, labels = contrast(expected, inside, 1, rng), contrast(shown, inside, 1, rng)
    assert {one.feature for one in statements(model, APART)} == {"lists", "code", "length"}
    assert {one.feature for one in statements(model, APART, against=labels)} == {"lists"}


def test_typical_users_are_known_ones_near_the_mean():
    vectors = np.array([[0.0], [1], [2], [10], [1.1]])
    known = np.array([True, True, True, True, False])
    assert typical_users(vectors, known, 2).tolist() == [2, 1]  # the mean is 2.82
    assert len(typical_users(vectors, known & False)) == 0
