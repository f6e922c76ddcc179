from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.synthetic import Protocol, SyntheticWorld, make_world
from copl_core.preference.config import GraphConfig
from copl_core.preference.graph import PreferenceGraph
from copl_core.preference.spectral import leading
from copl_core.records import Comparisons
from copl_core.training.graph_fit import fit_graph
from copl_core.training.losses import torch_generator


@pytest.fixture(scope="module")
def groups() -> SyntheticWorld:
    return make_world(Protocol.uf_p(4, users=1500, prompts=1200, test=4), 0)


def found(labels: Comparisons, n_users: int, n_responses: int, width: int = 16):
    graph = PreferenceGraph.build(labels, n_users, n_responses)
    return leading(graph.messages(), width, torch_generator(0))


def test_common_and_controversial_pairs_are_predicted_better_than_chance(groups):
    data = groups.data
    users, responses = found(data.labels, data.n_users, data.n_responses)
    test = groups.test
    margin = (users[test.user] * (responses[test.left] - responses[test.right])).sum(1)
    figures = groups.figures(margin.numpy())
    assert figures["common"] > 0.9
    assert figures["controversial"] > 0.8
    assert (users.square().mean(0) > 0.2).sum() == 4  # one direction that all share, three that four groups differ in


def test_a_direction_of_chance_gets_next_to_no_weight(groups):
    labels = groups.data.labels
    coins = replace(labels, outcome=np.random.default_rng(0).integers(2, size=len(labels)).astype(np.float32))
    users, responses = found(coins, groups.data.n_users, groups.data.n_responses)
    assert float(users.square().mean(0).max()) < 0.15
    assert float(responses.square().mean(0).max()) < 0.15


def test_a_user_without_labels_starts_at_zero(groups):
    labels = groups.data.labels
    users, responses = found(labels, groups.data.n_users + 1, groups.data.n_responses + 1)
    assert not users[-1].any() and not responses[-1].any()
    assert users[:-1].any(1).all()


@pytest.mark.parametrize(
    "labels",
    [
        Comparisons.build([0, 0, 1], [0, 1, 0], [1, 2, 2], [1, 0, 1]),
        Comparisons.build([0, 1], [0, 1], [1, 2], [0.5, 0.5]),
    ],
)
def test_a_graph_of_too_few_directions_gives_zeros(labels):
    for table, rows in zip(found(labels, 3, 5), (3, 5), strict=True):
        assert table.shape == (rows, 3) and not table.any()


def test_groups_are_found_in_few_steps_if_ids_start_from_the_graph(groups):
    config = GraphConfig().sized(10**6).with_settings(max_steps=15)
    learned, blank = (
        fit_graph(groups.data, groups.phi, config.with_settings(spectral=width), seed=0)
        for width in (config.architecture.spectral, 0)
    )
    accuracy = [groups.figures(state.margins(groups.test))["controversial"] for state in (learned, blank)]
    assert accuracy[0] > 0.85 > accuracy[1]
