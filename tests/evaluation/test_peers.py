from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.config import Settings
from copl_core.evaluation import methods
from copl_core.evaluation.dataset import EvalDataset, build_dataset, with_swapped_users
from copl_core.evaluation.peer_models import PAL, VPL, Labels, LoRe
from copl_core.evaluation.peers import HEADS, PEERS, PeerFit, standardised, uniform_reward
from copl_core.evaluation.validation import FEWEST_LABELS, matched_split, random_masks, validation_split
from copl_core.features import measure_many
from copl_core.preference.config import GraphConfig
from copl_core.records import Choice, CoplError, ImportRow

PERSONAL = [name for name in HEADS if name not in ("uniform-head", "group-oracle")]
ONE = GraphConfig.build(members=1)


@pytest.fixture(autouse=True)
def one_fit(request, monkeypatch):
    """A peer is one fit here, instead of the mean of several."""
    if "several" not in request.fixturenames:
        monkeypatch.setattr("copl_core.evaluation.peers.GraphConfig", lambda: ONE)


@pytest.fixture
def several():
    """As many fits as the graph has members."""


def rows(users: range, prompts: range, seed: int = 0, ties: int = 0) -> list[ImportRow]:
    """Even users prefer short responses, odd ones long ones; each labels every prompt, the first ``ties`` as ties."""
    rng = np.random.default_rng(seed)
    made = []
    for user in users:
        for prompt in prompts:
            texts = [f"Yes, {prompt}.", f"It is a long story about {prompt}. " * 5]
            left = int(rng.integers(2))
            choice = Choice.LEFT if left == user % 2 else Choice.RIGHT
            made.append(
                ImportRow(
                    len(made) + 1,
                    f"Question {prompt}?",
                    texts[left],
                    texts[1 - left],
                    Choice.TIE if prompt - prompts.start < ties else choice,
                    f"user {user}",
                    true_group=("short", "long")[user % 2],
                    position_known=True,
                )
            )
    return made


def camps(context: int = 0, ties: int = 0) -> EvalDataset:
    """Twelve training users, tested on new prompts, and four new users."""
    return build_dataset(rows(range(12), range(10), ties=ties), rows(range(16), range(10, 16), seed=1), context)


def predicted(dataset: EvalDataset, name: str, seed: int = 0) -> np.ndarray:
    return PEERS[name](dataset, lambda: measure_many([answer for _, answer in dataset.texts]), seed)


def right(dataset: EvalDataset, logits: np.ndarray, new: bool = False) -> float:
    who = (dataset.test.user >= dataset.train.n_users) == new
    return float(((logits > 0) == (dataset.test.outcome > 0.5))[who].mean())


@pytest.mark.parametrize("name", [*PERSONAL, "group-oracle"])
def test_a_peer_that_tells_people_apart_beats_the_one_that_does_not(name):
    dataset = camps()
    assert right(dataset, predicted(dataset, "uniform-head")) < 0.7
    assert right(dataset, predicted(dataset, name)) > 0.9


@pytest.mark.parametrize("name", ["vpl", "pal", "lore"])
def test_new_users_are_predicted_from_their_labels(name):
    given, without = camps(context=4), camps()
    assert right(given, predicted(given, name), new=True) > 0.85
    assert right(without, predicted(without, name), new=True) < 0.7


def eight_labels() -> Labels:
    """One user prefers the first response of each pair."""
    ones = torch.ones(8)
    return Labels(torch.zeros(8, dtype=torch.int64), torch.arange(8), torch.arange(8, 16), ones, ones)


@pytest.mark.parametrize(("kind", "option"), [(LoRe, {"b": 4}), (PAL, {"k": 4})], ids=["lore", "pal"])
def test_a_few_labels_do_not_drive_a_new_user_to_a_corner(kind, option):
    """Without a prior sixty steps take the weights to a corner of the simplex."""
    torch.manual_seed(0)
    peer = kind(6, 30, **option)
    peer.omega.data = 0.3 * torch.randn(30, 4)
    texts = peer.read(3 * torch.randn(20, 6))
    labels = eight_labels()
    mean = torch.softmax(peer.omega.mean(0), 0)
    near, nearer = (
        (peer.new_users(texts, labels, 1, prior_factor=factor)[0] - mean).abs().max() for factor in (1.0, 100.0)
    )
    assert 0 < nearer < near < 0.35


def test_what_the_position_bias_explains_moves_no_new_user():
    torch.manual_seed(0)
    peer = LoRe(6, 12, b=3)
    peer.omega.data = torch.randn(12, 3)
    texts = peer.read(torch.randn(20, 6))
    labels = eight_labels()
    mean = torch.softmax(peer.omega.mean(0), 0)
    without, with_side = ((peer.new_users(texts, labels, 1, side)[0] - mean).abs().max() for side in (0.0, 8.0))
    assert with_side < 0.1 * without
    unknown = replace(labels, known=torch.zeros(8))
    assert (peer.new_users(texts, unknown, 1, 8.0)[0] - mean).abs().max() == without


def test_a_peer_is_the_mean_of_as_many_fits_as_the_graph_has_members(several, monkeypatch):
    dataset, fits, plain = camps(), [], PeerFit.logits

    def recorded(self, split, prior_factor):
        out = plain(self, split, prior_factor)
        if split is dataset:
            fits.append(out)
        return out

    monkeypatch.setattr(PeerFit, "logits", recorded)
    np.testing.assert_allclose(predicted(dataset, "i2e"), np.mean(fits, 0))
    assert len(fits) == GraphConfig().architecture.members > 1
    assert np.abs(fits[0] - fits[1]).max() > 1e-3


def test_new_users_of_a_known_group_need_no_labels():
    dataset = camps()
    assert right(dataset, predicted(dataset, "group-oracle"), new=True) > 0.9


def test_a_new_user_of_i2e_has_the_mean_embedding_whatever_the_labels():
    dataset = camps(context=4)
    turned = replace(dataset, context=replace(dataset.context, outcome=1 - dataset.context.outcome))
    before, after = predicted(dataset, "i2e"), predicted(turned, "i2e")
    new = dataset.test.user >= 12
    np.testing.assert_allclose(before[new], after[new], atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_logits(name):
    dataset = camps(context=2)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(predicted(dataset, name, seed=3), predicted(dataset, name, seed=3))
    assert torch.equal(torch.get_rng_state(), state)  # and leaves others their randomness


@pytest.mark.parametrize("name", ["uniform-head", "vpl"])
def test_ties_teach_nothing(name):
    dataset = camps(ties=3)
    without = replace(dataset, train=dataset.train.with_labels(dataset.train.labels.take(dataset.train.labels.decided)))
    np.testing.assert_array_equal(predicted(dataset, name), predicted(without, name))


def test_what_one_new_person_says_places_nobody_else():
    dataset = camps(context=4)
    who = dataset.context.user != 13
    fewer = replace(dataset, context=dataset.context.take(who))
    moved = np.abs(predicted(dataset, "lore") - predicted(fewer, "lore")) > 1e-6
    assert set(dataset.test.user[moved]) == {13}


def test_a_group_oracle_without_groups_says_so():
    with pytest.raises(CoplError, match="two"):
        predicted(replace(camps(), groups=()), "group-oracle")


def test_weights_of_a_user_are_on_the_simplex():
    dataset = camps()
    x, labels = torch.randn(20, 5), Labels.of(dataset.train.labels)
    peer = LoRe(5, 12, b=3)
    person, _ = peer.users(peer.read(x), labels)
    fresh = peer.new_users(peer.read(x), labels, 14)
    for weights in (person, fresh):
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
        assert (weights >= 0).all()
    torch.testing.assert_close(fresh[12], torch.softmax(peer.omega.mean(0), 0))  # no labels: the mean user


def test_the_posterior_of_a_user_without_labels_is_the_prior():
    dataset = camps()
    labels = Labels.of(dataset.train.labels)
    peer = VPL(5, 14, beta=1.0)
    mean, log_scale = peer._posterior(peer.read(torch.randn(20, 5)), labels, 14)
    assert not mean[12:].any() and not log_scale[12:].any() and mean[:12].all()


@pytest.mark.parametrize("name", HEADS)
def test_a_step_changes_every_parameter(name):
    from copl_core.evaluation import peer_models
    from copl_core.evaluation.peers import group_membership

    dataset = camps()
    torch.manual_seed(0)
    cls = getattr(peer_models, HEADS[name])
    more = {"member": group_membership(dataset)} if name == "group-oracle" else {}
    peer = cls(6, 12, **cls.options[0], **more)
    fitted = PeerFit(peer, torch.randn(32, 6), Labels.of(dataset.train.labels), decay=0.0)
    before = {key: value.clone() for key, value in peer.state_dict().items()}
    fitted.train(2)
    assert [key for key, value in peer.state_dict().items() if torch.equal(value, before[key])] == []
    assert fitted.side != 0 and bool(fitted.user_side.any()) == peer.personal


def test_validation_labels_keep_a_pair_on_one_side():
    labels = camps().train.labels
    turned = replace(labels, left=labels.right, right=labels.left)
    held = random_masks(labels, 0)[1]
    np.testing.assert_array_equal(held, random_masks(turned, 0)[1])
    assert 0.05 < held.mean() < 0.3


def kinds(dataset: EvalDataset) -> tuple[float, float]:
    return dataset.new_text.mean(), dataset.new_user.mean()


def test_options_are_chosen_on_new_prompts_and_new_users_where_those_are_tested():
    people, prompts = range(20), range(20)
    new_prompts = build_dataset(rows(people, prompts), rows(people, range(20, 26)))
    new_users = build_dataset(rows(people, prompts), rows(range(20, 24), prompts), 3)
    splits = {name: validation_split(dataset, 0) for name, dataset in (("prompts", new_prompts), ("users", new_users))}
    for name, kind in (("prompts", "new_text"), ("users", "new_user")):
        split = splits[name]
        assert not split.weight[~getattr(split, kind)].any()  # only labels like the test labels count
        np.testing.assert_allclose(split.weight.sum(), 1)
        assert (split.weight > 0).sum() >= FEWEST_LABELS
        np.testing.assert_array_equal(split.text_rows[: split.train.n_responses], split.train.response_ids)
    counts = np.bincount(splits["users"].context.user)
    assert set(counts[counts > 0]) == {3} and not len(splits["prompts"].context)


def test_kinds_of_labels_have_the_same_weight_as_among_the_test_labels():
    both = build_dataset(
        rows(range(20), range(20)), rows(range(10), range(10), seed=1) + rows(range(10), range(20, 30), seed=2)
    )
    split = validation_split(both, 0)
    np.testing.assert_allclose(split.weight @ split.new_text, 0.5)


def test_where_nothing_new_is_tested_options_are_chosen_on_a_random_part():
    dataset = build_dataset(rows(range(12), range(10)), rows(range(12), range(10), seed=1))
    assert matched_split(dataset, 0) is None
    split, (learned, held) = validation_split(dataset, 0), random_masks(dataset.train.labels, 0)
    np.testing.assert_array_equal(split.test.left, dataset.train.labels.left[held])
    np.testing.assert_array_equal(split.train.labels.left, dataset.train.labels.left[learned])
    assert kinds(split) == (0, 0) and split.train.n_users == dataset.train.n_users


def test_a_control_changes_no_validation_label():
    dataset = camps(context=2)
    plain, doubled = validation_split(dataset, 0), validation_split(with_swapped_users(dataset, 0), 0)
    np.testing.assert_array_equal(plain.weight, doubled.weight)


@pytest.mark.parametrize("name", ["uniform-head", "lore"])
def test_a_peer_chooses_on_validation_labels_like_the_test_labels(name, monkeypatch):
    seen, plain = [], PeerFit.stop_early
    monkeypatch.setattr(PeerFit, "stop_early", lambda self, split: seen.append(split) or plain(self, split))
    predicted(build_dataset(rows(range(12), range(10)), rows(range(12), range(10, 16), seed=1)), name)
    assert seen and all(split.new_text[split.weight > 0].all() for split in seen)


def test_states_are_scaled_by_the_texts_of_training_alone():
    phi = np.random.default_rng(0).normal(3, 2, (10, 4))
    phi[8:] += 50
    x = standardised(phi, 8).numpy()
    np.testing.assert_allclose(x[:8].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x[:8].std(0), 1, atol=1e-5)


def test_naming_the_peers_imports_no_torch():
    code = "import sys, copl_core.evaluation.peers; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["uniform", "copl-reward"])
def test_a_reward_model_without_a_second_to_learn_in_is_refused(name):
    known = methods.Methods(Settings(reward_budget_seconds=0))
    with pytest.raises(CoplError, match=f"{name} got 0 seconds .* needs .* leave {name} out"):
        known.run(name, camps(), lambda: np.zeros((0, 0)), 0)


@pytest.mark.weights
def test_the_uniform_reward_model_knows_texts_and_no_users(minilm, tmp_path):
    settings = Settings(home=tmp_path, reward_budget_seconds=3.0)
    settings.weights.symlink_to(minilm.parent, target_is_directory=True)
    dataset = camps()
    logits = uniform_reward(dataset, lambda: np.zeros((0, 0)), 0, settings)
    assert logits.shape == (len(dataset.test),) and np.isfinite(logits).all()
    pairs = np.stack([np.minimum(dataset.test.left, dataset.test.right), dataset.test.left < dataset.test.right], 1)
    for pair in np.unique(pairs, axis=0):
        same = logits[(pairs == pair).all(1)]
        np.testing.assert_allclose(same, same[0], atol=1e-5)  # the same for every user
