"""The fit of the linear text reward: one solution, honest vectors, and tastes for texts nobody has labelled."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.features import FEATURE_NAMES, VERSION
from copl_core.preference.adapt import label_weights
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError
from copl_core.reward.linear import LinearConfig, TextFeatures
from copl_core.tags import Tags, tag_key
from copl_core.training import linear_fit
from copl_core.training.linear_fit import World, fit_linear, placed_by_other_folds

P = 8
WIDTH = P + len(FEATURE_NAMES)


def world(n_users: int = 40, n_responses: int = 80, per_user: int = 20, seed: int = 0, style: bool = False):
    """(graph state, φ, users' true weights): users of two camps weigh one feature of the texts in opposite ways."""
    rng = np.random.default_rng(seed)
    phi = np.zeros((n_responses, WIDTH))
    feature = WIDTH - 1 if style else 0
    phi[:, :P] = rng.normal(size=(n_responses, P))
    phi[:, P:] = rng.normal(size=(n_responses, len(FEATURE_NAMES)))
    taste = np.where(np.arange(n_users) % 2 == 0, 1.0, -1.0)
    user = np.repeat(np.arange(n_users), per_user)
    left, right = np.array([rng.choice(n_responses, 2, replace=False) for _ in user]).T
    margin = 3 * taste[user] * (phi[left, feature] - phi[right, feature])
    labels = Comparisons.build(user, left, right, (rng.random(len(user)) < 1 / (1 + np.exp(-margin))).astype(float))
    vectors = np.column_stack([taste + rng.normal(scale=0.3, size=n_users), rng.normal(scale=0.3, size=n_users)])
    state = GraphState(
        user_ids=np.arange(n_users) + 100,
        user_vectors=vectors.astype(np.float32),
        user_position_bias=np.zeros(n_users, np.float32),
        position_bias=0.0,
        response_ids=np.arange(n_responses) + 500,
        response_vectors=np.column_stack([phi[:, feature], np.zeros(n_responses)]).astype(np.float32),
        response_bias=np.zeros(n_responses, np.float32),
        temperature=1.0,
        labels=labels,
        n_labels=np.bincount(user, minlength=n_users),
        features_version=VERSION,
    )
    return state, phi, taste


def accuracy_on_new_texts(reward, state, taste, feature: int, seed: int = 9) -> float:
    rng = np.random.default_rng(seed)
    phi = rng.normal(size=(200, WIDTH))
    users = np.arange(len(taste))
    weights = reward.of_fit(users, state.user_vectors, state.labels, label_weights(state, state.labels))
    rewards = reward.rewards(phi, weights)
    truth = taste[:, None] * (phi[:100, feature] - phi[100:, feature])
    return float(((rewards[:, :100] > rewards[:, 100:]) == (truth > 0)).mean())


def tags_for(state, phi, rng=None) -> Tags:
    """Tags of two labels in three: whether more or less of the first feature was chosen, and one that no other label
    has; the first in any order with ``rng``."""
    labels = state.labels
    chosen = (phi[labels.left] - phi[labels.right]) * np.where(labels.outcome > 0.5, 1, -1)[:, None]
    words = np.where(chosen[:, 0] > 0, "more of it", "less of it")
    if rng is not None:
        words = rng.permutation(words)
    return Tags.of((row, (word, f"rare {row}")) for row, word in enumerate(words.tolist()) if row % 3)


@pytest.mark.parametrize("reason", [0.0, 0.9], ids=["without tags", "with tags"])
def test_two_starts_end_in_one_solution(reason):
    state, phi, _ = world()
    made = World.of(state, phi, lambda *_: None, tags_for(state, phi))
    config = LinearConfig(style=0.5, reason=reason)
    x, rows = TextFeatures.of(phi, 0.5, VERSION)(phi), np.arange(len(made.labels))
    one = made.shared(x, config, rows, 2000)
    size = WIDTH + 2 * WIDTH + len(state.user_ids) * WIDTH + len(phi) + 1
    other = made.shared(x, config, rows, 2000, np.random.default_rng(1).normal(size=size))
    for name in ("common", "from_graph", "strength", "own"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=0.02)
    assert (one.directions is not None) == (reason > 0)


def test_tastes_reach_texts_that_nobody_has_labelled():
    state, phi, taste = world()
    reward = fit_linear(state, phi, LinearConfig())
    assert accuracy_on_new_texts(reward, state, taste, 0) > 0.85
    alone = fit_linear(state, phi, LinearConfig(graph=0, own=0))
    assert abs(accuracy_on_new_texts(alone, state, taste, 0) - 0.5) < 0.1, "what all like says nothing about camps"


def test_style_features_are_used_where_they_predict_and_left_out_where_they_do_not():
    state, phi, _ = world(n_users=60, per_user=40, style=True)
    assert fit_linear(state, phi).config.style > 0
    state, phi, _ = world(n_users=60, per_user=40)
    assert fit_linear(state, phi).config.style == 0


def test_a_label_does_not_place_the_vector_that_it_is_learned_with():
    """Turning one label around leaves the vector of every label that shares no response with it in another fold, and
    its own vector, unchanged."""
    state, _, _ = world(n_users=6, per_user=12)
    rows = np.arange(len(state.labels))
    before = placed_by_other_folds(state, rows)
    for turned in (0, 17, 40):
        state.labels.outcome[turned] = 1 - state.labels.outcome[turned]
        after = placed_by_other_folds(state, rows)
        state.labels.outcome[turned] = 1 - state.labels.outcome[turned]
        assert after[turned] == pytest.approx(before[turned], abs=1e-6)
        others = state.labels.user == state.labels.user[turned]
        assert not np.allclose(after[others], before[others], atol=1e-4), "some other label is placed by it"


def test_a_user_who_took_no_part_is_solved_from_their_labels(monkeypatch):
    state, phi, taste = world()
    monkeypatch.setattr(linear_fit, "MOST_LABELS", 400)
    reward = fit_linear(state, phi, LinearConfig())
    assert 0 < reward.fitted.sum() < len(taste)
    assert accuracy_on_new_texts(reward, state, taste, 0) > 0.8


def test_a_fit_is_the_same_twice_and_reports_its_progress():
    state, phi, _ = world()
    seen = []
    one = fit_linear(state, phi, progress=lambda *step: seen.append(step))
    other = fit_linear(state, phi)
    assert one.config == other.config and (one.common == other.common).all() and (one.own == other.own).all()
    done = [step for _, step, _, _ in seen]
    assert done == sorted(done) and {phase for phase, *_ in seen} == {linear_fit.PHASE}


def test_tags_teach_the_weights_of_those_who_give_them(monkeypatch):
    """Tags say which way their user likes the feature that decides, and the fit finds that they pay.  Everybody has the
    same weights by stored numbers and by their labels with their tags, whether they took part in the fit or not."""
    state, phi, taste = world(n_users=50, per_user=10)
    state.user_vectors[:] = np.random.default_rng(3).normal(size=state.user_vectors.shape)  # which say nothing
    tags = tags_for(state, phi)
    without, with_tags = (fit_linear(state, phi, tags=one) for one in (None, tags))
    assert with_tags.config.reason > 0 == without.config.reason
    assert set(with_tags.read.directions.keys) == {tag_key("more of it"), tag_key("less of it")}, "one label is too few"
    up, down = with_tags.read.directions.steps
    assert abs(up[0]) == np.abs(up).max() and up[0] * down[0] < 0
    found, plain = (accuracy_on_new_texts(one, state, taste, 0) for one in (with_tags, without))
    assert found > plain + 0.01
    monkeypatch.setattr(linear_fit, "MOST_LABELS", 200)
    part = fit_linear(state, phi, LinearConfig(reason=0.9), tags=tags)
    assert 0 < part.fitted.sum() < len(taste)
    for reward in (with_tags, part):
        users, weight = np.arange(len(taste)), label_weights(state, state.labels)
        weights = reward.of_fit(users, state.user_vectors, state.labels, weight)
        for user in users:
            own = state.labels.user == user
            alone = reward.of_labels(state.user_vectors[user], state.labels.take(own), weight[own], tags.take(own))
            assert weights[user] == pytest.approx(alone, abs=1e-5)
            assert not np.allclose(
                alone, reward.of_labels(state.user_vectors[user], state.labels.take(own), weight[own])
            )


def test_tags_that_say_nothing_and_tags_that_are_not_read_change_nothing():
    state, phi, _ = world(n_users=50, per_user=10)
    plain = fit_linear(state, phi)
    rare = Tags.of((row, (f"rare {row}",)) for row in range(len(state.labels)))
    for tags in (rare, tags_for(state, phi, np.random.default_rng(0))):
        found = fit_linear(state, phi, tags=tags)
        assert found.config == plain.config and found.read is None
        assert (found.common == plain.common).all() and (found.own == plain.own).all()
    given = fit_linear(state, phi, LinearConfig(reason=0.9), tags=rare)
    assert given.read is None and given.config == LinearConfig()
    assert (given.own == fit_linear(state, phi, LinearConfig()).own).all()


def test_wrong_embeddings_and_no_labels_are_refused():
    state, phi, _ = world()
    with pytest.raises(CoplError, match="one row each"):
        fit_linear(state, phi[:-1])
    import dataclasses

    with pytest.raises(CoplError, match="no label to learn from"):
        fit_linear(dataclasses.replace(state, labels=state.labels.take([])), phi)
