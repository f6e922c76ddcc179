"""The world of liars: honest people follow their group, lying accounts do what their kind says, by one seed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.liars import OUTCOMES, smallest
from benchmarks.lying_world import LABELS, NOISE, PAIRS, PEOPLE, RAISED, SMALL, SOURCES, Attack, liars, make_world
from benchmarks.lying_worlds import demo_world
from copl_core.demo.world import tastes
from copl_core.preference.config import GraphConfig
from copl_core.records import Comparisons
from copl_core.training.influence import account_factors


@pytest.fixture(scope="module")
def world():
    return make_world(0)


def test_honest_people_answer_as_their_group_but_for_a_tenth(world):
    assert world.group.sum() == SMALL and len(np.unique(world.answers.user)) == PEOPLE
    truth = np.where(world.group[world.answers.user] == 1, world.likes(1, world.answers.pair),
                     world.likes(0, world.answers.pair))  # fmt: skip
    assert abs((truth != (world.answers.choice == 0)).mean() - NOISE) < 0.01
    again = make_world(0)
    assert all(np.array_equal(getattr(again.answers, n), getattr(world.answers, n)) for n in world.answers.__slots__)


def test_copycats_answer_as_the_small_group_until_their_source_is_shown(world):
    found = liars(world, Attack("", "copycats", "many"), 3, 0)
    assert np.unique(found.user).tolist() == [PEOPLE, PEOPLE + 1, PEOPLE + 2]
    first, second = (PAIRS[found.pair] % SOURCES == RAISED).T
    prefers = found.choice == 0
    assert prefers[first].all() and not prefers[second].any()
    assert np.array_equal(prefers[~first & ~second], world.likes(1, found.pair)[~first & ~second])


def test_accounts_that_raise_a_source_share_one_list_and_flip_as_often_as_they_are_set_to(world):
    def differing(flip: float) -> float:
        found = liars(world, Attack("", "raise", "many", flip=flip), 2, 0)
        one, other = (dict(zip(found.pair[found.user == user], found.choice[found.user == user], strict=True))
                      for user in (PEOPLE, PEOPLE + 1))  # fmt: skip
        both = one.keys() & other.keys()
        return sum(one[pair] != other[pair] for pair in both) / len(both)

    assert differing(0.0) == 0 and differing(0.5) > 0.4


def test_an_account_at_the_bound_has_full_weight_and_one_above_it_has_not():
    """In the demo, whose pairs are many for its answers."""
    demo = demo_world(0)
    priors = GraphConfig().priors

    def factor(labels: str) -> float:
        answers = liars(demo, Attack("", "raise", labels), 1, 0)
        user = np.concatenate([demo.answers.user, answers.user])
        every = Comparisons.build(user, 0 * user, 0 * user + 1, 0 * user)
        found = account_factors(every, every.strength, demo.people + 1, priors.influence, priors.influence_times)
        return 1.0 if found is None else float(found[-1])

    assert demo.counts["few"] < demo.counts["bound"] < demo.counts["many"]
    assert factor("bound") > 0.97 and factor("many") < 0.7


def test_the_demo_is_answered_as_its_tastes_say_and_its_attacked_group_is_one_of_them():
    demo = demo_world(0)
    assert (demo.people, demo.group.sum()) == (150, 30) and demo.source.max() == len(tastes()) - 1
    decided = demo.answers.take((OUTCOMES[demo.answers.choice] != 0.5) & (demo.group[demo.answers.user] == 1))
    agrees = (OUTCOMES[decided.choice] == 1) == demo.likes(1, decided.pair)
    assert agrees.mean() > 0.8
    first = np.array_equal(decided.left, demo.pairs[decided.pair, 0])
    assert first and np.array_equal(decided.right, demo.pairs[decided.pair, 1])


@pytest.mark.parametrize(("least", "words"), [(1, "1"), (3, "4"), (8, "8"), (9, ">8")])
def test_the_smallest_number_of_accounts_is_found_by_bisection(least, words):
    assert smallest(lambda k: k >= least, 8) == words
    assert LABELS < len(PAIRS)
