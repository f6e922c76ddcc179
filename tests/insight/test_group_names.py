"""Names of groups: what made the group, unique, and the same from snapshot to snapshot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES
from copl_core.insight.group_names import SHORT_WORDS, group_traits, name_of, word_of
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from tests.worlds import graph_state

F = len(FEATURE_NAMES)


def column(feature: str) -> int:
    return FEATURE_NAMES.index(feature)


def world(likes: dict[int, dict[str, float]], *, each: int = 12, seed: int = 0, model: bool = True):
    """(state, group (U,), styles (R, F)): the users of each group answer by its weights on features.

    The responses' vectors are their features, so that the model predicts as the users answer; without ``model`` it
    predicts nothing.
    """
    rng = np.random.default_rng(seed)
    n_users, n_responses, n_labels = each * len(likes), 60, 20
    group = np.arange(n_users) % len(likes)
    weights = np.zeros((n_users, F))
    for number, features in likes.items():
        for feature, weight in features.items():
            weights[group == number, column(feature)] = weight
    styles = rng.normal(size=(n_responses, F))
    user = np.repeat(np.arange(n_users), n_labels)
    left, right = (rng.integers(0, n_responses, len(user)) for _ in range(2))
    right = np.where(right == left, (left + 1) % n_responses, right)
    ahead = ((styles[left] - styles[right]) * weights[user]).sum(1)
    outcome = (rng.random(len(user)) < 1 / (1 + np.exp(-ahead))).astype(float)
    state = replace(
        graph_state(n_users, n_responses),
        user_vectors=weights.astype(np.float32) * model,
        response_vectors=styles.astype(np.float32),
        response_bias=np.zeros(n_responses, np.float32),
        labels=Comparisons.build(user, left, right, outcome),
        n_labels=np.full(n_users, n_labels),
    )
    return state, group, styles


def names(state: GraphState, group: np.ndarray, styles: np.ndarray, before=None) -> dict[int, str]:
    return {number: name_of(number, traits) for number, traits in group_traits(state, group, styles, before).items()}


def test_every_feature_has_short_words_for_more_and_for_less():
    assert set(SHORT_WORDS) == set(FEATURE_NAMES)
    words = [word for pair in SHORT_WORDS.values() for word in pair]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("model", [True, False])
def test_a_group_is_named_after_what_it_prefers_more_than_the_others(model):
    found = names(*world({0: {"length": -2.0, "hedging": -2.0}, 1: {"lists": 2.0}, 2: {"warmth": 2.0}}, model=model))
    assert set(found[0].lower().split(", ")) == {"short", "unhedged"}
    assert "lists" in found[1].lower() and "warm" in found[2].lower()


def test_groups_that_prefer_the_same_still_have_different_names():
    found = names(*world({number: {"lists": 2.0 if number < 2 else -2.0} for number in range(4)}, each=40))
    assert len(set(found.values())) == len(found)


def test_what_nothing_distinguishes_has_its_number_for_a_name():
    state, group, styles = world({0: {}, 1: {}}, model=False)
    assert group_traits(state, group, styles) == {} and name_of(1, ()) == "Group 2"
    assert group_traits(state, group * 0, styles) == {} and group_traits(state, group * 0 - 1, styles) == {}


def test_a_name_stays_when_other_labels_say_nearly_the_same():
    likes = {0: {"length": 1.2, "lists": 1.1, "warmth": 1.0, "code": 1.0}, 1: {"digits": 1.0}, 2: {"quotes": -1.0}}
    state, group, styles = world(likes, model=False)
    first = group_traits(state, group, styles)
    fresh = {seed: world(likes, seed=seed, model=False) for seed in range(1, 9)}
    assert any(group_traits(*one)[0] != first[0] for one in fresh.values())  # by chance another trait comes first
    for one in fresh.values():
        assert group_traits(*one, before=first)[0] == first[0]


def test_a_name_goes_when_what_the_group_prefers_has_clearly_changed():
    state, group, styles = world({0: {"length": 2.0}, 1: {"lists": 2.0}, 2: {"quotes": 2.0}})
    first = group_traits(state, group, styles)
    turned = world({0: {"length": -2.0}, 1: {"lists": 2.0}, 2: {"quotes": 2.0}})
    after = group_traits(*turned, before=first)
    assert ("length", 1) in first[0] and ("length", 1) not in after[0] and ("length", -1) in after[0]
    assert after[1] == first[1]


def test_traits_that_this_version_does_not_know_are_given_up():
    state, group, styles = world({0: {"length": 2.0}, 1: {"lists": 2.0}})
    after = group_traits(state, group, styles, {0: (("colour", 1),), 1: (("lists", 1),)})
    assert ("length", 1) in after[0] and name_of(0, (("colour", 1),)) == "Group 1"


def test_a_group_whose_texts_are_not_measured_keeps_its_name():
    state, group, styles = world({0: {"length": 2.0}, 1: {"lists": 2.0}})
    first = group_traits(state, group, styles)
    assert group_traits(state, group, styles * np.nan, first) == first


def test_a_word_names_texts_only_where_most_have_it_and_hardly_any_other_does():
    tea, ale = ([f"A cup of {drink}, on day {day}." for day in range(8)] for drink in ("tea", "ale"))
    assert word_of(tea, ale) == "tea" and word_of(ale, tea) == "ale"
    assert word_of(tea[:5], ale) is None, "too few texts"
    assert word_of(tea[:4] + ale[:4], ale) is None and word_of(tea, tea) is None
