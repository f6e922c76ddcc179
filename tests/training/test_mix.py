"""The mix gives each part the weight its held-out margins deserve."""

from __future__ import annotations

import numpy as np
import pytest

from copl_core.training.mix import Mix, fit_blend, fit_mix

LABELS = 3000


def answers(logits: np.ndarray, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


@pytest.fixture
def margins() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(scale=2, size=LABELS), rng.normal(scale=2, size=LABELS)


def test_true_weights_are_recovered(margins):
    graph, text = margins
    mix = fit_mix(graph, text, answers(0.8 * graph + 0.3 * text))
    assert mix.graph == pytest.approx(0.8, abs=0.1)
    assert mix.text == pytest.approx(0.3, abs=0.1)
    assert mix.n == LABELS


def test_noise_gets_no_weight(margins):
    signal, noise = margins
    outcome = answers(signal)
    assert fit_mix(signal, noise, outcome).text < 0.05
    assert fit_mix(noise, signal, outcome).graph < 0.05
    assert fit_mix(signal, noise, outcome).text_alone < 0.05


def test_a_part_that_speaks_against_the_labels_is_silenced_and_not_turned_round(margins):
    signal, other = margins
    mix = fit_mix(-signal, other, answers(signal + other))
    assert mix.graph == 0
    assert mix.text > 0.2
    assert fit_mix(other, -signal, answers(signal)).text_alone == 0


def test_swapping_sides_changes_nothing(margins):
    graph, text = margins
    outcome = answers(graph + text)
    one, other = fit_mix(graph, text, outcome), fit_mix(-graph, -text, 1 - outcome)
    assert (one.graph, one.text, one.text_alone) == pytest.approx((other.graph, other.text, other.text_alone), abs=1e-3)


def test_without_labels_the_mix_is_the_middle():
    nothing = np.zeros(0)
    mix = fit_mix(nothing, nothing, nothing)
    assert (mix.graph, mix.text, mix.text_alone, mix.n) == (0.5, 0.5, 1.0, 0)


def test_a_handful_of_labels_moves_the_mix_only_a_little():
    mix = fit_mix(np.array([3.0, 2.0]), np.array([-1.0, 0.5]), np.array([1.0, 1.0]))
    assert 0.3 < mix.graph < 1.0 and 0.1 < mix.text < 0.8


def test_known_texts_are_mixed_and_new_ones_judged_by_text_alone():
    mix = Mix(graph=0.5, text=0.25, text_alone=2.0, n=9)
    logits = mix.logits(np.array([2.0, 2.0]), np.array([4.0, 4.0]), np.array([True, False]))
    assert logits.tolist() == [2.0, 8.0]


def test_enormous_margins_stay_finite():
    margins = np.array([1000.0, -1000.0, 1000.0])
    mix = fit_mix(margins, -margins, np.array([1.0, 0.0, 0.0]))
    assert all(np.isfinite([mix.graph, mix.text, mix.text_alone]))
    assert min(mix.graph, mix.text, mix.text_alone) >= 0


NOTHING_NEW = np.zeros(LABELS, bool)
MIDDLE = np.array([0.5, 0.5])


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
