from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import PreferenceGraph
from copl_core.records import Comparisons
from tests.preference.camps import QUICK, camp_phi, camps

USERS, RESPONSES, WIDTH = 20, 48, 6


def network(rule: str = "copl", n_users: int = USERS) -> CoplGraph:
    """A network away from its start, so that every term speaks."""
    made = CoplGraph(n_users, RESPONSES, WIDTH, replace(QUICK, rule=rule), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if not name.startswith("user"):
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        made.user_residual[:USERS] = torch.randn(USERS, QUICK.dim, generator=generator)
    return made


@pytest.fixture
def phi() -> torch.Tensor:
    return torch.from_numpy(camp_phi())


def messages(labels: Comparisons, n_users: int = USERS):
    return PreferenceGraph.build(labels, n_users, RESPONSES).messages()


@pytest.mark.parametrize("rule", ["copl", "published"])
def test_permuting_users_permutes_their_rows_and_moves_no_response(phi, rule):
    labels = camps().labels
    order = np.random.default_rng(0).permutation(USERS)  # new row i is the old user order[i]
    renamed = replace(labels, user=np.argsort(order)[labels.user])
    before, after = network(rule), network(rule)
    with torch.no_grad():
        after.user_residual.copy_(before.user_residual[order])
        users, responses, bias = before(phi, messages(labels))
        users_after, responses_after, bias_after = after(phi, messages(renamed))
    assert torch.allclose(users_after, users[order], atol=1e-4)
    assert torch.allclose(responses_after, responses, atol=1e-4)
    assert torch.allclose(bias_after, bias, atol=1e-4)


def test_an_added_user_without_labels_changes_nobody(phi):
    labels = camps().labels
    with torch.no_grad():
        users, responses, bias = network()(phi, messages(labels))
        more, responses_after, bias_after = network(n_users=USERS + 1)(phi, messages(labels, USERS + 1))
    assert torch.equal(more[:USERS], users)
    assert torch.equal(responses_after, responses)
    assert torch.equal(bias_after, bias)


def test_the_side_a_response_was_shown_on_changes_no_embedding(phi):
    labels = camps().labels
    mirrored = replace(labels, left=labels.right, right=labels.left, outcome=1 - labels.outcome)
    with torch.no_grad():
        for one, other in zip(network()(phi, messages(labels)), network()(phi, messages(mirrored)), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_the_signs_are_told_apart(phi):
    labels = camps().labels
    with torch.no_grad():
        users, *_ = network()(phi, messages(labels))
        flipped, *_ = network()(phi, messages(replace(labels, outcome=1 - labels.outcome)))
    assert not torch.allclose(users, flipped, atol=1e-2)


def test_a_response_treated_as_new_is_its_text_alone(phi):
    labels, made = camps().labels, network()
    keep = torch.ones(RESPONSES, 1)
    keep[3] = 0
    bare = network()
    with torch.no_grad():
        bare.response_residual[3] = 0
        bare.response_bias[3] = 0
        _, responses, bias = made(phi, messages(labels), keep)
        untouched = np.flatnonzero((labels.left != 3) & (labels.right != 3))
        _, alone, alone_bias = bare(phi, messages(labels.take(untouched)))
    assert torch.allclose(responses[3], alone[3], atol=1e-5)
    assert torch.allclose(bias[3], alone_bias[3], atol=1e-5)


def test_the_published_rule_ties_users_and_responses_and_subtracts():
    layer = network("published").convs[0]
    assert layer.self_user is layer.self_response
    assert layer.to_user is layer.to_response
    assert [message.sign for message in layer.to_user] == [1.0, -1.0]
