"""Routes: which experts serve a user, and the passes that many users share; on tiny models with random weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.records import Comparisons, CoplError
from copl_core.reward import classifier
from copl_core.reward.backbone import load_backbone
from copl_core.reward.expert_effects import expert_effects
from copl_core.reward.gates import SavedGate
from copl_core.reward.margins import Margins, all_tokens
from copl_core.reward.model import RewardModel
from copl_core.reward.routes import chosen
from tests.reward.test_model import TEXTS, _lively

pytest_plugins = "tests.reward.tiny"

PROMPTS = [prompt for prompt, _ in TEXTS]
FORMS = [
    {"routing": "top1"},
    {"routing": "top2"},
    {"routing": "soft"},
    {"routing": "top2", "published": True},
    {"routing": "soft", "gate": "layer"},
    {"gate_input": "user+prompt"},
    {"routing": "top2", "gate_input": "user+prompt", "gate": "layer"},
]


@pytest.fixture(params=FORMS, ids=str)
def model(tiny_config, tiny_backbone, request) -> RewardModel:
    return lively(tiny_config, tiny_backbone, **request.param)


def lively(tiny_config, backbone, **changes) -> RewardModel:
    """A model whose experts differ, with the normaliser of its users and prompts."""
    torch.manual_seed(0)  # equal changes of equal shapes give equal models
    model = _lively(RewardModel(replace(tiny_config, **changes), backbone, 5))
    with torch.no_grad():
        for parameter in model.gate.parameters():
            parameter.mul_(0.3)  # no gate is so sure that only one expert counts
    model.fit_normaliser(crowd() + 1)
    model.fit_prompts(PROMPTS)
    model.reference.copy_(torch.linspace(0.2, 0.8, model.reference.numel()).reshape(model.reference.shape))
    return model


def crowd(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)


@pytest.fixture
def p() -> torch.Tensor:
    return torch.softmax(2 * torch.randn(30, 2, 4, generator=torch.Generator().manual_seed(0)), -1)


def test_one_expert_has_its_probability_and_several_share_one(p):
    one, two, all_of = (chosen(p, routing) for routing in ("top1", "top2", "soft"))
    assert one[0].shape == (30, 2, 1) and torch.equal(one[0][..., 0], p.max(-1).values)
    assert two[0].shape == (30, 2, 2) and torch.equal(two[1][..., :1], one[1])
    torch.testing.assert_close(two[0].sum(-1), torch.ones(30, 2))
    torch.testing.assert_close(
        two[0][..., 0] / two[0][..., 1], p.topk(2, -1).values[..., 0] / p.topk(2, -1).values[..., 1]
    )
    torch.testing.assert_close(all_of[0].sum(-1), torch.ones(30, 2))


def test_the_two_largest_of_two_experts_are_all_experts(tiny_config, tiny_backbone):
    users, rewards = crowd(), []
    for routing in ("top2", "soft"):
        model = lively(tiny_config, tiny_backbone, n_experts=2, routing=routing)
        rewards += [model.rewards(TEXTS, users), model.rewards(TEXTS, users, exact=True)]
    np.testing.assert_allclose(rewards[0], rewards[2], atol=1e-5)
    np.testing.assert_allclose(rewards[1], rewards[3], atol=1e-4)
    assert np.ptp(rewards[0], axis=0).min() > 0.01


def test_training_margins_are_differences_of_served_rewards(model):
    users = crowd()
    rewards = model.rewards(TEXTS, users)
    labels = Comparisons.build(np.arange(40), np.arange(40) % 3, (np.arange(40) + 1) % 3, np.ones(40))
    margins = Margins(model, dict(enumerate(model.cache.get(TEXTS))))
    one_prompt = [(PROMPTS[0], response) for _, response in TEXTS]  # a label compares answers to one prompt
    if model.sees_prompt:
        rewards = model.rewards(one_prompt, users)
        margins = Margins(model, dict(enumerate(model.cache.get(one_prompt))))
    p = torch.from_numpy(model.gates(users, PROMPTS[:1]))
    found = margins.of(labels, p, all_tokens).detach().numpy()
    rows = np.arange(40)
    np.testing.assert_allclose(found, rewards[rows, labels.left] - rewards[rows, labels.right], atol=1e-4)
    assert np.abs(found).max() > 0.1


def test_a_served_reward_is_the_shared_one_and_the_parts_of_the_experts(tiny_config, tiny_backbone):
    for routing in ("top1", "top2", "soft"):
        model, users = lively(tiny_config, tiny_backbone, routing=routing), crowd()
        with torch.no_grad():
            weight, expert = chosen(torch.from_numpy(model.gates(users)), routing)
        part = torch.zeros(40, 4).scatter(1, expert[:, 0], weight[:, 0]) / model.reference[0]
        added = part.numpy() @ expert_effects(model, TEXTS)
        rewards = model.rewards(TEXTS, users)
        np.testing.assert_allclose(rewards - rewards[:1], added - added[:1], atol=2e-4)


def test_many_users_cost_at_most_one_pass_per_expert_and_one_more(model):
    rows = []
    model.upper.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    model.rewards(TEXTS, crowd(400))
    n_gates, n_experts = model.reference.shape
    assert len(TEXTS) < sum(rows) <= len(TEXTS) * (n_gates * n_experts + 1)


def test_the_exact_form_has_all_experts_of_a_user_in_one_pass_as_a_stock_model_has_them(tiny_config, tmp_path, nothing):
    for routing in ("top2", "soft"):
        model = lively(tiny_config, load_backbone(tiny_config.backbone, nothing, 2), routing=routing)
        factors = classifier.expert_factors(model, crowd(1))
        assert int((factors > 0).sum()) == {"top2": 2, "soft": 4}[routing]
        exact = model.rewards(TEXTS, crowd(1), exact=True)[0]
        np.testing.assert_allclose(classifier.exact_rewards(model, TEXTS, factors), exact, atol=5e-3)
        constant = classifier.write_classifier(model, factors, model.config.backbone, tmp_path / routing)
        found = classifier.stock_rewards(tmp_path / routing, TEXTS) + constant
        np.testing.assert_allclose(found, classifier.exact_rewards(model, TEXTS, factors), atol=1e-4)


def test_the_order_of_texts_and_users_is_kept(model):
    rewards = model.rewards(TEXTS, crowd())
    np.testing.assert_allclose(model.rewards(TEXTS[::-1], crowd()[::-1])[::-1, ::-1], rewards, atol=1e-4)


def test_a_saved_model_has_the_same_rewards_and_its_gate_in_numpy_the_same_routes(model, tmp_path, nothing):
    model.save(tmp_path)
    back, users = RewardModel.load(tmp_path, nothing), crowd()
    assert back.config == model.config
    np.testing.assert_array_equal(back.rewards(TEXTS, users), model.rewards(TEXTS, users))
    gate, p = SavedGate.load(tmp_path), model.gates(users)
    np.testing.assert_allclose(gate(users), p, rtol=1e-3, atol=1e-6)
    assert gate.sees_prompt == model.sees_prompt and gate.routing == model.config.routing
    weight, expert = chosen(torch.from_numpy(p), model.config.routing)
    routed = torch.zeros(p.shape).scatter(-1, expert, weight)
    np.testing.assert_allclose(gate.weights(users), routed, rtol=1e-3, atol=1e-6)


def test_a_model_of_an_earlier_version_opens_and_serves_as_before(tiny_config, tiny_backbone, tmp_path, nothing):
    model = lively(tiny_config, tiny_backbone)
    model.save(tmp_path)
    facts = json.loads((tmp_path / "reward.json").read_text())
    del facts["config"]["routing"], facts["config"]["gate_input"]
    (tmp_path / "reward.json").write_text(json.dumps(facts))
    back = RewardModel.load(tmp_path, nothing)
    assert (back.config.routing, back.config.gate_input) == ("top1", "user")
    np.testing.assert_array_equal(back.rewards(TEXTS, crowd()), model.rewards(TEXTS, crowd()))
    np.testing.assert_allclose(SavedGate.load(tmp_path)(crowd()), model.gates(crowd()), rtol=1e-3, atol=1e-6)


def test_a_gate_that_sees_the_prompt_gives_a_user_other_experts_for_another_prompt(tiny_config, tiny_backbone):
    model, users = lively(tiny_config, tiny_backbone, gate_input="user+prompt"), crowd()
    sea, boat = (model.gates(users, [prompt]) for prompt in (PROMPTS[0], PROMPTS[2]))
    assert np.abs(sea - boat).max() > 0.05
    np.testing.assert_allclose(model.gates(users, [PROMPTS[0], PROMPTS[2]]), (sea + boat) / 2, atol=1e-6)
    np.testing.assert_allclose(sea.sum(-1), 1, atol=1e-5)
    blind = lively(tiny_config, tiny_backbone)
    np.testing.assert_array_equal(blind.gates(users, PROMPTS), blind.gates(users))


def test_a_gate_that_sees_the_prompt_has_no_stock_model_and_says_why(tiny_config, tiny_backbone):
    model = lively(tiny_config, tiny_backbone, gate_input="user+prompt")
    with pytest.raises(CoplError, match="reads the prompt"):
        classifier.expert_factors(model, crowd(1))


def test_without_experts_routing_and_prompt_change_nothing(tiny_config, tiny_backbone):
    model = lively(tiny_config, tiny_backbone, n_experts=0, routing="soft", gate_input="user+prompt")
    assert model.gates(crowd()).shape == (40, 1, 0) and not model.sees_prompt
    assert np.ptp(model.rewards(TEXTS, crowd()), axis=0).max() == 0
