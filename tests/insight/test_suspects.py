"""Suspect labels: a strength is the user's margin without the label, and flipped labels are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from copl_core.insight.quality import Share
from copl_core.insight.suspects import Strengths, label_strengths, learned_prior, predicted, suspects, well_known
from copl_core.preference.adapt import Prior
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons
from copl_core.training.graph_fit import fit_graph
from tests.preference.camps import QUICK, camp_phi, camps
from tests.worlds import graph_state


@pytest.fixture(scope="module")
def flipped() -> tuple[GraphState, np.ndarray]:
    """Two camps with a twentieth of their labels flipped, and which of them."""
    data = camps(n_users=40, per_user=20, noise=0.0)
    flip = np.zeros(len(data.labels), bool)
    flip[np.random.default_rng(1).choice(len(flip), len(flip) // 20, replace=False)] = True
    outcome = np.where(flip, 1 - data.labels.outcome, data.labels.outcome).astype(np.float32)
    return fit_graph(data.with_labels(replace(data.labels, outcome=outcome)), camp_phi(), QUICK, seed=0), flip


@pytest.mark.parametrize("per_user", [2, 12], ids=["fewer labels than coordinates", "more labels than coordinates"])
def test_a_strength_is_the_margin_of_the_most_probable_vector_without_that_label(per_user):
    state = graph_state(n_users=5, n_responses=9)
    rng = np.random.default_rng(0)
    user, left = np.repeat(np.arange(5), per_user), rng.integers(0, 9, 5 * per_user)
    labels = Comparisons.build(
        user,
        left,
        (left + rng.integers(1, 9, len(left))) % 9,
        rng.choice([0, 1, 0.5], len(left), p=[0.45, 0.45, 0.1]),
        strength=rng.integers(1, 4, len(left)),
        position_known=rng.random(len(left)) < 0.5,
    )
    # Narrow, as of many labels: leave-one-out is an expansion around the optimum.
    prior = Prior.of(state, widen=0.4, isotropic=0.0)
    found = label_strengths(state, prior, labels).mean
    for row in range(len(labels)):
        others = labels.take((labels.user == labels.user[row]) & (np.arange(len(labels)) != row))
        vector = prior.explain(state, others).vector
        margin = state.log_odds(vector, labels.left[[row]], labels.right[[row]])[0]
        if labels.outcome[row] == 0.5:
            assert np.isnan(found[row])
        else:
            assert found[row] == pytest.approx(margin if labels.outcome[row] else -margin, abs=0.05)


def test_flipped_labels_are_found_far_above_their_share(flipped):
    state, flip = flipped
    found = suspects(label_strengths(state, learned_prior(state), state.labels))
    assert flip.mean() == pytest.approx(0.05)
    assert len(found) >= 10 and flip[found].mean() > 0.8 and flip[found].sum() / flip.sum() > 0.5


def test_the_mean_over_the_members_is_the_margin_of_the_whole_vector(flipped):
    state, _ = flipped
    strengths = label_strengths(state, learned_prior(state), state.labels)
    assert strengths.members.shape == (2, len(state.labels)) and np.ptp(strengths.members, axis=0).max() > 0.01
    one = replace(state, config=state.config | {"members": 1})
    assert strengths.mean == pytest.approx(label_strengths(one, learned_prior(one), one.labels).mean, abs=1e-4)


def test_swapped_sides_change_nothing_where_the_position_is_unknown(flipped):
    state, _ = flipped
    labels = replace(state.labels, position_known=np.zeros(len(state.labels), bool))
    swapped = replace(labels, left=labels.right, right=labels.left, outcome=1 - labels.outcome)
    prior = Prior.of(state)
    assert label_strengths(state, prior, labels).mean == pytest.approx(label_strengths(state, prior, swapped).mean)


def test_labels_and_users_in_another_order_have_the_same_strengths(flipped):
    state, _ = flipped
    prior, rng = Prior.of(state), np.random.default_rng(2)
    some = state.labels.take(rng.random(len(state.labels)) < np.where(state.labels.user < 10, 0.1, 1.0))
    order = rng.permutation(len(some))
    renamed = replace(some.take(order), user=77 - some.user[order])
    assert label_strengths(state, prior, renamed).members == pytest.approx(
        label_strengths(state, prior, some).members[:, order]
    )


def test_ties_are_never_suspect_and_no_labels_are_no_error(flipped):
    state, _ = flipped
    ties = replace(state.labels, outcome=np.full(len(state.labels), 0.5, np.float32))
    strengths = label_strengths(state, learned_prior(state), ties)
    assert np.isnan(strengths.mean).all() and not len(suspects(strengths)) and predicted(strengths, ties.user) == {}
    nothing = label_strengths(state, learned_prior(state), ties.take(np.zeros(0, int)))
    assert nothing.members.shape == (2, 0) and not len(suspects(nothing))


def test_only_labels_against_which_all_members_vote_are_suspect_the_most_suspect_first():
    strengths = Strengths(np.array([[-2.0, -9.0, -4.0, 3.0], [-1.5, 1.0, -3.0, 3.0]]))
    assert suspects(strengths).tolist() == [2, 0]
    assert suspects(strengths, threshold=-2.0).tolist() == [2]
    assert predicted(strengths, np.array([5, 5, 5, 8])) == {5: Share(0, 3), 8: Share(1, 1)}


@pytest.mark.parametrize(("share", "known"), [(Share(5, 5), False), (Share(30, 60), False), (Share(9, 10), True)])
def test_nothing_is_said_of_people_with_few_labels_or_predicted_as_by_chance(share, known):
    assert well_known(share) == known
