"""The audit: it finds what a model has memorised, is at chance where nothing was, and knobs hide what they say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.special import expit

from benchmarks.synthetic import Protocol, make_world
from copl_core.evaluation import attributes, observers, private_rows, small_groups
from copl_core.evaluation.attacks import auc
from copl_core.evaluation.audit import Audit, _Seen, audit
from copl_core.evaluation.audit_report import text
from copl_core.evaluation.shadows import Fit, World, fits, half, world_of
from copl_core.preference.config import GraphConfig
from copl_core.records import Comparisons, CoplError
from copl_core.training.graph_fit import fit_graph
from tests.worlds import graph_state

MADE = make_world(Protocol(groups=2, users=40, prompts=30, labels=12, test=0, noise=0.5), 0)
# Every label is a coin, and a factorisation without priors, text or an early stop fits each that it is given.
MEMORISING = GraphConfig.build(
    dim=16, members=1, n_layers=0, l2=0.0, l2_text=1.0, id_dropout=0.0, leave_out=0.0, holdout=0.0, max_steps=60
)


def world(config: GraphConfig = MEMORISING) -> World:
    return world_of(MADE.data, MADE.phi, config)


@cache
def audited() -> Audit:
    return audit(world(), shadows=4, targets=2, attributes={"group": [str(one) for one in MADE.group]})


def auc_of(part: str, observer: str, attack: str) -> float:
    return next(row for row in audited().of(part) if (row.observer, row.attack) == (observer, attack)).figure.auc


def test_a_model_that_memorises_tells_which_labels_it_has_learned():
    assert auc_of("label", "rewards of a person, one question", "likelihood ratio") > 0.9
    assert auc_of("label", "folder of a snapshot", "reads it, no attack is needed") == 1.0
    assert auc_of("answer", "rewards of a person, one question", "labels it has learned") > 0.95


def test_where_membership_says_nothing_about_a_fit_every_attack_is_at_chance():
    runs = _Seen(world())
    for fit in fits(world(), "label", 4, 4):
        runs.add(replace(fit, known=half(world(), "label", 500 + fit.number)))
    for row in runs.rows():
        if row.part == "label" and row.observer != "folder of a snapshot":
            assert row.figure.auc == pytest.approx(0.5, abs=0.06), row


def test_rounding_and_noise_hide_more_the_coarser_they_are():
    behind = {row.observer: row.figure.auc for row in audited().of("knob")}
    assert behind["as they are"] >= behind["rounded to 0.1"] - 0.02 >= behind["rounded to 1"] - 0.04
    assert behind["noise of 0.3"] > behind["noise of 1"]
    assert behind["noise of 0.3, mean of ten answers"] > behind["noise of 0.3"]
    assert behind["private vector, ε = 8"] > behind["private vector, ε = 2"] - 0.02
    assert behind["private vector, ε = 2"] < 0.65
    assert behind["as they are"] > behind["DP-SGD of rows, ε = 8"] > behind["DP-SGD of rows, ε = 2"]


def test_every_figure_lies_in_its_interval_and_is_written_as_json():
    for row in audited().rows:
        assert row.figure.low <= row.figure.auc <= row.figure.high, row
    facts = json.loads(json.dumps(audited().facts(), allow_nan=False))
    assert len(facts["rows"]) == len(audited().rows) and facts["n_people"] == 40


def test_the_report_has_a_table_for_each_question_and_chance_beside_it():
    printed = text(audited())
    assert printed.count("chance 0.500") == 7
    assert "rounded to 0.01" in printed and "groups of 5" in printed and "\nembeddings of people" in printed


def test_an_attribute_that_vectors_follow_is_read_and_one_that_they_do_not_follow_is_not():
    state, rng = graph_state(n_users=60), np.random.default_rng(0)
    group = np.arange(60) % 3
    vectors = (state.user_vectors + 3 * rng.normal(size=(3, 4))[group]).astype(np.float32)
    state = replace(state, user_vectors=vectors)
    read, accuracy, baseline = attributes.inferred(state, [str(one) for one in group])
    assert read.auc > 0.9 and accuracy[0] > 0.8 and baseline == pytest.approx(1 / 3)
    chance, accuracy, _ = attributes.inferred(state, [str(one) for one in rng.permutation(group)])
    assert chance.low < 0.5 < chance.high and accuracy[1] < 1 / 3 + 0.1


def test_an_attribute_with_too_few_people_of_a_value_is_not_audited():
    state = fit_graph(world().data, MADE.phi, MEMORISING, seed=0)
    assert attributes.inferred(state, ["a"] * 35 + ["b"] * 5) is None
    assert attributes.inferred(state, [None] * 40) is None


def test_halves_are_halves_and_a_repeated_answer_goes_with_the_first():
    twice = MADE.data.with_labels(MADE.data.labels.joined(MADE.data.labels))
    known = half(world_of(twice, MADE.phi), "label", 3)
    assert (known[:480] == known[480:]).all() and 0.4 < known.mean() < 0.6
    people = half(world(), "person", 3)
    assert all(len(set(people[MADE.data.labels.user == user])) == 1 for user in range(40))
    assert (half(world(), "label", 3) != half(world(), "label", 4)).any()


def test_too_few_labels_are_refused_in_one_sentence():
    few = MADE.data.with_labels(MADE.data.labels.take(np.arange(30)))
    with pytest.raises(CoplError, match="30 labels with a preference"):
        world_of(few, MADE.phi)


def test_ties_are_left_out_and_people_keep_their_ids():
    labels = MADE.data.labels
    tied = replace(labels, outcome=np.where(labels.user == 3, 0.5, labels.outcome).astype(np.float32))
    found = world_of(MADE.data.with_labels(tied), MADE.phi)
    assert 3 not in found.data.user_ids and found.data.n_users == 39
    assert (found.data.user_ids[found.labels.user] == labels.user[labels.user != 3]).all()


# ---- what observers see


def test_decoding_reads_no_level_of_a_prompt_and_turns_with_the_sign():
    rng, prompt = np.random.default_rng(0), np.repeat(np.arange(5), 3)
    table = rng.normal(size=(8, 15))
    flat = observers.decoded(table, prompt, 0.03)
    np.testing.assert_allclose(
        observers.decoded(table + rng.normal(size=(8, 5))[:, prompt], prompt, 0.03), flat, atol=1e-9
    )
    np.testing.assert_allclose(observers.decoded(-table, prompt, 0.03), -flat, atol=1e-9)
    assert not observers.decoded(np.ones((8, 15)), prompt, 0.03).any()


def test_noise_for_a_guarantee_meets_it_exactly_and_shrinks_as_the_guarantee_does():
    from scipy.stats import norm

    for epsilon in (0.5, 2.0, 8.0):
        sigma = private_rows.noise_for(epsilon)
        excess = norm.cdf(1 / (2 * sigma) - epsilon * sigma) - np.exp(epsilon) * norm.cdf(
            -1 / (2 * sigma) - epsilon * sigma
        )
        assert excess == pytest.approx(private_rows.DELTA, rel=1e-3)
    assert private_rows.noise_for(0.5) > private_rows.noise_for(2.0) > private_rows.noise_for(8.0)


def test_one_label_moves_a_private_vector_by_no_more_than_the_noise_allows_for(monkeypatch):
    monkeypatch.setattr(private_rows, "noise_for", lambda epsilon: 0.0)
    state = graph_state(n_users=6, seed=1)
    prior = private_rows.Prior.of(state)
    labels = state.labels
    for row in range(len(labels)):
        less = labels.take(np.delete(np.arange(len(labels)), row))
        before, after = (
            private_rows.private_vectors(state, some, 1.0, np.random.default_rng(0)) for some in (labels, less)
        )
        moved = np.linalg.lstsq(prior.root[:-1], (before - after).T.astype(np.float64), rcond=None)[0]
        assert np.linalg.norm(moved, axis=0).max() <= private_rows.CLIP + 1e-6


def test_one_label_moves_no_step_of_descent_by_more_than_the_clip_and_nobody_elses_row():
    state = graph_state(n_users=6, seed=1)
    labels, rng = state.labels, np.random.default_rng(0)
    rows = private_rows._Rows.of(state, labels)
    z = rng.normal(size=(6, rows.x.shape[1]))
    for row in range(len(labels)):
        some = private_rows._Rows.of(state, labels.take(np.delete(np.arange(len(labels)), row)))
        moved = private_rows.clipped_slopes(rows, z, 0.3) - private_rows.clipped_slopes(some, z, 0.3)
        length = np.linalg.norm(moved, axis=1)
        assert length.max() <= 0.3 + 1e-9 and set(np.flatnonzero(length > 1e-12)) <= {int(labels.user[row])}


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_the_noise_of_all_steps_together_is_that_of_one_release(monkeypatch, steps):
    """T Gaussian steps are one with noise √T times smaller: the sum of the steps, clipped at C, tells ε."""
    drawn: list[float] = []

    class Watched:
        def normal(self, mean, sigma, shape):
            drawn.append(sigma)
            return np.zeros(shape)

    private_rows.by_descent(
        graph_state(n_users=4), graph_state(n_users=4).labels, 2.0, Watched(), steps=steps, clip=0.5
    )
    together = 1 / np.sqrt(sum((0.5 / sigma) ** 2 for sigma in drawn))
    assert len(drawn) == steps and together == pytest.approx(private_rows.noise_for(2.0))


def test_without_noise_and_clipping_descent_ends_at_the_most_probable_rows(monkeypatch):
    monkeypatch.setattr(private_rows, "noise_for", lambda epsilon, sensitivity=1.0: 0.0)
    state, rng = graph_state(n_users=6, seed=1), np.random.default_rng(0)
    prior = private_rows.Prior.of(state)
    found = private_rows.by_descent(state, state.labels, 1.0, rng, steps=3000, rate=0.02, clip=1e9)
    expected = [prior.explain(state, state.labels.take(state.labels.user == user)).vector for user in range(6)]
    np.testing.assert_allclose(found, np.array(expected), atol=2e-3)


# ---- small groups


@pytest.mark.parametrize("size", [2, 3])
def test_an_answer_with_an_interval_gives_away_everybody_in_a_group_of_two_or_three(size):
    wins = np.sort(np.random.default_rng(0).random((size, 50)), axis=0)
    np.testing.assert_allclose(small_groups.solved(small_groups.sent(wins), size), wins, atol=1e-9)


def test_it_does_not_give_away_everybody_in_a_group_of_five():
    wins = np.sort(np.random.default_rng(0).random((5, 50)), axis=0)
    assert np.abs(small_groups.solved(small_groups.sent(wins), 5) - wins).max() > 0.1


def test_a_difference_of_exact_shares_is_the_person_and_one_of_rounded_shares_is_not():
    state = graph_state(n_users=12, n_responses=8)
    order = small_groups.at_random(12, 0)
    with_them, without = small_groups.shares(state, order, 5, state.labels)
    own = expit(state.margins(state.labels))
    np.testing.assert_allclose(small_groups.by_difference(with_them, without, 5, 0.0), own, atol=1e-6)
    errors = [
        np.abs(small_groups.by_difference(with_them, without, 5, step) - own).max() for step in (0.001, 0.01, 0.05)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_groups_have_everybody_in_one_of_at_least_their_size_and_a_person_alone_is_themselves():
    state = graph_state(n_users=23)
    near = small_groups.nearest(state)
    assert (near[:, 0] == np.arange(23)).all() and (np.sort(near, 1) == np.arange(23)).all()
    _, counts = np.unique(small_groups.in_groups_of(state, near, 5), axis=0, return_counts=True)
    assert counts.sum() == 23 and counts.min() >= 5
    np.testing.assert_array_equal(small_groups.in_groups_of(state, near, 1), state.user_vectors)
    inside = small_groups.group_vectors(state, near, 1, np.ones(23, bool))
    np.testing.assert_array_equal(inside, state.user_vectors)
    assert (small_groups.group_vectors(state, near, 1, np.zeros(23, bool)) != inside).any(1).all()


def test_a_person_placed_by_answers_that_the_responses_know_fits_them_better_than_everybody_does():
    state = fit_graph(world().data, MADE.phi, MEMORISING, seed=0)
    labels = world().labels
    assert observers.placed(state, labels).mean() > observers.by_everybody(state, labels).mean()
    opposite = replace(labels, outcome=1 - labels.outcome)
    np.testing.assert_allclose(observers.by_everybody(state, opposite), -observers.by_everybody(state, labels))


def test_a_fit_knows_the_labels_of_its_half_and_no_others():
    fit: Fit = next(fits(world(), "label", 1, 0))
    learned = world().labels.take(np.flatnonzero(fit.known))
    assert all((getattr(fit.state.labels, name) == getattr(learned, name)).all() for name in Comparisons.__slots__)
    margins = observers.difference(observers.rewards(fit.state), world().labels)
    assert auc(margins, fit.known) > 0.8


def test_an_audit_of_too_few_fits_is_refused_in_one_sentence():
    for few in ({"shadows": 3}, {"targets": 0}):
        with pytest.raises(CoplError, match="too small to tell anything"):
            audit(world(), **few)
