"""How many labels are saved: ``benchmarks.labels_saved`` counts them, here in a world of two camps."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import labels_saved as saved
from copl_core.preference.adapt import Prior
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, all_pairs, camp_phi, camps


@pytest.fixture(scope="module")
def state():
    return fit_graph(camps(), camp_phi(), QUICK, seed=0)


@pytest.fixture
def new_users() -> list[saved.NewUser]:
    """One user of each camp: half of the pairs are the pool, the other half the test."""
    even = all_pairs(24, user=0)
    answers = (even, replace(even, outcome=1 - even.outcome))
    return [saved.NewUser(labels.take(np.arange(0, 24, 2)), labels.take(np.arange(1, 24, 2))) for labels in answers]


def result(informative: list[float], random: list[float], whole: float) -> saved.Result:
    curves = {"most informative": np.tile(informative, (5, 1)), "random": np.tile(random, (5, 1))}
    return saved.Result("made up", curves, np.full(5, whole))


def test_labels_are_counted_until_nine_tenths_of_the_gain():
    found, all_users = result([0.5, 0.6, 0.96, 1.0], [0.5, 0.5, 0.6, 0.7], 1.0), np.arange(5)
    assert found.needed("most informative", all_users) == 2
    assert found.needed("random", all_users) == 4  # not reached within three labels
    assert "labels saved: 2 (2 to 2)" in saved.table(found, seed=0)


@pytest.mark.parametrize("policy", saved.POLICIES)
def test_curves_begin_without_labels_and_end_with_all_of_them(state, new_users, policy):
    prior = Prior.of(state)
    curves = np.array([saved.curve(state, prior, one, policy, 12, np.random.default_rng(0)) for one in new_users])
    assert curves.shape == (2, 13)
    start, end = curves.mean(0)[[0, -1]]
    assert start < 0.6 and end > 0.8  # no vector fits both camps, and twelve labels tell them apart
    whole = [saved.curve(state, prior, one, "random", 12, np.random.default_rng(9))[-1] for one in new_users]
    assert curves[:, -1].tolist() == whole  # all labels are the same labels in any order


def test_test_pairs_of_a_user_are_never_in_their_pool():
    world, users = saved.demo_world(n_users=5, seed=0)
    for user in users:
        pool, test = (
            set(zip(np.minimum(one.left, one.right), np.maximum(one.left, one.right), strict=True))
            for one in (user.pool, user.test)
        )
        assert pool and test and not pool & test
        assert user.test.decided.all()
        assert (user.pool.user >= world.train.n_users).all()


def test_the_picture_is_sound_and_names_both_policies():
    drawn = saved.picture([result([0.5, 0.6, 0.9, 1.0], [0.5, 0.5, 0.6, 0.7], 1.0)])
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert all(policy in drawn for policy in saved.POLICIES)
