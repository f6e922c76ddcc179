from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from copl_core import features
from copl_core.preference.config import LARGE_DIM, READOUT, GraphConfig
from copl_core.preference.gcf import CoplGraph
from copl_core.preference.state import GraphState
from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.trainer.run_log import HELD_OUT
from copl_core.training.checkpoint import Checkpoint
from copl_core.training.graph_fit import _folds, fit_graph
from copl_core.training.graph_trainer import GraphData, Member, drawn_edges, edge_hash
from copl_core.training.losses import torch_generator
from tests.preference.camps import QUICK, all_pairs, camp_phi, camps, world

SHORT = QUICK.with_settings(max_steps=10, members=1)
PUBLISHED = GraphConfig.published(dim=8, n_layers=2, lr=1e-2, batch=64, epochs=20)


def same(one: GraphState, other: GraphState) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("user_vectors", "response_vectors", "response_bias", "user_position_bias")
    )


@pytest.fixture(scope="module")
def fitted() -> GraphState:
    return fit_graph(camps(), camp_phi(), QUICK, seed=0)


def test_both_camps_are_predicted_on_pairs_they_did_not_label(fitted):
    for user in range(20):
        even = fitted.margins(all_pairs(24, user)) > 0
        assert (even == (user % 2 == 0)).mean() > 0.9


@pytest.mark.parametrize("layer", READOUT)
def test_swapping_every_label_flips_the_order(layer):
    data, config = camps(), QUICK.with_settings(layer=layer, l2_layer=10.0, members=1, max_steps=40)
    flipped = data.with_labels(replace(data.labels, outcome=1 - data.labels.outcome))
    one, other = (fit_graph(labels, camp_phi(), config, seed=0) for labels in (data, flipped))
    agree = [
        np.sign(one.margins(all_pairs(24, user))) == np.sign(other.margins(all_pairs(24, user))) for user in range(20)
    ]
    assert np.mean(agree) < 0.15


@pytest.mark.parametrize("layer", READOUT)
def test_a_warm_refit_is_as_good_as_a_cold_one(layer):
    """After users, responses and labels were added."""
    config = QUICK.with_settings(layer=layer, l2_layer=10.0, members=1, max_steps=40)
    data, phi = camps(n_users=24, n_prompts=26), np.concatenate([camp_phi(), camp_phi(n_prompts=2, seed=3)])
    before = fit_graph(camps(), camp_phi(), config, seed=1)
    warm, cold = (fit_graph(data, phi, config, seed=1, warm=state) for state in (before, None))

    def accuracy(state: GraphState) -> float:
        return float(np.mean([(state.margins(all_pairs(26, user)) > 0) == (user % 2 == 0) for user in range(24)]))

    assert accuracy(warm) > accuracy(cold) - 0.03
    assert same(warm, fit_graph(data, phi, config, seed=1, warm=before))


def test_a_warm_refit_fits_the_text_projection_again_once_texts_have_become_many():
    """A projection fitted on two prompts has four directions at most, and would lose all others."""
    few, many = camps(n_prompts=2, per_user=2), camps(n_prompts=26)
    phi = camp_phi(n_prompts=26)
    before = fit_graph(few, phi[:4], SHORT, seed=0)
    warm, cold = (fit_graph(many, phi, SHORT, seed=0, warm=state) for state in (before, None))
    assert before.weights["phi_basis"].shape[1] < warm.weights["phi_basis"].shape[1]
    assert same(warm, cold)


def test_a_graph_that_learned_from_other_features_is_no_warm_start(fitted):
    older = replace(fitted, features_version=1)
    warm, cold = (fit_graph(camps(), camp_phi(), SHORT, seed=0, warm=state) for state in (older, None))
    assert same(warm, cold) and warm.features_version == features.VERSION


def test_a_warm_refit_from_disk_is_that_from_memory(fitted, tmp_path):
    fitted.save(tmp_path)
    one, other = (
        fit_graph(camps(), camp_phi(), SHORT, seed=0, warm=state) for state in (fitted, GraphState.load(tmp_path))
    )
    assert same(one, other)
    assert one.position_bias == other.position_bias


def test_a_warm_fit_of_another_seed_is_stopped_on_labels_it_never_saw():
    data = camps(noise=0.3)
    first = fit_graph(data, camp_phi(), SHORT.with_settings(max_steps=200), seed=0)
    second = fit_graph(data, camp_phi(), SHORT, seed=1, warm=first)
    assert abs(second.metrics["log_loss"] - first.metrics["log_loss"]) < 0.05


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "config",
    [
        QUICK,
        QUICK.with_settings(id_prior_growth=2.0, edge_dropout=0.2),
        PUBLISHED,
        QUICK.with_settings(large=100, max_steps=20),
    ],
)
@pytest.mark.parametrize("alive", [3, 12])
def test_a_fit_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(config, alive, tmp_path):
    reported = []

    def until(_phase: str, step: int, _steps: int, _loss: float) -> None:
        reported.append(step)
        if len(reported) == alive:
            raise Killed

    def fit(progress=None) -> GraphState:
        return fit_graph(camps(), camp_phi(), config, seed=0, progress=progress, checkpoint=Checkpoint(tmp_path, 0.0))

    with pytest.raises(Killed):
        fit(until)
    reported_again = []
    resumed = fit(lambda _phase, step, *_: reported_again.append(step))
    assert reported_again[0] > reported[0]
    assert same(resumed, fit_graph(camps(), camp_phi(), config, seed=0))


def test_where_held_out_labels_are_predicted_worse_the_prior_on_ids_grows():
    data = camps(noise=0.3)
    free = SHORT.with_settings(l2=0.0, max_steps=120, lr=0.1)
    constant, growing = (
        Member(
            GraphData(data, torch.from_numpy(camp_phi()), config, "cpu"),
            CoplGraph(20, 48, 6, config, torch_generator(0)),
            np.arange(0, len(data.labels), 8),
            seed=1,
        )
        for config in (
            free.with_settings(l2=0.1, id_prior_growth=1.0),
            free.with_settings(l2=0.1, id_prior_growth=3.0, growth_after=1),
        )
    )
    for member in (constant, growing):
        member.train(lambda *_: None)
    assert constant.id_prior_scale == 1.0
    assert growing.id_prior_scale > 3.0
    assert growing.best <= constant.best


def test_with_another_users_vector_the_gain_vanishes(fitted):
    """On pairs that the users did not label; the neighbouring row is a user of the other camp."""
    own, swapped = [], []
    for user in range(20):
        labels = camps().labels
        labelled = labels.left[labels.user == user] // 2
        unseen = all_pairs(24, user).take(np.setdiff1d(np.arange(24), labelled))
        truth = user % 2 == 0
        own.append((fitted.margins(unseen) > 0) == truth)
        vectors = np.tile(fitted.user_vectors[(user + 1) % 20], (len(unseen), 1))
        swapped.append((fitted.margins(unseen, vectors) > 0) == truth)
    assert np.concatenate(own).mean() > 0.85
    assert np.concatenate(swapped).mean() < 0.15


def test_a_seed_makes_a_fit_and_another_seed_another():
    one, again, other = (fit_graph(camps(), camp_phi(), SHORT, seed=seed) for seed in (3, 3, 4))
    assert same(one, again)
    assert not same(one, other)


def test_an_added_user_without_labels_changes_nobody_and_gets_the_mean():
    data, phi = camps(), camp_phi()
    more = TrainingData(
        np.append(data.user_ids, 999),
        data.response_ids,
        data.response_prompt,
        data.prompts,
        data.responses,
        data.labels,
    )
    one, other = fit_graph(data, phi, SHORT, seed=0), fit_graph(more, phi, SHORT, seed=0)
    np.testing.assert_allclose(other.user_vectors[:20], one.user_vectors, atol=1e-5)
    np.testing.assert_allclose(other.response_vectors, one.response_vectors, atol=1e-5)
    np.testing.assert_allclose(other.user_vectors[20], one.population, atol=1e-5)
    np.testing.assert_allclose(other.population, one.population, atol=1e-5)


def test_an_added_user_without_labels_changes_nobody_in_a_large_graph_either():
    data, config = camps(), SHORT.sized(100).with_settings(large=100)
    more = replace(data, user_ids=np.append(data.user_ids, np.arange(999, 1050)))
    one, other = fit_graph(data, camp_phi(), config, seed=0), fit_graph(more, camp_phi(), config, seed=0)
    np.testing.assert_allclose(other.user_vectors[:20], one.user_vectors, atol=1e-4)


def test_edges_are_dropped_whether_labels_leave_the_graph_or_not():
    config = SHORT.with_settings(leave_out=0.0)
    one, other = (
        fit_graph(camps(), camp_phi(), config.with_settings(edge_dropout=share), seed=0) for share in (0.0, 0.5)
    )
    assert not same(one, other)


def test_the_inverse_temperature_of_a_user_scales_the_log_odds_of_their_labels(tmp_path):
    data = camps()
    coin = data.labels.user < 10
    outcome = np.where(coin, np.arange(len(coin)) % 2, data.labels.outcome).astype(np.float32)
    state = fit_graph(
        data.with_labels(replace(data.labels, outcome=outcome)),
        camp_phi(),
        QUICK.with_settings(l2_inverse_temperature=0.1),
        seed=0,
    )
    assert state.user_inverse_temperature[:10].mean() < state.user_inverse_temperature[10:].mean()
    plain = replace(state, user_inverse_temperature=None).margins(data.labels)
    np.testing.assert_allclose(
        state.margins(data.labels), plain * state.user_inverse_temperature[data.labels.user], rtol=1e-6
    )
    state.save(tmp_path)
    np.testing.assert_array_equal(GraphState.load(tmp_path).margins(data.labels), state.margins(data.labels))


@pytest.mark.parametrize(
    "config",
    [
        *(SHORT.with_settings(layer=layer) for layer in READOUT),
        SHORT.with_settings(mixing="diagonal"),
        SHORT.with_settings(l2_inverse_temperature=1.0),
        PUBLISHED,
    ],
)
def test_one_step_changes_every_trainable_parameter_and_no_frozen_one(config):
    data = camps()
    network = CoplGraph(20, 48, 6, config, torch_generator(0))
    member = Member(GraphData(data, torch.from_numpy(camp_phi()), config, "cpu"), network, np.arange(0), seed=1)
    before = {name: value.clone() for name, value in network.named_parameters()}
    for _ in range(2):  # the bias shared by all moves only after the vectors
        member.take_step()
    still = {name for name, value in network.named_parameters() if torch.equal(value, before[name])}
    assert still == {name for name, value in network.named_parameters() if not value.requires_grad}


@pytest.mark.parametrize("layer", READOUT)
def test_every_architecture_is_fitted_by_the_same_call(layer):
    state = fit_graph(camps(), camp_phi(), QUICK.with_settings(layer=layer, l2_layer=10.0, members=1), seed=0)
    even = [state.margins(all_pairs(24, user)) > 0 for user in range(20)]
    assert np.mean([(row == (user % 2 == 0)).mean() for user, row in enumerate(even)]) > 0.8


@pytest.mark.parametrize("layer", READOUT)
def test_users_in_another_order_are_the_same_users(layer):
    """One step, so that the order of floating-point sums has next to no effect."""
    data, config = camps(), SHORT.with_settings(layer=layer, leave_out=0.0, max_steps=1, holdout=0.0)
    order = np.random.default_rng(0).permutation(20)
    labels = replace(data.labels, user=np.argsort(order)[data.labels.user])
    renamed = replace(data, user_ids=data.user_ids[order], labels=labels)
    one, other = fit_graph(data, camp_phi(), config, seed=0), fit_graph(renamed, camp_phi(), config, seed=0)
    np.testing.assert_allclose(other.user_vectors, one.user_vectors[order], atol=2e-3)
    np.testing.assert_allclose(other.response_vectors, one.response_vectors, atol=2e-3)


def test_the_published_schedule_learns_the_camps():
    state = fit_graph(camps(), camp_phi(), PUBLISHED, seed=0)
    even = [state.margins(all_pairs(24, user)) > 0 for user in range(20)]
    assert np.mean([(row == (user % 2 == 0)).mean() for user, row in enumerate(even)]) > 0.7
    assert not state.user_position_bias.any()
    assert not state.response_bias.any()


@pytest.mark.parametrize("loss", ["smoothing", "rdpo"])
def test_a_robust_loss_expects_the_label_noise_that_repeats_show(loss):
    """Every pair is labelled twice, and a fifth of the labels are flipped."""
    clean = camps(n_users=40, per_user=20, noise=0.0)
    labels = clean.labels.take(np.tile(np.arange(len(clean.labels)), 2))
    flipped = np.random.default_rng(0).random(len(labels)) < 0.2
    data = clean.with_labels(replace(labels, outcome=np.where(flipped, 1 - labels.outcome, labels.outcome)))
    robust = SHORT.with_settings(loss=loss)
    flip = GraphData(data, torch.from_numpy(camp_phi()), robust, "cpu").flip
    assert flip == pytest.approx(0.2, abs=0.04)
    assert GraphData(clean.with_labels(labels), torch.from_numpy(camp_phi()), robust, "cpu").flip == 0.0
    estimated, given, none = (
        fit_graph(data, camp_phi(), config, seed=0)
        for config in (robust, robust.with_settings(flip=flip), robust.with_settings(flip=0.0))
    )
    assert same(estimated, given)
    assert not same(estimated, none)


def test_a_large_study_is_fitted_by_one_member_and_says_so():
    state = fit_graph(camps(), camp_phi(), QUICK.with_settings(large=100, max_steps=20), seed=0)
    assert state.config["members"] == 1
    assert state.user_vectors.shape[1] == state.config["dim"]


def started(data: TrainingData, config: GraphConfig, warm: GraphState | None = None) -> np.ndarray:
    """The users' ids after one small step of a large graph."""
    config = config.sized(len(data.labels)).with_settings(max_steps=1, lr=1e-3)
    return fit_graph(data, camp_phi(), config, seed=0, warm=warm).weights["0.user_residual"]


@pytest.mark.parametrize("dim", [QUICK.architecture.dim, LARGE_DIM])
def test_a_study_that_becomes_large_starts_from_its_graph(dim):
    small = fit_graph(camps(), camp_phi(), QUICK.with_settings(dim=dim), seed=0)
    large = QUICK.with_settings(dim=dim, large=100)
    np.testing.assert_allclose(started(camps(), large, small), started(camps(), large), atol=0.01)


@pytest.mark.parametrize(("n_known", "from_graph"), [(2, True), (18, False)])
def test_where_most_users_are_new_a_large_graph_starts_from_the_graph(n_known, from_graph):
    data, config = camps(), QUICK.with_settings(large=100)
    few = data.with_labels(data.labels.take(np.flatnonzero(data.labels.user < n_known)))
    known = fit_graph(
        replace(few, user_ids=np.where(np.arange(20) < n_known, few.user_ids, few.user_ids + 1000)),
        camp_phi(),
        config.sized(100).with_settings(members=1),
        seed=0,
    )
    assert np.allclose(started(data, config, known), started(data, config), atol=0.01) == from_graph


@given(st.integers(0, 50), st.sampled_from([2, 4, 12]))
def test_what_a_member_is_measured_on_shares_no_response_with_what_it_learns_from_the_user(seed, per_user):
    """Users compare some pairs of a list at random: a response of a user is in one of their labels, or in several."""
    rng = np.random.default_rng(seed)
    pairs = [rng.permuted(np.arange(40))[: 2 * per_user].reshape(-1, 2) for _ in range(60)]
    pairs = [np.concatenate([some, rng.permutation(some.ravel())[:per_user].reshape(-1, 2)]) for some in pairs]
    left, right = np.concatenate(pairs).T
    labels = Comparisons.build(np.repeat(np.arange(60), len(pairs[0])), left, right, np.ones(len(left)))
    every = np.arange(len(labels))
    for held, apart in zip(*_folds(world(60, 20, labels), QUICK.with_settings(members=3)), strict=True):
        learned = labels.take(np.setdiff1d(every, np.union1d(held, apart)))
        assert len(held) and len(learned) > 0.8 * len(labels) and not len(np.intersect1d(held, apart))
        known = {*zip(learned.user, learned.left, strict=True), *zip(learned.user, learned.right, strict=True)}
        own = labels.take(held)
        assert not known & {*zip(own.user, own.left, strict=True), *zip(own.user, own.right, strict=True)}


def test_where_almost_all_labels_follow_from_others_a_member_is_measured_on_all_that_leave():
    """One user compares every two of forty responses; all labels about a response leave together, at least."""
    left, right = np.triu_indices(40, 1)
    labels = Comparisons.build(np.zeros(len(left)), left, right, np.ones(len(left)))
    for held, apart in zip(*_folds(world(1, 20, labels), QUICK.with_settings(members=3, holdout=0.3)), strict=True):
        kept = np.setdiff1d(np.arange(len(left)), np.union1d(held, apart))
        known = np.union1d(left[kept], right[kept])
        assert len(held)
        assert (~np.isin(left[held], known) | ~np.isin(right[held], known)).all()


def test_what_a_member_holds_out_stays_held_out_when_labels_are_added():
    data = camps()
    first = data.with_labels(data.labels.take(np.arange(150)))
    for before, after in zip(*(map(np.union1d, *_folds(one, QUICK)) for one in (first, data)), strict=True):
        np.testing.assert_array_equal(before, after[after < 150])


def test_held_out_metrics_are_reported():
    metrics = fit_graph(camps(), camp_phi(), QUICK, seed=0).metrics
    assert metrics["accuracy"] > 0.7
    assert metrics["n"] > 20
    assert 0 <= metrics["calibration_error"] <= 1


def test_a_warm_fit_starts_where_the_last_one_ended_and_takes_in_the_new(fitted):
    data = camps(n_users=22, n_prompts=26)
    phi = np.concatenate([camp_phi(), camp_phi(n_prompts=2, seed=3)])
    short = QUICK.with_settings(max_steps=5, lr=1e-3)
    warm = fit_graph(data, phi, short, seed=1, warm=fitted)
    even = [warm.margins(all_pairs(26, user)) > 0 for user in range(22)]
    assert np.mean([(row == (user % 2 == 0)).mean() for user, row in enumerate(even)]) > 0.85
    cold = fit_graph(data, phi, short, seed=1)
    assert warm.metrics["log_loss"] < cold.metrics["log_loss"]


def test_progress_is_reported_and_an_exception_from_it_ends_the_fit():
    reported = []
    fit_graph(camps(), camp_phi(), SHORT, seed=0, progress=lambda *row: reported.append(row))
    phases, steps, of, losses = zip(*reported, strict=True)
    assert {phase.removesuffix(HELD_OUT) for phase in phases} == {"graph"}
    assert list(steps) == sorted(steps)
    assert steps[-1] == of[-1]
    assert all(np.isfinite(loss) for loss in losses)

    class Cancelled(Exception):
        pass

    def cancel(*_) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        fit_graph(camps(), camp_phi(), SHORT, seed=0, progress=cancel)


@pytest.mark.parametrize("outcome", [1.0, 0.5])
def test_a_single_label_is_enough(outcome):
    state = fit_graph(world(2, 1, Comparisons.build([0], [0], [1], [outcome])), camp_phi(1), SHORT, seed=0)
    assert np.isfinite(state.user_vectors).all()
    assert state.temperature == 1.0


def test_a_user_moves_away_from_two_bad_responses():
    """Responses 0 and 1 have one kind of text, 2 and 3 the other; the labels are ties but for "both bad"."""
    phi = np.repeat([[1.0, 0.1], [-1.0, 0.1]], 2, axis=0).astype(np.float32)
    ties = Comparisons.build([0, 0], [0, 2], [1, 3], [0.5, 0.5])
    config = SHORT.with_settings(text_dim=2, holdout=0.0)
    bad, tied = (
        fit_graph(world(1, 2, labels), phi, config, seed=0)
        for labels in (replace(ties, both_bad=np.array([True, False])), ties)
    )
    against = Comparisons.build([0, 0], [0, 1], [2, 3], [0.5, 0.5])
    assert (bad.margins(against) < 0).all()
    assert (bad.margins(against) < tied.margins(against)).all()


def test_no_label_and_too_few_embeddings_give_a_sentence():
    with pytest.raises(CoplError, match="no label"):
        fit_graph(world(2, 1, Comparisons.build([], [], [], [])), camp_phi(1), SHORT, seed=0)
    with pytest.raises(CoplError, match="one row per response"):
        fit_graph(camps(), camp_phi(3), SHORT, seed=0)


def test_draws_of_edges_follow_from_ids_alone_and_have_their_share():
    """Somebody who leaves changes the draws of nobody else, and two draws are independent."""
    user, response = (part.ravel() for part in np.meshgrid(np.arange(1, 401), np.arange(7, 207), indexing="ij"))
    edges = torch.as_tensor(edge_hash(user, response))
    first, second = (drawn_edges(edges, torch_generator(seed), 0.3) for seed in (1, 2))
    stay = torch.as_tensor(user != 5)
    assert torch.equal(drawn_edges(edges[stay], torch_generator(1), 0.3), first[stay])
    for found, share in ((first, 0.3), (second, 0.3), (first & second, 0.09), (first[:-1] & first[1:], 0.09)):
        assert abs(found.float().mean().item() - share) < 0.006  # 80,000 edges: four standard deviations
    by_user, by_response = (first.view(400, 200).float().mean(axis) for axis in (1, 0))
    assert 0.1 < by_user.min() < by_user.max() < 0.5 and 0.2 < by_response.min() < by_response.max() < 0.4
