"""The ablation of reasons: tags that follow from a taste, an exact gradient, and terms that do nothing without tags."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import reasons
from copl_core.demo.world import AXES, demo_rows
from copl_core.records import Choice
from copl_core.reward.tag_directions import TagDirections
from copl_core.training.linear_fit import STEPS, _Loss


@pytest.fixture(scope="module")
def fit():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("OWN_FEATURES", 4), ("OWN_USERS", 20), ("OWN_LABELS", 12), ("OWN_TEXTS", 40)):
            patch.setattr(reasons, name, value)
        patch.setattr(reasons, "GRAPH", reasons.GRAPH.with_settings(members=1, max_steps=20))
        return reasons.Fit(reasons.own_cut(1), 1, style=0.0)


def test_a_tag_of_the_demo_names_an_axis_that_speaks_for_the_choice_and_a_tie_has_none():
    rows = [row for row in demo_rows() if row.choice is not None]
    tags = reasons.demo_tags(rows)
    ties = np.array([row.choice not in (Choice.LEFT, Choice.RIGHT) for row in rows])
    assert (tags[ties] == reasons.NO_TAG).all()
    assert (tags[~ties] >= 0).mean() > 0.95
    assert 0 <= tags[~ties].max() < 2 * len(AXES)


def test_the_term_naming_has_the_gradient_of_its_value(fit):
    world, tags = fit.world, fit.cut.tags
    user = np.unique(world.labels.user, return_inverse=True)[1]
    order = np.argsort(user, kind="stable")
    labels = world.labels.take(order)
    difference = fit.x[labels.left] - fit.x[labels.right]
    loss = _Loss(difference, world.vectors[order], user[order], labels, world.weight[order], len(fit.x), fit.config)
    named = reasons._Naming(loss, fit, tags, user, 0.7)
    rng = np.random.default_rng(0)
    at = 0.1 * rng.standard_normal(loss.size)
    for _ in range(5):
        way = rng.standard_normal(loss.size)
        difference = (named(at + 1e-5 * way)[0] - named(at - 1e-5 * way)[0]) / 2e-5
        assert difference == pytest.approx(named(at)[1] @ way, rel=1e-4)


def test_tags_without_weight_change_nothing_and_with_weight_they_do(fit):
    tags = fit.cut.tags
    without = fit.margins("none", tags, 0.0)
    np.testing.assert_array_equal(fit.margins("comparison", tags, 0.0), without)
    found = fit.world.shared(fit.x, fit.config, np.arange(len(fit.world.labels)), STEPS)
    vectors = (fit.state.user_vectors - fit.world.user_mean) / fit.world.user_scale
    weights = found.common + vectors @ found.from_graph + found.own
    np.testing.assert_allclose(fit._named(tags, 0.0), weights, atol=2e-3)
    for term in ("comparison", "naming"):
        assert np.abs(fit.margins(term, tags, 1.0) - without).max() > 0.1


def test_the_direction_of_a_tag_is_the_feature_that_it_names(fit):
    found = TagDirections.of(fit.difference, fit.world.labels, reasons.columns(fit.cut.tags))
    for tag, step in zip(found.keys, found.steps, strict=True):
        if (fit.cut.tags == tag).sum() >= 15:
            assert np.abs(step).argmax() == tag // 2
