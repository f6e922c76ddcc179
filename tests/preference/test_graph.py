from __future__ import annotations

import numpy as np
import pytest
import torch

from copl_core.preference.graph import PreferenceGraph, QueryPairs, spmm
from copl_core.records import Comparisons

# user 0: 0≻1, 2≻1, tie of 0 and 2;  user 1: 1≻0;  user 2: 2 and 3 both bad
LABELS = Comparisons.build(
    [0, 0, 0, 1, 2], [0, 1, 0, 1, 2], [1, 2, 2, 0, 3], [1, 0, 0.5, 1, 0.5], both_bad=[False, False, False, False, True]
)
POSITIVE = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0.0]])
NEGATIVE = np.array([[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1.0]])


@pytest.fixture
def graph() -> PreferenceGraph:
    return PreferenceGraph.build(LABELS, 3, 4)


def normalised(edges: np.ndarray) -> np.ndarray:
    """1/√(deg_u deg_r) times the number of edges."""
    by_user, by_response = edges.sum(1, keepdims=True), edges.sum(0, keepdims=True)
    return edges / np.sqrt(np.maximum(by_user * by_response, 1))


@pytest.mark.parametrize(("sign", "edges"), [(0, POSITIVE), (1, NEGATIVE)])
def test_each_sign_is_normalised_by_its_own_degrees(graph, sign, edges):
    messages = graph.messages()
    np.testing.assert_allclose(messages.to_user[sign].matrix.to_dense(), normalised(edges), atol=1e-6)
    np.testing.assert_allclose(messages.to_response[sign].matrix.to_dense(), normalised(edges).T, atol=1e-6)


@pytest.mark.parametrize("sign", [0, 1])
def test_the_stored_transpose_is_the_transpose(graph, sign):
    pair = graph.messages().to_user[sign]
    assert torch.equal(pair.matrix.to_dense().T, pair.transpose.to_dense())


def test_a_part_of_the_labels_gives_the_graph_of_that_part(graph):
    kept = torch.tensor([True, False, True, True, False])
    part = PreferenceGraph.build(LABELS.take(kept.numpy()), 3, 4).messages()
    masked = graph.part(kept).messages()
    for sign in range(2):
        assert torch.allclose(masked.to_user[sign].matrix.to_dense(), part.to_user[sign].matrix.to_dense())


def test_labels_without_a_preference_leave_no_edge():
    ties = Comparisons.build([0, 1], [0, 1], [1, 2], [0.5, 0.5])
    for pair in PreferenceGraph.build(ties, 2, 3).messages().to_user:
        assert not pair.matrix.to_dense().any()


def test_the_product_and_its_gradient_equal_the_dense_ones(graph):
    pair = graph.messages().to_user[1]
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = x.detach().clone().requires_grad_()
    sparse, dense = spmm(pair.matrix, pair.transpose, x), pair.matrix.to_dense() @ y
    sparse.square().sum().backward()
    dense.square().sum().backward()
    assert torch.allclose(sparse, dense, atol=1e-6)
    assert torch.allclose(x.grad, y.grad, atol=1e-6)


@pytest.mark.parametrize("sign", [0, 1])
def test_the_csr_path_equals_gather_and_scatter(graph, sign):
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = x.detach().clone().requires_grad_()
    pair, ((user, response), alpha) = graph.messages().to_user[sign], graph.edges()[sign]
    by_csr = spmm(pair.matrix, pair.transpose, x)
    by_scatter = y.new_zeros(3, 5).index_add(0, user, alpha[:, None] * y[response])
    by_csr.square().sum().backward()
    by_scatter.square().sum().backward()
    assert torch.allclose(by_csr, by_scatter, atol=1e-6)
    assert torch.allclose(x.grad, y.grad, atol=1e-6)


def test_edge_lists_name_the_kept_edges(graph):
    kept = torch.tensor([True, False, True, True, False])
    plus, minus = graph.part(kept).messages().edges
    assert sorted(zip(*plus.tolist(), strict=True)) == [(0, 0), (1, 1)]
    assert sorted(zip(*minus.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_dropped_edges_leave_the_mean_message_unchanged(graph):
    generator = torch.Generator().manual_seed(0)
    drawn = [graph.messages(0.25, generator).to_user[0].matrix.to_dense() for _ in range(400)]
    whole = graph.messages().to_user[0].matrix.to_dense()
    assert torch.allclose(torch.stack(drawn).mean(0), whole, atol=0.1)
    assert all(((one == 0) | torch.isclose(one, whole / 0.75)).all() for one in drawn)
    pair = graph.messages(0.25, generator).to_response[1]
    assert torch.equal(pair.matrix.to_dense().T, pair.transpose.to_dense())


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4], [1, 3]])
def test_margins_and_their_gradient_equal_the_gathered_ones(rows):
    generator, rows = torch.Generator().manual_seed(0), torch.tensor(rows)
    user, left, right = (torch.as_tensor(column).int() for column in (LABELS.user, LABELS.left, LABELS.right))
    tables = [torch.randn(n, 5, generator=generator, requires_grad=True) for n in (3, 4)]
    copies = [table.detach().clone().requires_grad_() for table in tables]
    margins = QueryPairs.build(user, left, right, 3, 4).taken(rows).margins(*tables)
    plain = (copies[0][user] * (copies[1][left] - copies[1][right])).sum(-1)[rows]
    margins.square().sum().backward()
    plain.square().sum().backward()
    assert torch.allclose(margins, plain, atol=1e-5)
    for one, other in zip(tables, copies, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-4)


def test_users_times_responses_may_exceed_an_int32():
    user, left, right = (torch.tensor(column, dtype=torch.int32) for column in ([40_000, 3], [1, 69_999], [5, 0]))
    users = torch.ones(70_000, 1, requires_grad=True)
    responses = torch.arange(70_000.0)[:, None]
    QueryPairs.build(user, left, right, 70_000, 70_000).margins(users, responses).sum().backward()
    assert {int(row): float(users.grad[row, 0]) for row in users.grad.nonzero()[:, 0]} == {3: 69_999.0, 40_000: -4.0}


def test_labels_that_are_not_kept_take_no_memory(graph):
    kept = torch.tensor([True, False, False, False, False])
    assert [pair.matrix.values().numel() for pair in graph.part(kept).messages().to_user] == [1, 1]
