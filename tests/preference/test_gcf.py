from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.preference import layers
from copl_core.preference.config import READOUT, Architecture, GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.graph import PreferenceGraph, SparsePair
from copl_core.preference.shard import ALONE
from copl_core.records import Comparisons
from tests.preference.camps import QUICK, camp_phi, camps

USERS, RESPONSES, WIDTH = 20, 48, 6
EVERY = (*READOUT, "copl-diagonal")
every_layer = pytest.mark.parametrize("layer", EVERY)


def network(layer: str = "copl", n_users: int = USERS) -> CoplGraph:
    """A network away from its start, so that every term has an effect."""
    made = CoplGraph(n_users, RESPONSES, WIDTH, of(layer), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if not name.startswith("user"):
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        made.user_residual[:USERS] = torch.randn(USERS, QUICK.architecture.dim, generator=generator)
    return made


def of(layer: str) -> GraphConfig:
    """A configuration by its architecture; "copl-diagonal" is copl with diagonal maps."""
    name, _, mixing = layer.partition("-") if layer.startswith("copl") else (layer, "", "")
    return QUICK.with_settings(layer=name, mixing=mixing or "full")


@pytest.fixture
def phi() -> torch.Tensor:
    return torch.from_numpy(camp_phi())


def messages(labels: Comparisons, n_users: int = USERS):
    return PreferenceGraph.build(labels, n_users, RESPONSES).messages()


@every_layer
def test_permuting_users_permutes_their_rows_and_changes_no_response(phi, layer):
    labels = camps().labels
    order = np.random.default_rng(0).permutation(USERS)  # new row i is the old user order[i]
    renamed = replace(labels, user=np.argsort(order)[labels.user])
    before, after = network(layer), network(layer)
    with torch.no_grad():
        after.user_residual.copy_(before.user_residual[order])
        users, responses, bias = before(phi, messages(labels))
        users_after, responses_after, bias_after = after(phi, messages(renamed))
    assert torch.allclose(users_after, users[order], atol=1e-4)
    assert torch.allclose(responses_after, responses, atol=1e-4)
    assert torch.allclose(bias_after, bias, atol=1e-4)


@every_layer
def test_an_added_user_without_labels_changes_nobody(phi, layer):
    labels = camps().labels
    with torch.no_grad():
        users, responses, bias = network(layer)(phi, messages(labels))
        more, responses_after, bias_after = network(layer, n_users=USERS + 1)(phi, messages(labels, USERS + 1))
    assert torch.allclose(more[:USERS], users, atol=1e-5)
    assert torch.allclose(responses_after, responses, atol=1e-5)
    assert torch.allclose(bias_after, bias, atol=1e-5)


@every_layer
def test_the_position_of_a_response_changes_no_embedding(phi, layer):
    labels, made = camps().labels, network(layer)
    mirrored = replace(labels, left=labels.right, right=labels.left, outcome=1 - labels.outcome)
    with torch.no_grad():
        for one, other in zip(made(phi, messages(labels)), made(phi, messages(mirrored)), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


@every_layer
def test_the_signs_have_different_effects(phi, layer):
    labels, made = camps().labels, network(layer)
    with torch.no_grad():
        users, *_ = made(phi, messages(labels))
        flipped, *_ = made(phi, messages(replace(labels, outcome=1 - labels.outcome)))
    assert not torch.allclose(users, flipped, atol=1e-2)


@every_layer
def test_a_response_treated_as_unseen_is_its_text_alone(phi, layer):
    labels, made = camps().labels, network(layer)
    keep = torch.ones(RESPONSES, 1)
    keep[3] = 0
    bare = network(layer)
    with torch.no_grad():
        bare.response_residual[3] = 0
        bare.response_bias[3] = 0
        _, responses, bias = made(phi, messages(labels), keep)
        untouched = np.flatnonzero((labels.left != 3) & (labels.right != 3))
        _, alone, alone_bias = bare(phi, messages(labels.take(untouched)))
    assert torch.allclose(responses[3], alone[3], atol=1e-5)
    assert torch.allclose(bias[3], alone_bias[3], atol=1e-5)


def test_the_published_layer_subtracts_what_it_adds_for_the_other_sign(phi):
    """With tied weights and equal products, flipped labels swap plus and minus."""
    layer = network("published").convs[0]
    layer.product[1].load_state_dict(layer.product[0].state_dict())
    users, responses = torch.randn(2, RESPONSES, QUICK.architecture.dim, generator=torch.Generator().manual_seed(0))
    users = users[:USERS]
    labels = camps().labels
    layer.slope = 1.0
    messages_of = [
        layer._update(users, responses, messages(one).to_user, None) - layer.self_response(users)
        for one in (labels, replace(labels, outcome=1 - labels.outcome))
    ]
    assert torch.allclose(messages_of[0], -messages_of[1], atol=1e-5)


def test_lightgcn_is_the_mean_of_differences_of_neighbours(phi):
    """Two layers written out with dense matrices."""
    labels, made = camps().labels, network("lightgcn")
    plus, minus = (pair.matrix.to_dense() for pair in messages(labels).to_user)
    with torch.no_grad():
        users, responses, _ = made(phi, messages(labels))
        u, r = made.user_mean + made.user_residual, made.text(phi) + made.response_residual
        expected = u + (plus - minus) @ r + (plus - minus) @ (plus - minus).T @ u
    assert not list(made.convs.parameters())
    assert torch.allclose(users, expected / 3, atol=1e-5)


def test_attention_weights_sum_to_one_over_the_neighbours_of_a_sign(phi):
    """With equal responses, attention of any kind gives one message per sign, whatever the number of neighbours."""
    layer = network("attention").convs[0]
    users = torch.zeros(USERS, QUICK.architecture.dim)
    responses = torch.randn(1, QUICK.architecture.dim).expand(RESPONSES, -1)
    out, _ = layer(users, responses, messages(camps().labels))
    assert torch.allclose(out, out[:1].expand_as(out), atol=1e-6)


def test_ids_alone_read_no_text_and_freeze_what_they_do_not_use(phi):
    config = QUICK.with_settings(layer="published", ids_only=True)
    made = CoplGraph(USERS, RESPONSES, WIDTH, config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (made(text, messages(camps().labels)) for text in (phi, torch.randn_like(phi)))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    trained = {name.split(".")[0] for name, weight in made.named_parameters() if weight.requires_grad}
    assert trained == {"user_residual", "response_residual", "convs"}


@every_layer
def test_a_seed_makes_a_start_whatever_the_global_one(layer):
    starts = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        starts.append(CoplGraph(3, 4, 5, of(layer), torch.Generator().manual_seed(0)).state_dict())
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])


@pytest.mark.parametrize("masked", [False, True])
def test_a_diagonal_update_in_pieces_and_its_gradient_are_those_of_the_layer(masked, monkeypatch):
    monkeypatch.setattr(layers, "ROWS", 3)
    generator = torch.Generator().manual_seed(0)
    own, others, weights, *edges = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((7, 4), (5, 4), (5, 4), (7, 5), (7, 5))
    )
    signs = [SparsePair(matrix.to_sparse_csr(), matrix.T.contiguous().to_sparse_csr()) for matrix in edges]
    mask = (torch.arange(7.0, dtype=torch.float64) > 2)[:, None] if masked else None

    def update(own, others, weights):
        return layers._DiagonalUpdate.apply(own, others, weights, signs, mask, 0.3, ALONE)

    inputs = [table.requires_grad_() for table in (own, others, weights)]
    assert torch.autograd.gradcheck(update, inputs)
    layer = layers.SignedLayer(Architecture(dim=4, mixing="diagonal", slope=0.3), first=True).double()
    parts = [layer.self_user] + [part for message in layer.to_user for part in (message.plain, message.product)]
    for part, weight in zip(parts, weights, strict=True):
        part.weight.data = weight.data
    now = layer.self_user(own)
    for matrix, message in zip(edges, layer.to_user, strict=True):
        summed = matrix @ others
        summed = summed * mask if masked else summed
        now = now + message.plain(summed) + message.product(summed * own)
    assert torch.allclose(update(*inputs), layers.leaky(now, 0.3))
