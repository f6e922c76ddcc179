"""Taste in words: statements that are certain, and none that are not."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, FEATURE_WORDS
from copl_core.insight.taste import MOST, Effects, correlations, from_labels, from_model, leanings, typical

F = len(FEATURE_NAMES)
LENGTH, LISTS, WARMTH = (FEATURE_NAMES.index(name) for name in ("length", "lists", "warmth"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def labels_of(rng, n: int = 60, prompts: int = 20, **likes: float) -> tuple[np.ndarray, np.ndarray]:
    """(differences preferred − rejected (n, F), prompts (n,)) of a user who weighs the named features."""
    differences = rng.normal(size=(n, F))
    weights = np.zeros(F)
    for name, weight in likes.items():
        weights[FEATURE_NAMES.index(name)] = weight
    sign = np.where(rng.random(n) < 1 / (1 + np.exp(-differences @ weights)), 1.0, -1.0)
    return differences * sign[:, None], np.arange(n) % prompts


def statements(labels: tuple[np.ndarray, np.ndarray]):
    effects = from_labels(*labels, np.random.default_rng(0))
    return leanings(effects, labels[0], np.eye(F))


def test_a_weighted_feature_is_named_in_its_words_and_the_opposite_taste_in_the_opposite_words(rng):
    labels = labels_of(rng, length=4.0)
    assert statements(labels)[0].words == FEATURE_WORDS["length"][0]
    assert statements((-labels[0], labels[1]))[0].words == FEATURE_WORDS["length"][1]


def test_a_user_without_a_taste_gets_no_statement_in_nineteen_cases_of_twenty(rng):
    wrong = sum(bool(statements(labels_of(rng, n=30, prompts=15))) for _ in range(200))
    assert wrong <= 16  # 10 expected, 2 standard deviations of a count of 200 above


def test_taste_is_found_where_it_is_and_nowhere_else(rng):
    found = [leaning for _ in range(40) for leaning in statements(labels_of(rng, n=80, warmth=3.0, lists=-3.0))]
    right = [
        leaning for leaning in found if (leaning.feature, leaning.effect > 0) in {("warmth", True), ("lists", False)}
    ]
    assert len(right) >= 70 and len(found) - len(right) <= 5


def test_exchanging_sides_turns_the_effects_around_exactly(rng):
    chosen, prompts = labels_of(rng, length=1.0)
    one = from_labels(chosen, prompts, np.random.default_rng(3))
    other = from_labels(-chosen, prompts, np.random.default_rng(3))
    assert other.mean == pytest.approx(-one.mean) and other.low == pytest.approx(-one.high)


def test_neither_the_order_of_labels_nor_the_names_of_prompts_matter(rng):
    chosen, prompts = labels_of(rng, length=2.0)
    shuffled = rng.permutation(len(chosen))
    one = from_labels(chosen, prompts, np.random.default_rng(3))
    other = from_labels(chosen[shuffled], prompts[shuffled], np.random.default_rng(3))
    assert other.mean == pytest.approx(one.mean) and other.high == pytest.approx(one.high)
    renamed = from_labels(chosen, prompts * 7 + 100, np.random.default_rng(3))
    assert renamed.high == pytest.approx(one.high)


def test_more_labels_of_the_same_taste_make_it_surer(rng):
    few, many = (
        from_labels(*labels_of(np.random.default_rng(1), n=n, prompts=n // 2, length=2.0), rng) for n in (40, 400)
    )
    assert (many.high - many.low)[LENGTH] < (few.high - few.low)[LENGTH] and few.n == 40 and many.n == 400


def test_many_labels_on_one_question_are_no_proof(rng):
    chosen = np.tile(rng.normal(size=(1, F)), (100, 1))
    assert not from_labels(chosen, np.zeros(100), rng).certain.any()
    assert not from_labels(chosen, np.arange(100) % 3, rng).certain.any()


@pytest.mark.parametrize("n", [0, 1])
def test_one_label_or_none_gives_no_statement(rng, n):
    assert statements((rng.normal(size=(n, F)), np.arange(n))) == ()


def test_a_feature_in_which_the_responses_hardly_differ_has_no_scale_and_no_statement(rng):
    differences = rng.normal(size=(200, F))
    differences[:, LENGTH] = 0
    differences[0, LENGTH] = 1e6
    scale = typical(differences)
    assert np.isnan(scale[LENGTH]) and np.isfinite(np.delete(scale, LENGTH)).all()
    assert np.sqrt(((differences / scale) ** 2).mean(0))[LISTS] == pytest.approx(1)
    assert np.isnan(typical(np.zeros((0, F)))).all()
    chosen, prompts = labels_of(rng, length=9.0)
    chosen[:, LENGTH] = np.nan
    assert not from_labels(chosen, prompts, rng).certain[LENGTH]


def effects(*values: tuple[int, float], half: float = 0.1, n: int = 50) -> Effects:
    mean = np.zeros(F)
    for feature, value in values:
        mean[feature] = value
    return Effects(mean, mean - half, mean + half, n)


def test_correlated_features_share_one_statement_that_names_both(rng):
    correlation = np.eye(F)
    correlation[LENGTH, LISTS] = correlation[LISTS, LENGTH] = -0.9
    (one,) = leanings(effects((LENGTH, 0.8), (LISTS, -0.7)), np.zeros((3, F)), correlation)
    assert (one.feature, one.correlated) == ("length", (FEATURE_WORDS["lists"][1],))
    assert len(leanings(effects((LENGTH, 0.8), (LISTS, -0.7)), np.zeros((3, F)), np.eye(F))) == 2


def test_at_most_five_statements_those_of_the_labels_first_and_strongest_first():
    labels = effects((0, 0.3), (1, -0.9), (2, 0.05))
    model = effects((0, 0.9), (1, 0.5), (2, 0.4), (3, -0.6), (4, 0.5), (5, 0.45), n=300)
    found = leanings(labels, np.zeros((3, F)), np.eye(F), model, model.mean)
    assert [(one.feature, one.source) for one in found] == [
        (FEATURE_NAMES[i], source)
        for i, source in ((1, "labels"), (0, "labels"), (3, "model"), (4, "model"), (5, "model"))
    ]
    assert len(found) == MOST and found[1].by_model == 0.9 and found[2].n == 300


@pytest.mark.parametrize(
    ("ahead", "stated"),
    [
        ([1, 1, -1], True),
        ([0, 0, 0], True),  # no label of theirs differs in it
        ([1, -1, 0], False),  # even
        ([1, -1, -1], False),
        ([3, -0.5, -0.5], False),  # more in size, fewer in number
        ([0.1, 0.1, -3], False),  # more in number, less in size
        ([np.nan, np.nan, np.nan], True),
    ],
)
@pytest.mark.parametrize("way", [1, -1], ids=["more of it", "less of it"])
@pytest.mark.parametrize("source", ["labels", "model"])
def test_nothing_is_stated_that_ones_own_labels_are_even_about_or_speak_against(ahead, stated, way, source):
    chosen = np.zeros((3, F))
    chosen[:, LENGTH] = np.array(ahead) * way
    certain, nothing = effects((LENGTH, 0.8 * way)), effects()
    found = leanings(certain if source == "labels" else nothing, chosen, np.eye(F), certain)
    assert [one.feature for one in found] == ["length"] * stated


def test_votes_count_labels_for_and_against_the_statement():
    chosen = np.zeros((6, F))
    chosen[:, LENGTH] = [-1, -2, -1, 0.5, 0, np.nan]
    (one,) = leanings(effects((LENGTH, -0.5)), chosen, np.eye(F))
    assert one.votes == (3, 1, 2) and one.words == "shorter answers"


def test_which_response_of_a_pair_is_called_first_does_not_matter(rng):
    differences, prompts = rng.normal(size=(80, F)), np.arange(80) % 16
    p = 1 / (1 + np.exp(-2 * differences[:, WARMTH]))
    swap = rng.random(80) < 0.5
    one = from_model(p, differences, prompts)
    other = from_model(np.where(swap, 1 - p, p), np.where(swap[:, None], -differences, differences), prompts)
    assert other.mean == pytest.approx(one.mean) and other.low == pytest.approx(one.low)
    assert one.mean.argmax() == WARMTH and one.certain[WARMTH]


def test_a_model_without_a_preference_gives_no_statement_and_uncertainty_widens_the_interval(rng):
    differences, prompts = rng.normal(size=(80, F)), np.arange(80) % 16
    flat = from_model(np.full(80, 0.5), differences, prompts)
    assert flat.mean == pytest.approx(np.zeros(F)) and not flat.certain.any()
    p = 1 / (1 + np.exp(-differences[:, WARMTH]))
    apart = 1 / (1 + np.exp(-rng.normal(size=(50, 1)) * 3 * differences[:, WARMTH]))
    sure, unsure = from_model(p, differences, prompts), from_model(p, differences, prompts, draws=apart)
    assert (unsure.high - unsure.low)[WARMTH] > 1.5 * (sure.high - sure.low)[WARMTH]
    assert unsure.mean == pytest.approx(sure.mean)


def test_features_correlate_about_zero_since_a_difference_has_no_direction(rng):
    differences = rng.normal(size=(500, F))
    differences[:, LISTS] = -differences[:, LENGTH]
    correlation = correlations(np.abs(differences[:, :1]) * differences)
    assert correlation[LENGTH, LISTS] == pytest.approx(-1) and np.diag(correlation) == pytest.approx(np.ones(F))
    signs = rng.choice([-1, 1], (500, 1))
    assert correlations(signs * differences) == pytest.approx(correlations(differences))
