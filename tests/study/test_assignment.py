"""Which pair comes next: mostly the most informative one, a share by chance, a few repeats with sides swapped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from copl_core.records import Choice
from copl_core.study.assignment import SelectionMix, choose
from copl_core.study.placement import adapted
from tests.worlds import graph_state, label

PAIRS = [(n, 100 + n, 101 + n) for n in range(7)]
ONLY = {
    name: SelectionMix(**{"informative": 0, "uniform": 0, "repeat": 0} | {name: 1})
    for name in ("informative", "uniform", "repeat")
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def state():
    return graph_state()


@pytest.fixture
def twenty_labels() -> list:
    """Answers to twenty pairs, oldest first; the left response of pair n is 2n."""
    return [label(2 * n, 2 * n + 1, pair_id=n, number=n) for n in range(20)]


def test_nothing_is_left_when_every_pair_is_answered(rng, twenty_labels):
    assert all(choose([], twenty_labels, None, None, rng) is None for _ in range(200))  # not a repeat either


def test_without_a_snapshot_every_new_pair_is_drawn_by_chance(rng):
    drawn = [choose(PAIRS, [], None, None, rng) for _ in range(2000)]
    assert {one.reason for one in drawn} == {"uniform"}
    counts = Counter(one.pair_id for one in drawn)
    assert len(counts) == len(PAIRS) and min(counts.values()) > 2000 / len(PAIRS) * 0.7


def test_each_side_is_left_half_of_the_time(rng, state):
    for mix in (ONLY["uniform"], ONLY["informative"]):
        sides = Counter()
        for _ in range(1000):
            chosen = choose(PAIRS[:1], [], state, adapted(state, []), rng, mix)
            sides[chosen.left_id] += 1
        assert set(sides) == set(PAIRS[0][1:]) and min(sides.values()) > 400


def test_reasons_come_in_their_shares(rng, state, twenty_labels):
    reasons = Counter(choose(PAIRS, twenty_labels, state, adapted(state, []), rng).reason for _ in range(3000))
    shares = {name: count / 3000 for name, count in reasons.items()}
    assert shares == pytest.approx({"informative": 0.7, "uniform": 0.2, "repeat": 0.1}, abs=0.03)


def test_the_informative_pair_is_the_one_on_which_sure_people_disagree(rng, state):
    users, responses = state.user_vectors * 0, state.response_vectors * 0
    users[:, 0] = np.where(np.arange(len(users)) % 2, 3.0, -3.0)
    responses[4, 0] = 1.0  # everybody is sure of response 104, half of them against it
    divided = replace(state, user_vectors=users, response_vectors=responses)
    offered = [PAIRS[0], PAIRS[4], PAIRS[6]]
    chosen = {choose(offered, [], divided, adapted(divided, []), rng, ONLY["informative"]).pair_id for _ in range(20)}
    assert chosen == {4}


def test_pairs_the_graph_has_never_seen_can_still_be_drawn_by_chance(rng, state):
    new = [(70, 900, 901)]
    chosen = choose(new, [], state, adapted(state, []), rng, ONLY["informative"])
    assert (chosen.pair_id, chosen.reason) == (70, "uniform")


def test_a_repeat_shows_an_old_pair_with_its_sides_swapped(rng, twenty_labels):
    for _ in range(100):
        chosen = choose(PAIRS, twenty_labels, None, None, rng, ONLY["repeat"])
        assert chosen.reason == "repeat"
        assert chosen.left_id == 2 * chosen.pair_id + 1  # it stood on the right
        assert chosen.pair_id < 12  # at least eight labels lie between


def test_a_pair_is_repeated_once(rng, twenty_labels):
    again = [label(one.right_id, one.left_id, Choice.RIGHT, pair_id=one.pair_id) for one in twenty_labels[:11]]
    chosen = {
        choose(PAIRS, [*twenty_labels[:11], *again, *twenty_labels[11:]], None, None, rng, ONLY["repeat"]).pair_id
        for _ in range(50)
    }
    assert chosen == {11}


def test_a_newcomer_has_nothing_to_repeat(rng, twenty_labels):
    for labels in ([], twenty_labels[:8]):
        assert choose(PAIRS, labels, None, None, rng, ONLY["repeat"]).reason == "uniform"


def test_ids_are_plain_numbers_that_a_database_takes(rng, state):
    for mix in (ONLY["informative"], ONLY["uniform"]):
        chosen = choose(PAIRS, [], state, adapted(state, []), rng, mix)
        assert type(chosen.pair_id) is int and type(chosen.left_id) is int


def test_thousands_of_open_pairs_are_thinned_and_still_answered(rng, state):
    many = [(n, 100 + n % 7, 101 + n % 7) for n in range(5000)]
    assert choose(many, [], state, adapted(state, []), rng, ONLY["informative"]).reason == "informative"


def test_a_repeat_of_a_label_with_an_unknown_position_has_drawn_sides(rng, twenty_labels):
    unknown = [replace(one, position_known=False) for one in twenty_labels]
    chosen = [choose(PAIRS, unknown, None, None, rng, ONLY["repeat"]) for _ in range(100)]
    assert {one.left_id - 2 * one.pair_id for one in chosen} == {0, 1}
