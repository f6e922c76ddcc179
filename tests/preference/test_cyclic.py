"""Preferences that go in circles: the skew-symmetric term of the graph (``layers.CyclicHead``)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.cycles import KINDS, CyclicWorld, make_cycles
from copl_core.insight.controversy import member_preferences
from copl_core.preference.adapt import adapt
from copl_core.preference.config import GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.layers import CyclicHead
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError
from copl_core.training.graph_fit import fit_graph
from copl_core.training.graph_trainer import GraphData, Member
from tests.preference.camps import QUICK, camp_phi, camps

CIRCLES = QUICK.with_settings(cyclic=2)


@pytest.fixture(scope="module")
def world() -> CyclicWorld:
    return make_cycles()


@pytest.fixture(scope="module")
def fitted(world) -> GraphState:
    return fit_graph(world.data, world.phi, CIRCLES, seed=0)


def accuracy(margins: np.ndarray, labels: Comparisons) -> float:
    return float(((margins > 0) == (labels.outcome > 0.5)).mean())


def test_circles_are_predicted_where_a_score_is_at_chance(world, fitted):
    """Of users who turn either way, on prompts that they did not label."""
    assert accuracy(fitted.margins(world.test), world.test) > 0.95
    for group in (0, 1):
        own = world.test.take(np.flatnonzero(world.group[world.test.user] == group))
        assert accuracy(fitted.margins(own), own) > 0.95
    plain = fit_graph(world.data, world.phi, QUICK, seed=0)
    assert 0.45 < accuracy(plain.margins(world.test), world.test) < 0.55


def test_no_order_of_the_responses_explains_more_than_two_thirds_of_a_world_of_circles(world):
    pairs = [(0, 1), (1, 2), (2, 0)]  # the left one wins
    orders = [np.random.default_rng(seed).permutation(KINDS) for seed in range(20)]
    assert max(sum(order[a] > order[b] for a, b in pairs) for order in orders) == 2
    wins = world.test.take(np.flatnonzero((world.test.outcome > 0.5) & (world.group[world.test.user] == 0)))
    assert set(zip(wins.left % KINDS, wins.right % KINDS, strict=True)) == set(pairs)


def test_a_margin_of_swapped_responses_is_exactly_the_negative(world, fitted):
    swapped = replace(world.test, left=world.test.right, right=world.test.left)
    np.testing.assert_array_equal(fitted.margins(swapped), -fitted.margins(world.test))
    np.testing.assert_array_equal(
        fitted.log_odds(fitted.user_vectors, world.test.right, world.test.left),
        -fitted.log_odds(fitted.user_vectors, world.test.left, world.test.right),
    )
    same = np.arange(10)
    assert not fitted.log_odds(fitted.user_vectors, same, same).any()


def test_the_head_is_skew_symmetric_whatever_its_weights():
    head, (user, left, right) = CyclicHead(8, 3), torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight in head.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        assert torch.equal(head(user, left, right), -head(user, right, left))
        assert head(user, left, right).abs().min() > 0


def test_the_state_gives_the_log_odds_of_its_members(world, fitted):
    """Their mean, whose labels are all in the graph."""
    graph_data = GraphData(world.data, torch.zeros(world.data.n_responses, QUICK.architecture.text_dim), CIRCLES, "cpu")
    graph_data.phi = torch.from_numpy(
        ((world.phi - fitted.weights["phi_mean"]) / fitted.weights["phi_scale"]) @ fitted.weights["phi_basis"]
    )
    labels, members = world.data.labels, []
    for member in range(CIRCLES.architecture.members):
        network = CoplGraph(
            world.data.n_users, world.data.n_responses, graph_data.phi.shape[1], CIRCLES, torch.Generator()
        )
        prefix = f"{member}."
        network.load_state_dict(
            {k.removeprefix(prefix): torch.from_numpy(v) for k, v in fitted.weights.items() if k.startswith(prefix)}
        )
        with torch.no_grad():
            out = network(graph_data.phi, graph_data.graph.messages())
            members.append(graph_data.logits(network, out, graph_data.batch(torch.arange(len(labels)))).numpy())
    np.testing.assert_allclose(
        fitted.label_log_odds(labels), np.mean(members, 0) / fitted.temperature, rtol=1e-3, atol=1e-3
    )
    chance = member_preferences(fitted, fitted.user_vectors[:5], np.column_stack([labels.left, labels.right])[:7])
    mean = np.log(chance / (1 - chance)).mean(0)
    np.testing.assert_allclose(
        mean, fitted.log_odds(fitted.user_vectors[:5], labels.left[:7], labels.right[:7]), atol=1e-3
    )


def test_a_new_person_is_placed_among_those_who_turn_their_way(world, fitted):
    """From ten labels, by the same posterior as under scores."""
    everybody = world.data.labels
    for user in (0, 59):
        own = everybody.take(np.flatnonzero(everybody.user == user)[:10])
        vector = adapt(fitted, own, exclude_user=user).vector
        unseen = world.test.take(np.flatnonzero(world.test.user == user))
        assert accuracy(fitted.margins(unseen, np.tile(vector, (len(unseen), 1))), unseen) > 0.9


def test_circles_among_texts_that_nobody_labelled_are_predicted_from_the_texts(world):
    known = 3 * 50
    labelled = world.data.labels.take(np.flatnonzero(world.data.labels.left < known))
    state = fit_graph(world.data.with_labels(labelled), world.phi, CIRCLES, seed=0)
    vectors, bias = state.embed_responses(world.phi)
    new = world.test.take(np.flatnonzero(world.test.left >= known))
    predicted = replace(state, response_vectors=vectors, response_bias=bias).margins(new)
    assert accuracy(predicted, new) > 0.9  # 0.93 to 0.96, by seed


def test_a_graph_with_circles_survives_the_disk_and_is_scores_alone_where_they_are_unknown(world, fitted, tmp_path):
    fitted.save(tmp_path)
    back = GraphState.load(tmp_path)
    np.testing.assert_array_equal(back.margins(world.test), fitted.margins(world.test))
    about = json.loads((tmp_path / "graph.json").read_text())
    del about["config"]["cyclic"]  # as a version that does not know circles reads it
    (tmp_path / "graph.json").write_text(json.dumps(about))
    scores = fitted.scores(fitted.user_vectors, fitted.response_vectors, fitted.response_bias)
    test, back = world.test, GraphState.load(tmp_path)
    expected = (scores[test.user, test.left] - scores[test.user, test.right]) / fitted.temperature
    np.testing.assert_allclose(back.margins(test), expected, atol=1e-4)


def test_a_graph_without_circles_starts_and_is_stored_as_before():
    plain, turning = (
        CoplGraph(20, 48, 6, config, torch.Generator().manual_seed(0)).state_dict() for config in (QUICK, CIRCLES)
    )
    assert {name for name in turning if name not in plain} == {"cyclic.plane", "cyclic.by_user", "cyclic.by_all"}
    assert all(torch.equal(turning[name], plain[name]) for name in plain)


def test_an_unfitted_head_is_bradley_terry_and_two_steps_change_all_of_it():
    """The planes move once users turn in them."""
    made = CoplGraph(20, 48, 6, CIRCLES, torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in made.cyclic.named_parameters()}
    assert not made.cyclic(*torch.randn(3, 9, CIRCLES.architecture.dim)).any()
    graph_data = GraphData(camps(), torch.from_numpy(camp_phi()), CIRCLES, "cpu")
    member = Member(graph_data, made, np.arange(5), seed=0)
    member.take_step()
    member.take_step()
    for name, value in made.cyclic.named_parameters():
        assert not torch.equal(value, before[name]), name


def test_a_graph_of_scores_goes_on_as_one_with_circles(world):
    plain = fit_graph(world.data, world.phi, QUICK.with_settings(max_steps=10), seed=0)
    warm = fit_graph(world.data, world.phi, CIRCLES, seed=0, warm=plain)
    assert accuracy(warm.margins(world.test), world.test) > 0.95
    again = fit_graph(world.data, world.phi, CIRCLES.with_settings(max_steps=1), seed=0, warm=warm)
    assert accuracy(again.margins(world.test), world.test) > 0.95


def test_a_negative_number_of_planes_is_refused():
    with pytest.raises(CoplError, match="cyclic"):
        GraphConfig.build(cyclic=-1)
