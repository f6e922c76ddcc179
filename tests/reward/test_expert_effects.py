"""What single experts add to rewards, on tiny models with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl_core.records import CoplError
from copl_core.reward.expert_effects import expert_effects
from copl_core.reward.model import RewardConfig, RewardModel
from tests.reward.tiny import MOUNTAIN, SEA

pytest_plugins = "tests.reward.tiny"

TEXTS = [
    ("tell me about the sea", " ".join(SEA)),
    ("tell me about the sea", " ".join(MOUNTAIN[:4])),
    ("tell me about a boat", " ".join(SEA[:3])),
]


@pytest.fixture
def model(tiny_config, tiny_backbone):
    return with_random_experts(RewardModel(tiny_config, tiny_backbone, 5))


def with_random_experts(model: RewardModel) -> RewardModel:
    """The same model with experts that change rewards."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.adapter_state().items():
            if "lora_expert_B" in name:
                tensor.normal_(std=0.3)
    return model


def test_an_expert_adds_what_its_average_person_gets_over_the_shared_part(model):
    users = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    weight, top = torch.from_numpy(model.gates(users)).max(-1)
    effects = expert_effects(model, TEXTS)
    assert effects.shape == (4, 3) and np.abs(effects).max() > 1e-4
    rewards = model.rewards(TEXTS, users)
    for user in range(6):
        for other in range(6):  # the shared part is the same for both and falls out of the difference
            ours = (weight[user, 0] / model.reference[0, top[user, 0]]).item() * effects[top[user, 0]]
            theirs = (weight[other, 0] / model.reference[0, top[other, 0]]).item() * effects[top[other, 0]]
            assert rewards[user] - rewards[other] == pytest.approx(ours - theirs, abs=2e-4)


def test_untrained_experts_add_nothing_and_no_texts_give_an_empty_table(tiny_config, tiny_backbone):
    fresh = RewardModel(tiny_config, tiny_backbone, 5)
    assert np.abs(expert_effects(fresh, TEXTS)).max() < 1e-6
    assert expert_effects(fresh, []).shape == (4, 0)


def test_with_a_gate_per_layer_each_layer_acts_alone(tiny_config, tiny_backbone):
    config = RewardConfig(
        **{
            **{
                name: getattr(tiny_config, name)
                for name in ("backbone", "last_layers", "n_experts", "rank", "alpha", "max_tokens", "precision")
            },
            "gate": "layer",
        }
    )
    model = with_random_experts(RewardModel(config, tiny_backbone, 5))
    lower, upper = expert_effects(model, TEXTS, 0), expert_effects(model, TEXTS, 1)
    assert lower.shape == upper.shape == (4, 3) and np.abs(lower - upper).max() > 1e-5


def test_a_gate_that_is_not_there_is_refused_in_a_sentence(model, tiny_backbone):
    with pytest.raises(CoplError, match="no gate 1: the model has 1"):
        expert_effects(model, TEXTS, 1)
