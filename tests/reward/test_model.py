from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from copl_core.records import Comparisons, CoplError
from copl_core.reward.backbone import load_backbone
from copl_core.reward.gates import SavedGate
from copl_core.reward.margins import Margins, all_tokens
from copl_core.reward.model import RewardConfig, RewardModel

pytest_plugins = "tests.reward.tiny"

TEXTS = [("tell me about the sea", "wave and tide"), ("the sea", "peak ridge snow"), ("a boat", "harbour boat " * 6)]


@pytest.fixture
def model(tiny_config, tiny_backbone) -> RewardModel:
    """A model whose experts differ, as if trained."""
    return _lively(RewardModel(tiny_config, tiny_backbone, d_user=5))


def _lively(model: RewardModel) -> RewardModel:
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
            elif name.startswith("gate."):
                parameter.normal_()
    return model


@pytest.fixture
def crowd() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


def test_untrained_experts_change_nothing(tiny_config, tiny_backbone, crowd):
    torch.manual_seed(0)
    rewards = RewardModel(tiny_config, tiny_backbone, 5).rewards(TEXTS, crowd)
    np.testing.assert_allclose(rewards, np.tile(rewards[:1], (len(crowd), 1)), atol=1e-5)


def test_users_times_texts_in_their_order(model, crowd):
    rewards = model.rewards(TEXTS, crowd)
    assert rewards.shape == (40, 3) and rewards.dtype == np.float32
    np.testing.assert_allclose(model.rewards(TEXTS[::-1], crowd)[:, ::-1], rewards, atol=1e-5)
    np.testing.assert_allclose(model.rewards(TEXTS, crowd[::-1])[::-1], rewards, atol=1e-5)
    assert len(np.unique(rewards[:, 0].round(4))) > 4  # users of one expert differ by their weight


@pytest.mark.parametrize("exact", [False, True])
def test_many_users_cost_at_most_one_pass_an_expert_and_one_more(model, crowd, exact):
    rows = []
    model.upper.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    model.rewards(TEXTS, crowd, exact=exact)
    if exact:
        assert sum(rows) == len(TEXTS) * len(crowd)
    else:
        assert sum(rows) <= len(TEXTS) * (model.config.n_experts + 1)


def test_the_line_is_exact_at_its_two_ends(model, crowd):
    p = model.gates(crowd)
    top = p[:, 0].argmax(-1)
    one = int(np.flatnonzero(top == top[0])[0])
    model.reference[0, top[one]] = float(p[one, 0].max())  # this user is now the average user of their expert
    user = crowd[one : one + 1]
    np.testing.assert_allclose(model.rewards(TEXTS, user), model.rewards(TEXTS, user, exact=True), atol=1e-4)


def test_a_gate_a_layer_routes_layers_apart(tiny_config, tiny_backbone, crowd):
    model = _lively(RewardModel(replace(tiny_config, gate="layer"), tiny_backbone, 5))
    p = model.gates(crowd)
    assert p.shape == (40, 2, 4)
    assert (p[:, 0].argmax(-1) != p[:, 1].argmax(-1)).any()
    assert np.isfinite(model.rewards(TEXTS, crowd)).all()
    before = model.rewards(TEXTS, crowd[:1], exact=True)
    layers = [m for m in model.upper.modules() if hasattr(m, "lora_expert_B")]
    assert [layer.gate_row for layer in layers] == [0, 0, 1, 1]
    with torch.no_grad():  # an expert of the second layer that only the first gate picks is never used
        layers[2].lora_expert_B["default"][[e for e in range(4) if e != p[0, 1].argmax()]] = 9.0
    np.testing.assert_array_equal(model.rewards(TEXTS, crowd[:1], exact=True), before)


def test_the_published_form_multiplies_the_weight_in_twice(tiny_config, tiny_backbone):
    model = RewardModel(replace(tiny_config, published=True), tiny_backbone, 5)
    assert float(model.strength(torch.tensor(0.5))) == 0.25


def test_a_uniform_model_has_one_reward_for_all(tiny_config, tiny_backbone, crowd, tmp_path):
    model = RewardModel(replace(tiny_config, n_experts=0), tiny_backbone, 5)
    rewards = model.rewards(TEXTS, crowd)
    assert np.ptp(rewards, axis=0).max() == 0
    assert model.gates(crowd).shape == (40, 1, 0)
    model.save(tmp_path)
    assert SavedGate.load(tmp_path)(crowd).shape == (40, 1, 0)


def test_what_is_saved_scores_the_same_to_the_bit(model, crowd, tmp_path, nothing):
    model.fit_normaliser(crowd * 3 + 1)
    model.calibration.fill_(1.7)
    model.metrics = {"accuracy": 0.75}
    model.save(tmp_path / "kept")
    back = RewardModel.load(tmp_path / "kept", nothing)
    assert back.config == model.config and back.metrics == model.metrics
    np.testing.assert_array_equal(back.rewards(TEXTS, crowd), model.rewards(TEXTS, crowd))
    np.testing.assert_array_equal(back.gates(crowd), model.gates(crowd))
    np.testing.assert_allclose(SavedGate.load(tmp_path / "kept")(crowd), model.gates(crowd), rtol=1e-4, atol=1e-7)
    assert torch.equal(back.calibration, model.calibration)


def test_two_models_on_one_backbone_do_not_disturb_each_other(tiny_config, crowd, nothing):
    backbone = load_backbone(tiny_config.backbone, nothing, 2)
    first = _lively(RewardModel(tiny_config, backbone, 5))
    before = first.rewards(TEXTS, crowd)
    second = RewardModel(tiny_config, backbone, 5)
    plain = second.rewards(TEXTS, crowd)
    np.testing.assert_array_equal(first.rewards(TEXTS, crowd), before)
    assert np.ptp(plain, axis=0).max() < 1e-5


def test_many_texts_are_scored_in_parts_and_alike(model, crowd, monkeypatch):
    texts = [*TEXTS, ("the sea", "sand"), ("a boat", "rock and tide")]
    whole = model.rewards(texts, crowd)
    monkeypatch.setattr("copl_core.reward.model.TEXTS_AT_ONCE", 2)
    np.testing.assert_allclose(model.rewards(texts, crowd), whole, atol=1e-4)


def test_no_users_or_no_texts_is_an_empty_answer(model, crowd):
    assert model.rewards([], crowd).shape == (40, 0)
    assert model.rewards(TEXTS, crowd[:0]).shape == (0, 3)


def test_vectors_of_another_width_say_so(model):
    with pytest.raises(CoplError, match=r"\(2, 3\).*\(N, 5\)"):
        model.rewards(TEXTS, np.zeros((2, 3)))
    with pytest.raises(CoplError, match="missing values"):
        model.rewards(TEXTS, np.full((2, 5), np.nan))


def test_layers_that_run_twice_give_the_gradients_of_layers_that_run_once(tiny_config, tiny_backbone, crowd):
    gradients, runs = [], []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        model = _lively(RewardModel(replace(tiny_config, checkpoint=checkpoint), tiny_backbone, 5))
        layer = next(m for m in model.upper.modules() if hasattr(m, "lora_expert_B"))
        layer.register_forward_hook(lambda *_: runs.append(1))
        states = dict(enumerate(model.cache.get(TEXTS)))
        labels = Comparisons.build(np.arange(40), np.arange(40) % 3, (np.arange(40) + 1) % 3, np.ones(40))
        p = model.gate(model.standardise(crowd))
        Margins(model, states).of(labels, p, all_tokens).sigmoid().sum().backward()
        gradients.append({name: one.grad for name, one in model.named_parameters() if one.requires_grad})
    assert len(runs) == 3
    assert all(grad is None or grad.abs().sum() > 0 for name, grad in gradients[0].items() if "expert" in name)
    for name, grad in gradients[0].items():
        if grad is not None:
            torch.testing.assert_close(gradients[1][name], grad, msg=name)


def test_each_backbone_has_defaults_that_a_caller_can_change():
    assert RewardConfig.for_backbone("minilm") == RewardConfig()
    small, other = RewardConfig.for_backbone("smollm2"), RewardConfig.for_backbone("some/decoder", lr=1e-4)
    assert (small.backbone, small.train_tokens, small.patience) == ("smollm2", 64, 20)
    assert (other.backbone, other.lr, other.train_tokens) == ("some/decoder", 1e-4, 64)


def test_a_folder_without_a_model_says_so(tmp_path, nothing):
    with pytest.raises(CoplError, match="no reward model"):
        RewardModel.load(tmp_path, nothing)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("gate", "none"), ("routing", "top3"), ("gate_input", "none"), ("holdout", 1.0), ("lr", 0.0)],
)
def test_a_config_is_checked_at_birth(field, value):
    with pytest.raises(CoplError, match=field):
        RewardConfig(**{field: value})
