"""The audit of a reward model: what it has learned, what it held out, and chance where it learned nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.evaluation.audit_reward import labels_of_fit, reward_rows
from copl_core.preference.config import GraphConfig
from copl_core.records import Comparisons, TrainingData
from copl_core.reward.backbone import load_backbone
from copl_core.reward.linear import LinearConfig
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.training.graph_fit import fit_graph
from copl_core.training.linear_fit import fit_linear
from copl_core.training.split import split_of_study
from tests.reward.tiny import no_weights
from tests.worlds import by_style

pytest_plugins = "tests.reward.tiny"


@pytest.fixture(scope="module")
def coins(two_tastes) -> TrainingData:
    """Answers that are coins, so that nothing about them can be learned but themselves."""
    data, _ = two_tastes
    rng = np.random.default_rng(5)
    pairs = np.array([(user, a, b) for user in range(12) for a in range(32) for b in range(a)])
    user, left, right = pairs[rng.permutation(len(pairs))[:600]].T
    return data.with_labels(
        replace(Comparisons.build(user, left, right, rng.integers(2, size=600)), both_bad=np.zeros(600, bool))
    )


@pytest.fixture(scope="module")
def fitted(coins):
    """The graph that a full run fits beside its reward model: without the labels that it holds out."""
    labels = coins.labels
    ids = coins.user_ids[labels.user], coins.response_ids[labels.left], coins.response_ids[labels.right]
    learned, *_ = split_of_study(*ids, labels.decided, coins.n_responses)
    config = GraphConfig.build(dim=4, members=1, max_steps=10)
    return fit_graph(coins.with_labels(labels.take(learned)), by_style(list(coins.texts())), config, seed=0)


def test_learned_labels_are_those_of_the_fit_and_the_others_were_held_out(coins, fitted):
    labels, known = labels_of_fit(fitted, coins)
    assert known.sum() == len(fitted.labels) and (~known).sum() > 20
    learned = {
        (u, *sorted(p)) for u, *p in zip(fitted.labels.user, fitted.labels.left, fitted.labels.right, strict=True)
    }
    out = labels.take(~known)
    assert not learned & {(u, *sorted(p)) for u, *p in zip(out.user, out.left, out.right, strict=True)}


def test_a_study_that_has_grown_adds_only_held_out_labels_of_those_whom_the_fit_knows(coins, fitted):
    more = replace(coins, user_ids=np.append(coins.user_ids, 999))
    newcomer = Comparisons.build([12] * 50, [0] * 50, [1] * 50, [1] * 50)
    labels, known = labels_of_fit(fitted, more.with_labels(coins.labels.joined(newcomer)))
    assert len(labels) == len(labels_of_fit(fitted, coins)[0]) and labels.user.max() < 12


def test_a_reward_that_has_learned_nothing_is_at_chance_and_text_weights_that_know_the_labels_are_not(
    coins, fitted, tiny_encoder
):
    config = RewardConfig(
        backbone=str(tiny_encoder), last_layers=2, n_experts=2, rank=2, max_tokens=32, precision="float32"
    )
    model = RewardModel(config, load_backbone(str(tiny_encoder), no_weights, 2), d_user=fitted.user_vectors.shape[1])
    phi = by_style(list(coins.texts()))
    loose = LinearConfig(style=1.0, common=1.0, graph=0.1, own=30.0)
    rows = {row.observer: row.figure for row in reward_rows(fitted, model, fit_linear(fitted, phi, loose), coins, phi)}
    assert rows["experts, a person's reward"].low < 0.5 < rows["experts, a person's reward"].high
    assert rows["text weights of a person"].low > 0.5


def test_with_too_few_held_out_labels_nothing_is_claimed(coins, fitted):
    only = coins.with_labels(fitted.labels)
    assert reward_rows(fitted, None, None, only, by_style(list(coins.texts()))) == []
