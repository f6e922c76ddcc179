"""The mix gives each component the weight that its held-out margins deserve."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.snapshots.mix import Mix, fit_mix

LABELS = 3000


def answers(logits: np.ndarray, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


NOTHING_NEW = np.zeros(LABELS, bool)
ALL_NEW = ~NOTHING_NEW


@pytest.fixture
def margins() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(scale=2, size=LABELS), rng.normal(scale=2, size=LABELS)


def mixed(graph: np.ndarray, experts: np.ndarray, outcome: np.ndarray, new: np.ndarray) -> Mix:
    """The mix of two parts; the linear text reward is the third, and says nothing."""
    return fit_mix(np.stack([graph, experts, np.zeros(len(graph))]), outcome, new)


def known(mix: Mix) -> tuple[float, float]:
    return mix.graph, mix.text


def unseen(mix: Mix) -> tuple[float, float]:
    return mix.graph_new, mix.text_new


KINDS = [(NOTHING_NEW, known), (ALL_NEW, unseen)]


@pytest.mark.parametrize("new, weights", KINDS, ids=["known", "unseen"])
def test_true_weights_are_recovered(margins, new, weights):
    graph, text = margins
    mix = mixed(graph, text, answers(0.8 * graph + 0.3 * text), new)
    assert weights(mix) == pytest.approx((0.8, 0.3), abs=0.1)
    assert (mix.n, mix.n_new) == ((~new).sum(), new.sum())


def test_known_and_unseen_texts_get_separate_weights(margins):
    graph, text = margins
    new = np.arange(LABELS) % 2 == 0
    mix = mixed(graph, text, np.where(new, answers(text), answers(graph)), new)
    assert known(mix) == pytest.approx((1, 0), abs=0.15) and unseen(mix) == pytest.approx((0, 1), abs=0.3)


@pytest.mark.parametrize("new, weights", KINDS, ids=["known", "unseen"])
def test_noise_gets_no_weight(margins, new, weights):
    signal, noise = margins
    outcome = answers(signal)
    assert weights(mixed(signal, noise, outcome, new))[1] < 0.05
    assert weights(mixed(noise, signal, outcome, new))[0] < 0.2, "the prior pulls it up like 100 labels of 3,000"


def test_a_component_against_the_labels_gets_no_weight_and_no_negative_one(margins):
    signal, other = margins
    mix = mixed(-signal, other, answers(signal + other), NOTHING_NEW)
    assert mix.graph == 0 and mix.text > 0.2
    assert mixed(other, -signal, answers(signal), ALL_NEW).text_new == 0


def test_swapping_sides_changes_nothing(margins):
    graph, text = margins
    outcome, new = answers(graph + text), np.arange(LABELS) % 2 == 0
    one, other = mixed(graph, text, outcome, new), mixed(-graph, -text, 1 - outcome, new)
    assert known(one) + unseen(one) == pytest.approx(known(other) + unseen(other), abs=1e-3)


def test_without_labels_the_graph_speaks_alone_and_leaves_a_quarter_of_unseen_texts_to_the_linear_reward():
    nothing = np.zeros(0)
    assert mixed(nothing, nothing, nothing, nothing.astype(bool)) == Mix(1.0, 0.0, 0, 0.75, 0.0, 0, linear_new=0.25)


def test_a_handful_of_labels_moves_the_mix_only_a_little():
    mix = mixed(np.array([3.0, 2.0]), np.array([-1.0, 0.5]), np.array([1.0, 1.0]), np.zeros(2, bool))
    assert 0.9 < mix.graph < 1.1 and mix.text < 0.1


def test_enormous_margins_stay_finite():
    margins, new = np.array([1000.0, -1000.0, 1000.0]), np.array([False, True, False])
    mix = mixed(margins, -margins, np.array([1.0, 0.0, 0.0]), new)
    assert np.isfinite(known(mix) + unseen(mix)).all() and min(known(mix) + unseen(mix)) >= 0


def test_a_mix_of_an_earlier_snapshot_uses_the_text_reward_alone_on_unseen_texts():
    mix = Mix.read({"graph": 0.6, "text": 0.3, "text_alone": 0.9, "n": 40})
    assert known(mix) == (0.6, 0.3) and unseen(mix) == (0.0, 0.9) and (mix.n, mix.n_new) == (40, 0)


def test_the_scale_of_a_margin_changes_its_weight_and_no_prediction(margins):
    graph, text = (one[:200] for one in margins)
    outcome, new = answers(graph + 0.3 * text), np.zeros(200, bool)
    one, wide = mixed(graph, text, outcome, new), mixed(graph, 50 * text, outcome, new)
    assert (one.graph, one.text) == pytest.approx((wide.graph, 50 * wide.text), abs=1e-6) and one.text > 0


@pytest.mark.parametrize("new, weight", [(NOTHING_NEW, "linear"), (ALL_NEW, "linear_new")], ids=["known", "unseen"])
def test_the_linear_text_reward_is_weighed_like_the_other_parts(margins, new, weight):
    graph, linear = margins
    mix = fit_mix(np.stack([graph, np.zeros(LABELS), linear]), answers(0.5 * graph + 0.7 * linear), new)
    assert getattr(mix, weight) == pytest.approx(0.7, abs=0.15)


def test_a_snapshot_of_an_earlier_version_has_no_linear_text_reward():
    mix = Mix.read({"graph": 0.6, "text": 0.3, "n": 40, "graph_new": 0.2, "text_new": 0.9, "n_new": 8})
    assert (mix.linear, mix.linear_new) == (0.0, 0.0)
