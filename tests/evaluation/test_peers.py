from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.config import Settings
from copl_core.evaluation import methods, peers
from copl_core.evaluation.dataset import EvalDataset, build_world, with_strangers
from copl_core.evaluation.peer_models import PAL, VPL, Labels, LoRe
from copl_core.evaluation.peers import HEADS, PEERS, Fitted, held_out, imitation, standardised, tried_on, uniform_reward
from copl_core.features import measure_many
from copl_core.preference.state import GraphConfig
from copl_core.records import Choice, CoplError, ImportRow

PERSONAL = [name for name in HEADS if name not in ("uniform-head", "group-oracle")]


def rows(users: range, prompts: range, seed: int = 0, ties: int = 0) -> list[ImportRow]:
    """Even users like short answers, odd ones long ones; each answers every prompt, and ties some of them at first."""
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
                )
            )
    return made


def camps(context: int = 0, ties: int = 0) -> EvalDataset:
    """Twelve people learned from, asked about new prompts, and four new ones."""
    return build_world(rows(range(12), range(10), ties=ties), rows(range(16), range(10, 16), seed=1), context)


def asked(world: EvalDataset, name: str, seed: int = 0) -> np.ndarray:
    return PEERS[name](world, lambda: measure_many([answer for _, answer in world.texts]), seed)


def right(world: EvalDataset, logits: np.ndarray, new: bool = False) -> float:
    who = (world.asked.user >= world.train.n_users) == new
    return float(((logits > 0) == (world.asked.outcome > 0.5))[who].mean())


@pytest.mark.parametrize("name", [*PERSONAL, "group-oracle"])
def test_a_peer_that_tells_people_apart_beats_the_one_that_does_not(name):
    world = camps()
    assert right(world, asked(world, "uniform-head")) < 0.7
    assert right(world, asked(world, name)) > 0.9


@pytest.mark.parametrize("name", ["vpl", "pal", "lore"])
def test_new_people_are_understood_from_what_they_say(name):
    told, untold = camps(context=4), camps()
    assert right(told, asked(told, name), new=True) > 0.85
    assert right(untold, asked(untold, name), new=True) < 0.7


@pytest.mark.parametrize("peer", [LoRe(6, 30, b=4), PAL(6, 30, k=4)])
def test_a_few_labels_do_not_drive_a_new_person_where_nobody_is(peer):
    """Without a prior sixty steps take the weights to a corner of the simplex."""
    torch.manual_seed(0)
    peer.omega.data = 0.3 * torch.randn(30, 4)
    texts = peer.read(3 * torch.randn(20, 6))
    labels = Labels(torch.zeros(8, dtype=torch.int64), torch.arange(8), torch.arange(8, 16), torch.ones(8))
    mean = torch.softmax(peer.omega.mean(0), 0)
    near, nearer = ((peer.newcomers(texts, labels, 1, firm=firm)[0] - mean).abs().max() for firm in (1.0, 100.0))
    assert 0 < nearer < near < 0.35


def test_what_the_left_side_explains_says_nothing_of_a_new_person():
    torch.manual_seed(0)
    peer = LoRe(6, 12, b=3)
    peer.omega.data = torch.randn(12, 3)
    texts = peer.read(torch.randn(20, 6))
    labels = Labels(torch.zeros(8, dtype=torch.int64), torch.arange(8), torch.arange(8, 16), torch.ones(8))
    mean = torch.softmax(peer.omega.mean(0), 0)
    untold, told = ((peer.newcomers(texts, labels, 1, side)[0] - mean).abs().max() for side in (0.0, 8.0))
    assert told < 0.1 * untold


def test_a_peer_is_the_mean_of_as_many_fits_as_the_graph_has_members(monkeypatch):
    world, said, plain = camps(), [], Fitted.logits

    def heard(self, asked_of, firm):
        out = plain(self, asked_of, firm)
        if asked_of is world:
            said.append(out)
        return out

    monkeypatch.setattr(Fitted, "logits", heard)
    np.testing.assert_allclose(asked(world, "i2e"), np.mean(said, 0))
    assert len(said) == GraphConfig().members > 1
    assert np.abs(said[0] - said[1]).max() > 1e-3


def test_new_people_of_a_known_group_need_no_labels():
    world = camps()
    assert right(world, asked(world, "group-oracle"), new=True) > 0.9


def test_a_new_person_of_i2e_is_the_mean_embedding_whatever_they_say():
    world = camps(context=4)
    turned = replace(world, context=replace(world.context, outcome=1 - world.context.outcome))
    before, after = asked(world, "i2e"), asked(turned, "i2e")
    new = world.asked.user >= 12
    np.testing.assert_allclose(before[new], after[new], atol=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_the_same_seed_gives_the_same_logits(name):
    world = camps(context=2)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(asked(world, name, seed=3), asked(world, name, seed=3))
    assert torch.equal(torch.get_rng_state(), state)  # and leaves others their randomness


@pytest.mark.parametrize("name", ["uniform-head", "vpl"])
def test_ties_teach_nothing(name):
    world = camps(ties=3)
    without = replace(world, train=world.train.with_labels(world.train.labels.take(world.train.labels.decided)))
    np.testing.assert_array_equal(asked(world, name), asked(without, name))


def test_what_one_new_person_says_places_nobody_else():
    world = camps(context=4)
    who = world.context.user != 13
    fewer = replace(world, context=world.context.take(who))
    moved = np.abs(asked(world, "lore") - asked(fewer, "lore")) > 1e-6
    assert set(world.asked.user[moved]) == {13}


def test_a_group_oracle_without_groups_says_so():
    with pytest.raises(CoplError, match="two"):
        asked(replace(camps(), groups=()), "group-oracle")


def test_weights_of_a_user_are_on_the_simplex():
    world = camps()
    x, labels = torch.randn(20, 5), Labels.of(world.train.labels)
    peer = LoRe(5, 12, b=3)
    person, _ = peer.people(peer.read(x), labels)
    fresh = peer.newcomers(peer.read(x), labels, 14)
    for weights in (person, fresh):
        torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
        assert (weights >= 0).all()
    torch.testing.assert_close(fresh[12], torch.softmax(peer.omega.mean(0), 0))  # no labels: the mean user


def test_the_posterior_of_someone_silent_is_the_prior():
    world = camps()
    labels = Labels.of(world.train.labels)
    peer = VPL(5, 14, beta=1.0)
    mean, log_scale = peer._posterior(peer.read(torch.randn(20, 5)), labels, 14)
    assert not mean[12:].any() and not log_scale[12:].any() and mean[:12].all()


@pytest.mark.parametrize("name", HEADS)
def test_a_step_changes_every_parameter(name):
    from copl_core.evaluation import peer_models
    from copl_core.evaluation.peers import membership

    world = camps()
    torch.manual_seed(0)
    cls = getattr(peer_models, HEADS[name])
    more = {"member": membership(world)} if name == "group-oracle" else {}
    peer = cls(6, 12, **cls.options[0], **more)
    fitted = Fitted(peer, torch.randn(32, 6), Labels.of(world.train.labels), decay=0.0)
    before = {key: value.clone() for key, value in peer.state_dict().items()}
    fitted.train(2)
    assert [key for key, value in peer.state_dict().items() if torch.equal(value, before[key])] == []
    assert fitted.side != 0 and bool(fitted.own_side.any()) == peer.personal


def test_validation_labels_keep_a_pair_on_one_side():
    labels = camps().train.labels
    turned = replace(labels, left=labels.right, right=labels.left)
    held = held_out(labels, 0)
    np.testing.assert_array_equal(held, held_out(turned, 0))
    assert 0.05 < held.mean() < 0.3


def kinds(world: EvalDataset) -> tuple[float, float]:
    return world.new_text.mean(), world.new_user.mean()


def test_options_are_tried_on_new_prompts_and_new_people_where_those_are_asked():
    people, prompts = range(20), range(20)
    new_prompts = build_world(rows(people, prompts), rows(people, range(20, 26)))
    new_people = build_world(rows(people, prompts), rows(range(20, 24), prompts), 3)
    told = {name: tried_on(world, 0) for name, world in (("prompts", new_prompts), ("people", new_people))}
    for name, kind in (("prompts", "new_text"), ("people", "new_user")):
        trial = told[name]
        assert not trial.weight[~getattr(trial, kind)].any()  # only what is really asked counts
        np.testing.assert_allclose(trial.weight.sum(), 1)
        assert (trial.weight > 0).sum() >= peers.FEWEST_HELD
        np.testing.assert_array_equal(trial.text_rows[: trial.train.n_responses], trial.train.response_ids)
    counts = np.bincount(told["people"].context.user)
    assert set(counts[counts > 0]) == {3} and not len(told["prompts"].context)


def test_kinds_of_labels_count_in_a_trial_as_they_do_among_the_asked():
    both = build_world(
        rows(range(20), range(20)), rows(range(10), range(10), seed=1) + rows(range(10), range(20, 30), seed=2)
    )
    trial = tried_on(both, 0)
    np.testing.assert_allclose(trial.weight @ trial.new_text, 0.5)


def test_where_nothing_new_is_asked_options_are_tried_on_labels_drawn_at_random():
    world = build_world(rows(range(12), range(10)), rows(range(12), range(10), seed=1))
    assert imitation(world, 0) is None
    trial, held = tried_on(world, 0), held_out(world.train.labels, 0)
    np.testing.assert_array_equal(trial.test.left, world.train.labels.left[held])
    np.testing.assert_array_equal(trial.train.labels.left, world.train.labels.left[~held])
    assert kinds(trial) == (0, 0) and trial.train.n_users == world.train.n_users


def test_a_control_changes_nothing_in_what_options_are_tried_on():
    world = camps(context=2)
    plain, doubled = tried_on(world, 0), tried_on(with_strangers(world, 0), 0)
    np.testing.assert_array_equal(plain.weight, doubled.weight)


@pytest.mark.parametrize("name", ["uniform-head", "lore"])
def test_a_peer_chooses_on_the_kind_of_labels_that_are_asked(name, monkeypatch):
    seen, plain = [], Fitted.until_best
    monkeypatch.setattr(Fitted, "until_best", lambda self, trial: seen.append(trial) or plain(self, trial))
    asked(build_world(rows(range(12), range(10)), rows(range(12), range(10, 16), seed=1)), name)
    assert seen and all(trial.new_text[trial.weight > 0].all() for trial in seen)


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
def test_the_uniform_reward_model_knows_texts_and_nobody(minilm, tmp_path):
    settings = Settings(home=tmp_path, reward_budget_seconds=3.0)
    settings.weights.symlink_to(minilm.parent, target_is_directory=True)
    world = camps()
    said = uniform_reward(world, lambda: np.zeros((0, 0)), 0, settings)
    assert said.shape == (len(world.asked),) and np.isfinite(said).all()
    pairs = np.stack([np.minimum(world.asked.left, world.asked.right), world.asked.left < world.asked.right], 1)
    for pair in np.unique(pairs, axis=0):
        same = said[(pairs == pair).all(1)]
        np.testing.assert_allclose(same, same[0], atol=1e-5)  # whoever is asked
