"""The bound on what one account weighs: the largest accounts are bounded, and nobody else is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad

from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.records import Comparisons
from copl_core.reward.linear import LinearConfig
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_parts import GraphPart, UserBlocks
from copl_core.training.graph_trainer import GraphData, penalty
from copl_core.training.influence import FEWEST, account_factors, bounded_weight, largest
from copl_core.training.linear_fit import _Loss
from copl_core.training.losses import torch_generator
from tests.preference.camps import QUICK, all_pairs, camp_phi, camps, world

LOOSE = {"influence": 0.05, "influence_times": 10.0}


def labels_of(counts: list[int]) -> Comparisons:
    """So many labels of each account."""
    user = np.repeat(np.arange(len(counts)), counts)
    return Comparisons.build(user, 0 * user, 0 * user + 1, user % 2)


def factors(counts: list[int], share: float = 0.05, times: float = 0.0) -> np.ndarray | None:
    labels = labels_of(counts)
    return account_factors(labels, labels.strength, len(counts), share, times)


@given(st.lists(st.integers(0, 2000), min_size=FEWEST, max_size=60))
def test_no_account_weighs_more_than_its_share_of_what_all_weigh(counts):
    found = factors(counts, share=0.1)
    if found is None or sum(count > 0 for count in counts) < FEWEST:
        return
    weight = found * counts
    assert weight.max() <= 0.1 * weight.sum() * (1 + 1e-4)
    bound = weight.max()
    assert weight == pytest.approx(np.minimum(counts, bound), rel=1e-3), "the others weigh what they weighed"


def test_an_account_may_weigh_a_multiple_of_the_median_whatever_its_share():
    assert factors([10] * 19 + [100], times=10.0) is None
    assert factors([10] * 19 + [400], times=10.0)[-1] == pytest.approx(0.25)


def test_few_accounts_have_no_bound_and_neither_has_a_share_of_zero():
    assert factors([1] * (FEWEST - 2) + [1000]) is None and factors([1] * (FEWEST - 1) + [1000]) is not None
    assert factors([1] * 100 + [1000], share=0.0) is None
    assert largest(np.zeros(30), 0.05, 10.0) == float("inf")


def test_the_order_of_accounts_changes_nothing():
    counts, order = [5, 900, 3, 40] * 8, np.random.default_rng(0).permutation(32)
    assert np.array_equal(factors(counts)[order], factors([counts[row] for row in order]))


def test_the_strength_of_labels_counts():
    labels = labels_of([10] * 30)
    weight = np.where(labels.user == 0, 3.0, 1.0)
    assert account_factors(labels, weight, 30, 0.05, 0.0)[0] < 1
    assert bounded_weight(labels, weight, 30) is weight, "ten times the median is more"


# ---- in fits


def flooded(n_people: int = 40, answers: int = 4000) -> Comparisons:
    """Two camps, and one more account that answers more than all of them, always as one list says."""
    labels = camps(n_users=n_people).labels
    pair = np.random.default_rng(0).integers(0, 24, answers)
    theirs = Comparisons.build(np.full(answers, n_people), 2 * pair, 2 * pair + 1, pair % 3 == 0)
    columns = [np.concatenate([getattr(labels, name), getattr(theirs, name)]) for name in Comparisons.__slots__]
    return Comparisons(*columns)


def test_without_a_large_account_the_fit_is_bit_for_bit_the_one_without_a_bound():
    one, other = (
        fit_graph(camps(), camp_phi(), QUICK.with_settings(max_steps=5, members=1, **bound), seed=0)
        for bound in (LOOSE, {"influence": 0.0})
    )
    assert np.array_equal(one.user_vectors, other.user_vectors)
    assert np.array_equal(one.response_vectors, other.response_vectors)


def test_an_account_that_floods_a_study_moves_the_others_less():
    data = world(41, 24, flooded())

    def accuracy(**bound: float) -> float:
        """Of the camps, on all pairs."""
        state = fit_graph(data, camp_phi(), QUICK.with_settings(members=1, **bound), seed=0)
        return float(np.mean([(state.margins(all_pairs(24, user)) > 0) == (user % 2 == 0) for user in range(40)]))

    assert accuracy(**LOOSE) > 0.95 > 0.75 > accuracy(influence=0.0)


def test_likelihood_and_prior_of_a_bounded_accounts_own_row_are_scaled_alike():
    """So the most probable row, given what all share, is the one without a bound."""
    data, config = camps(), GraphConfig.build(dim=4, n_layers=0, members=1)
    account = np.linspace(0.1, 1, data.n_users).astype(np.float32)

    def gradient(account: np.ndarray | None) -> torch.Tensor:
        network = CoplGraph(data.n_users, data.n_responses, 6, config, torch_generator(0))
        with torch.no_grad():
            network.user_residual.copy_(torch.randn(network.user_residual.shape, generator=torch_generator(1)))
        graph = GraphData(data, torch.from_numpy(camp_phi()), config, "cpu", account=account)
        query = graph.batch(torch.arange(len(data.labels)))
        loss = graph.loss(graph.logits(network, network(graph.phi, graph.graph.messages()), query), query)
        (loss + penalty(network, config, account=graph.factor) / graph.n_labels).backward()
        return network.user_residual.grad

    assert torch.allclose(gradient(account), torch.from_numpy(account)[:, None] * gradient(None), atol=1e-6)


def test_each_rank_gets_the_factors_of_its_own_accounts():
    data = camps()
    account = np.random.default_rng(0).random(data.n_users).astype(np.float32)
    whole = GraphPart(data, camp_phi(), QUICK, 0, [np.arange(3)], [], None, False, account)
    blocks = UserBlocks.of(data, 3)
    assert np.array_equal(np.concatenate([blocks.part(whole, rank).account for rank in range(3)]), account)


def test_text_weights_are_learned_under_the_bound_by_the_gradient_of_their_loss():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 3, 20))
    labels = Comparisons.build(user, rng.integers(0, 4, 20), rng.integers(4, 8, 20), rng.integers(0, 2, 20))
    wide = np.array([[1.0], [2.0], [3.0]])
    loss = _Loss(rng.standard_normal((20, 2)), rng.standard_normal((20, 2)), user, labels, rng.random(20), 8,
                 LinearConfig(), None, wide)  # fmt: skip
    start = rng.standard_normal(loss.size)
    assert check_grad(lambda v: loss(v)[0], lambda v: loss(v)[1], start) < 1e-4
