"""The reward of one user as a classification model of transformers, loaded and called with stock code alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from copl_core.records import CoplError
from copl_core.reward import classifier
from copl_core.reward.backbone import load_backbone
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.turns import Turn, text_of
from tests.reward.test_model import TEXTS, _lively

pytest_plugins = "tests.reward.tiny"

USERS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


def lively(tiny_config, shared=None, **changes) -> RewardModel:
    config = RewardConfig(**{**vars(tiny_config), **changes})
    backbone = shared or load_backbone(config.backbone, None, config.last_layers)
    torch.manual_seed(0)  # of the weights that are drawn, whatever ran before
    model = _lively(RewardModel(config, backbone, d_user=5))
    with torch.no_grad():
        model.head.bias.fill_(0.3)
        model.calibration.fill_(1.7)
    return model


@pytest.fixture(params=[{}, {"gate": "layer"}, {"published": True}, {"n_experts": 0}], ids=str)
def model(tiny_config, request) -> RewardModel:
    return lively(tiny_config, **request.param)


def written(model: RewardModel, folder, users=USERS[:1]) -> tuple[torch.Tensor, float]:
    factors = classifier.expert_factors(model, users)
    return factors, classifier.write_classifier(model, factors, model.config.backbone, folder)


def test_stock_code_gives_the_rewards_of_the_studio_to_a_constant(model, tmp_path):
    factors, constant = written(model, tmp_path)
    found = classifier.stock_rewards(tmp_path, TEXTS)
    own = classifier.exact_rewards(model, TEXTS, factors)
    np.testing.assert_allclose(found + constant, own, atol=1e-4)
    paper = model.rewards(TEXTS, USERS[:1], exact=True)[0] / float(model.calibration)
    np.testing.assert_allclose(own, paper, atol=5e-3)  # whose lower states are stored in half precision
    assert (constant == 0) == (not model.backbone.causal) and own.std() > 0.01


def test_turns_of_a_conversation_are_read_as_the_studio_reads_them(model, tmp_path):
    factors, constant = written(model, tmp_path)
    turns = [Turn("system", "sand"), Turn("user", "the sea"), Turn("assistant", "wave"), Turn("user", "a boat")]
    texts = [(text_of(turns), "harbour and tide"), (text_of(turns[:2]), "peak ridge")]
    found = classifier.stock_rewards(tmp_path, texts)
    np.testing.assert_allclose(found + constant, classifier.exact_rewards(model, texts, factors), atol=1e-4)


def test_a_chat_template_reads_messages_as_an_encoder_reads_a_prompt_and_a_response(
    tiny_config, tiny_encoder, tmp_path
):
    model = lively(tiny_config, backbone=str(tiny_encoder))
    written(model, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    system, question = Turn("system", "sand"), Turn("user", "the sea")
    for turns in ([question], [system, question], [question, Turn("assistant", "wave"), Turn("user", "a boat")]):
        both = [*turns, Turn("assistant", "harbour and tide")]
        chat = [{"role": turn.role, "content": turn.text} for turn in both]
        found = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
        assert [found] == model.backbone.encode([(text_of(turns), both[-1].text)], 64)


def test_padding_on_either_side_and_a_batch_change_no_reward(model, tmp_path):
    written(model, tmp_path)
    alone = classifier.stock_rewards(tmp_path, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for side in ("right", "left") if model.backbone.causal else ("right",):
        tokenizer.padding_side = side
        if tokenizer.chat_template:
            chats = [[{"role": "user", "content": p}, {"role": "assistant", "content": r}] for p, r in TEXTS]
            ids = tokenizer(
                [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats],
                add_special_tokens=False, padding=True, return_tensors="pt",
            )  # fmt: skip
        else:
            ids = tokenizer(*map(list, zip(*TEXTS, strict=True)), padding=True, return_tensors="pt")
        assert (ids["attention_mask"] == 0).any()
        with torch.no_grad():
            np.testing.assert_allclose(stock(**ids).logits[:, 0].numpy(), alone, atol=1e-4)


def test_large_rewards_pass_the_added_layer_of_an_encoder_unbent(tiny_config, tiny_encoder, tmp_path):
    model = lively(tiny_config, shared=load_backbone(str(tiny_encoder), None, 2), backbone=str(tiny_encoder))
    with torch.no_grad():
        model.head.weight.mul_(40 / np.abs(model.rewards(TEXTS, USERS[:1])).max())
    factors = classifier.expert_factors(model, USERS[:1])
    classifier.write_classifier(model, factors, str(tiny_encoder), tmp_path)
    own = classifier.exact_rewards(model, TEXTS, factors)
    assert np.abs(own).max() > 5
    np.testing.assert_allclose(classifier.stock_rewards(tmp_path, TEXTS), own, atol=1e-4)


def test_the_factors_of_several_users_are_the_mean_of_theirs(model):
    each = torch.stack([classifier.expert_factors(model, USERS[i : i + 1]) for i in range(len(USERS))])
    torch.testing.assert_close(classifier.expert_factors(model, USERS), each.mean(0))
    if model.config.n_experts:
        assert ((each > 0).sum(-1) == 1).all()


def test_an_adapter_of_a_decoder_gives_the_rewards_of_the_merged_model(tiny_config, tiny_decoder, tmp_path):
    config = {"backbone": str(tiny_decoder)}
    for name, users in (("one", USERS[:1]), ("all", USERS)):
        model = lively(tiny_config, **config)
        factors, _ = written(model, tmp_path / name, users)
        rank = classifier.write_adapter(model, factors, str(tiny_decoder), tmp_path / name / "adapter")
        in_use = int((factors > 0).sum(1).max())
        assert rank == model.config.rank * (1 + in_use) and (in_use == 1) == (name == "one")
        base = AutoModelForSequenceClassification.from_pretrained(tiny_decoder, num_labels=1)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        stock = PeftModel.from_pretrained(base, tmp_path / name / "adapter").eval()
        found = [classifier._stock_reward(stock, tokenizer, text) for text in TEXTS]
        np.testing.assert_allclose(found, classifier.stock_rewards(tmp_path / name, TEXTS), atol=1e-4)


def test_a_roberta_has_its_head_elsewhere_and_the_same_rewards(tiny_config, tiny_encoder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2, pad_token_id=tokenizer.pad_token_id, type_vocab_size=2,
    )  # fmt: skip
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = lively(tiny_config, backbone=str(tmp_path / "base"))
    factors, _ = written(model, tmp_path / "out")
    own = classifier.exact_rewards(model, TEXTS, factors)
    np.testing.assert_allclose(classifier.stock_rewards(tmp_path / "out", TEXTS), own, atol=1e-4)


def test_an_encoder_that_no_stock_class_can_express_is_refused_in_a_sentence(tiny_config, tiny_encoder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    DistilBertModel(DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=3, n_heads=2, hidden_dim=64)) \
        .save_pretrained(tmp_path / "base")  # fmt: skip
    tokenizer.save_pretrained(tmp_path / "base")
    model = lively(tiny_config, backbone=str(tmp_path / "base"))
    with pytest.raises(CoplError, match="an encoder of the type distilbert.* choose such a backbone, or a decoder"):
        written(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
