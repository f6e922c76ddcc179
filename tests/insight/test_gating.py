"""Who is served by which expert."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.insight.gating import load, reading_order


def test_an_even_load_has_the_entropy_of_its_experts_and_nobody_is_dead():
    found = load(np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]])
    assert found.users.tolist() == [2, 2, 2, 2]
    assert found.share.tolist() == [0.25] * 4
    assert found.entropy == pytest.approx(2.0) and found.dead == 0


def test_a_collapsed_gate_has_no_entropy_and_leaves_all_but_one_dead():
    found = load(np.tile([0.1, 0.6, 0.3], (5, 1)))
    assert found.users.tolist() == [0, 5, 0]
    assert found.entropy == 0 and found.dead == 2


def test_permuting_experts_permutes_the_load():
    gates = np.random.default_rng(0).dirichlet(np.ones(5), size=40)
    order = np.array([3, 1, 4, 0, 2])
    one, other = load(gates), load(gates[:, order])
    assert other.users.tolist() == one.users[order].tolist()
    assert other.entropy == pytest.approx(one.entropy) and other.dead == one.dead


def test_no_users_is_no_load():
    found = load(np.zeros((0, 3)))
    assert found.users.tolist() == [0, 0, 0] and found.share.sum() == 0
    assert found.entropy == 0 and found.dead == 3


def test_users_of_one_expert_stand_together_the_surest_first():
    gates = np.array([[0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.3, 0.7]])
    assert reading_order(gates).tolist() == [2, 0, 1, 3]
