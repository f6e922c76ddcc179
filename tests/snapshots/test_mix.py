"""The mix gives each part the weight its held-out margins deserve."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.snapshots.mix import Mix, fit_blend, fit_mix

LABELS = 3000


def answers(logits: np.ndarray, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


NOTHING_NEW = np.zeros(LABELS, bool)
ALL_NEW = ~NOTHING_NEW
MIDDLE = np.array([0.5, 0.5])


@pytest.fixture
def margins() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(scale=2, size=LABELS), rng.normal(scale=2, size=LABELS)


def known(mix: Mix) -> tuple[float, float]:
    return mix.graph, mix.text


def unseen(mix: Mix) -> tuple[float, float]:
    return mix.graph_new, mix.text_new


KINDS = [(NOTHING_NEW, known), (ALL_NEW, unseen)]


@pytest.mark.parametrize("new, weights", KINDS, ids=["known", "unseen"])
def test_true_weights_are_recovered(margins, new, weights):
    graph, text = margins
    mix = fit_mix(graph, text, answers(0.8 * graph + 0.3 * text), new)
    assert weights(mix) == pytest.approx((0.8, 0.3), abs=0.1)
    assert (mix.n, mix.n_new) == ((~new).sum(), new.sum())


def test_known_and_unseen_texts_get_weights_of_their_own(margins):
    graph, text = margins
    new = np.arange(LABELS) % 2 == 0
    mix = fit_mix(graph, text, np.where(new, answers(text), answers(graph)), new)
    assert known(mix) == pytest.approx((1, 0), abs=0.15) and unseen(mix) == pytest.approx((0, 1), abs=0.15)


@pytest.mark.parametrize("new, weights", KINDS, ids=["known", "unseen"])
def test_noise_gets_no_weight(margins, new, weights):
    signal, noise = margins
    outcome = answers(signal)
    assert weights(fit_mix(signal, noise, outcome, new))[1] < 0.05
    assert weights(fit_mix(noise, signal, outcome, new))[0] < 0.05


def test_a_part_that_speaks_against_the_labels_is_silenced_and_not_turned_round(margins):
    signal, other = margins
    mix = fit_mix(-signal, other, answers(signal + other), NOTHING_NEW)
    assert mix.graph == 0
    assert mix.text > 0.2
    assert fit_mix(other, -signal, answers(signal), ALL_NEW).text_new == 0


def test_swapping_sides_changes_nothing(margins):
    graph, text = margins
    outcome, new = answers(graph + text), np.arange(LABELS) % 2 == 0
    one, other = fit_mix(graph, text, outcome, new), fit_mix(-graph, -text, 1 - outcome, new)
    assert known(one) + unseen(one) == pytest.approx(known(other) + unseen(other), abs=1e-3)


def test_without_labels_the_mix_is_the_middle():
    nothing = np.zeros(0)
    assert fit_mix(nothing, nothing, nothing, nothing.astype(bool)) == Mix(0.5, 0.5, 0, 0.5, 0.5, 0)


def test_a_handful_of_labels_moves_the_mix_only_a_little():
    mix = fit_mix(np.array([3.0, 2.0]), np.array([-1.0, 0.5]), np.array([1.0, 1.0]), np.zeros(2, bool))
    assert 0.3 < mix.graph < 1.0 and 0.1 < mix.text < 0.8


def test_enormous_margins_stay_finite():
    margins, new = np.array([1000.0, -1000.0, 1000.0]), np.array([False, True, False])
    mix = fit_mix(margins, -margins, np.array([1.0, 0.0, 0.0]), new)
    assert np.isfinite(known(mix) + unseen(mix)).all() and min(known(mix) + unseen(mix)) >= 0


def test_a_mix_of_an_earlier_snapshot_lets_the_text_reward_alone_speak_on_unseen_texts():
    mix = Mix.read({"graph": 0.6, "text": 0.3, "text_alone": 0.9, "n": 40})
    assert known(mix) == (0.6, 0.3) and unseen(mix) == (0.0, 0.9) and (mix.n, mix.n_new) == (40, 0)


def test_a_blend_believes_each_voice_as_far_as_it_was_right(margins):
    voices = np.column_stack(margins)
    blend = fit_blend(voices, answers(voices @ [0.8, 0.3]), NOTHING_NEW, NOTHING_NEW, MIDDLE, pull=1.0)
    assert blend.weights[0] == pytest.approx([0.8, 0.3], abs=0.1)
    assert blend.n.tolist() == [LABELS, 0, 0, 0]


def test_new_texts_get_weights_of_their_own_and_unseen_kinds_stand_in_the_middle(margins):
    voices = np.column_stack(margins)
    new = np.arange(LABELS) % 2 == 0
    outcome = np.where(new, answers(margins[1]), answers(margins[0]))
    blend = fit_blend(voices, outcome, new, NOTHING_NEW, MIDDLE, pull=1.0)
    assert blend.weights[0] == pytest.approx([1, 0], abs=0.15)
    assert blend.weights[1] == pytest.approx([0, 1], abs=0.15)
    assert blend.weights[2:].tolist() == [MIDDLE.tolist()] * 2
    logits = blend.logits(voices[:2], new[:2], NOTHING_NEW[:2])
    assert logits == pytest.approx([blend.weights[1] @ voices[0], blend.weights[0] @ voices[1]])


def test_without_labels_a_blend_stands_in_the_middle_and_a_silent_voice_harms_nothing(margins):
    nothing, no = np.zeros((0, 2)), np.zeros(0, bool)
    middles = np.arange(8).reshape(4, 2)
    assert fit_blend(nothing, np.zeros(0), no, no, middles).weights.tolist() == middles.tolist()
    voices = np.column_stack([margins[0], np.zeros(LABELS)])
    blend = fit_blend(voices, answers(margins[0]), NOTHING_NEW, NOTHING_NEW, MIDDLE, pull=1.0)
    assert blend.weights[0, 0] == pytest.approx(1, abs=0.1)
