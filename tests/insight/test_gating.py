"""Which expert serves whom, and what each expert does."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.insight.gating import between_two, by_group, centred, explain, load


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


def test_the_factor_is_the_busiest_over_the_idlest():
    assert load(np.eye(3)[[0, 0, 0, 1, 2]]).factor == pytest.approx(3.0)
    assert load(np.eye(3)[[0, 1]]).factor == np.inf


def test_people_of_one_group_stand_together_within_it_those_of_one_expert_the_surest_first():
    gates = np.array([[0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    order, blocks = by_group(gates, np.array([1, 0, 1, 0, -1]))
    assert order.tolist() == [1, 3, 2, 0, 4] and blocks == ((0, 0, 2), (1, 2, 4), (-1, 4, 5))
    assert by_group(np.zeros((0, 2)), np.zeros(0, int))[1] == ()


def test_those_between_two_experts_come_by_the_smallest_gap():
    gates = np.array([[0.6, 0.4, 0.0], [0.1, 0.44, 0.46], [1.0, 0.0, 0.0]])
    found = between_two(gates, 2)
    assert [one[:3] for one in found] == [(1, 2, 1), (0, 0, 1)] and found[0][3] == pytest.approx(0.02)
    assert between_two(np.ones((3, 1)), 2) == []


# ---- what explains an expert


PROMPTS = np.repeat(np.arange(30), 4)


def test_centred_values_have_no_mean_within_a_prompt():
    values = np.random.default_rng(0).normal(3, 1, (2, 120))
    found = centred(values, PROMPTS)
    assert found.reshape(2, 30, 4).mean(2) == pytest.approx(np.zeros((2, 30)), abs=1e-9)
    assert centred(values[0], PROMPTS) == pytest.approx(found[0])


def test_the_feature_an_expert_follows_is_found_with_its_sign_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(120, 12))
    change = np.stack([features[:, 3], -features[:, 7]]) + rng.normal(size=(2, 120)) + 5 * rng.normal(size=30)[PROMPTS]
    found = explain(change, features, PROMPTS, rng)
    assert found.certain(0)[0] == 3 and found.certain(1)[0] == 7
    assert found.r[0, 3] > 0.5 and found.r[1, 7] < -0.5
    assert (found.low <= found.r).all() and (found.r <= found.high).all()
    assert (found.n_texts, found.n_prompts) == (120, 30)


def test_an_expert_that_follows_nothing_is_seldom_explained():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(120, 30))
    found = explain(rng.normal(size=(40, 120)), features, PROMPTS, rng)
    assert sum(bool(found.certain(expert)) for expert in range(40)) <= 6  # two of forty would be five of a hundred


def test_a_feature_that_does_not_vary_and_too_few_prompts_explain_nothing():
    rng = np.random.default_rng(0)
    features = np.column_stack([np.ones(120), rng.normal(size=120)])
    found = explain(features[:, 1][None], features, PROMPTS, rng)
    assert found.certain(0) == [1] and np.isnan(found.r[0, 0])
    few = explain(features[:8, 1][None], features[:8], PROMPTS[:8], rng)
    assert few.certain(0) == [] and few.r[0, 1] == pytest.approx(1)
