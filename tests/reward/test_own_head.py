"""A reward-trained model as backbone: its own score before training, its own class after."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

from copl_core.records import Comparisons, CoplError, TrainingData
from copl_core.reward import classifier
from copl_core.reward.backbone import load_backbone
from copl_core.reward.model import RewardConfig, RewardModel
from copl_core.reward.start import probed_heads
from copl_core.training.reward_fit import fit_reward
from tests.reward.test_model import _lively

pytest_plugins = "tests.reward.tiny"

PAIRS = [
    ("tell me about the sea", "wave and tide"), ("tell me about the sea", "peak ridge snow"),
    ("a boat", "harbour boat " * 4), ("a boat", "sand"), ("the summit", "rock and rock"),
    ("the summit", "a valley of snow"),
]  # fmt: skip
USERS = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
SIZE = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 96, "initializer_range": 0.3, "num_labels": 1,
}  # fmt: skip
TURNS = "{% for m in messages %}<|start|> {{ m.role }} {{ m.content }} <|end|>\n{% endfor %}"
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
CONFIGS = {
    "llama": lambda size: LlamaConfig(**size, num_key_value_heads=1),
    "qwen2": lambda size: Qwen2Config(**size, num_key_value_heads=1),
    "bert": lambda size: BertConfig(**size),
    "roberta": lambda size: RobertaConfig(**size, type_vocab_size=2),
    "deberta-v2": lambda size: DebertaV2Config(**size, **DEBERTA),
    "deberta-v3": lambda size: DebertaV2Config(**size, **DEBERTA, norm_rel_ebd="layer_norm", position_buckets=8,
                                               share_att_key=True),
    "modernbert": lambda size: ModernBertConfig(**size, classifier_pooling="mean", global_attn_every_n_layers=2),
    "distilbert": lambda size: DistilBertConfig(vocab_size=size["vocab_size"], dim=32, n_layers=3, n_heads=2,
                                                hidden_dim=64, initializer_range=0.3, num_labels=1),
}  # fmt: skip
CAUSAL = ("llama", "qwen2")


def reward_trained(kind: str, source: Path, folder: Path, **changes) -> Path:
    """A random model for sequence classification with one label, and the tokenizer of a tiny backbone."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    if kind == "qwen2":
        tokenizer = of_bytes()
    if kind in CAUSAL:  # a template that ends with white space after its last token, which is the padding token
        tokenizer.chat_template = TURNS
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = CONFIGS[kind]({**SIZE, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | changes)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "norm" not in name.lower():
                parameter.normal_(std=0.3)  # biases of zero would hide that one is lost
    model.save_pretrained(folder)
    return folder


def of_bytes() -> PreTrainedTokenizerFast:
    """A tokenizer of the kind that Qwen has, learned from a few words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|end|>", "<|start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(text) for text in PAIRS] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|end|>", eos_token="<|end|>")


@pytest.fixture(params=list(CONFIGS))
def trained(request, tiny_encoder, tiny_decoder, tmp_path) -> Path:
    causal = request.param in CAUSAL
    return reward_trained(request.param, tiny_decoder if causal else tiny_encoder, tmp_path / "trained")


def own_scores(folder: Path, texts) -> np.ndarray:
    """The scores of the model by stock code, called as its card would say."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for prompt, response in texts:
        if tokenizer.chat_template:
            chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
            ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
        else:
            ids = tokenizer(prompt, response, return_tensors="pt")
        with torch.no_grad():
            scores.append(float(model(**ids).logits[0, 0]))
    return np.array(scores)


def untrained(folder: Path, **changes) -> RewardModel:
    config = RewardConfig(**{"backbone": str(folder), "n_experts": 3, "rank": 2, "max_tokens": 64,
                             "precision": "float32"} | changes)  # fmt: skip
    return RewardModel(config, load_backbone(str(folder), None, config.last_layers), 5)


def test_before_training_the_reward_is_the_models_own_score(trained):
    model, own = untrained(trained), own_scores(trained, PAIRS)
    assert own.std() > 0.05 and model.config.own_head
    exact = classifier.exact_rewards(model, PAIRS, classifier.expert_factors(model, USERS[:1]))
    np.testing.assert_allclose(exact, own, atol=2e-5)
    rewards = model.rewards(PAIRS, USERS)  # whose lower states are stored in half precision
    np.testing.assert_allclose(rewards - rewards[:, :1], np.tile(own - own[0], (len(USERS), 1)), atol=2e-2)


def test_experts_add_to_it_in_as_many_passes_as_ever(trained):
    model = _lively(untrained(trained))
    rows = []
    model.upper.register_forward_pre_hook(
        lambda _, args, named: rows.append(len(named["inputs_embeds"])), with_kwargs=True
    )
    found = model.rewards(PAIRS, USERS)
    assert sum(rows) <= len(PAIRS) * (model.config.n_experts + 1)
    assert np.abs(found - found[:1]).max() > 1e-3 and np.abs(found - own_scores(trained, PAIRS)).max() > 1e-2


def test_a_saved_model_comes_back_and_is_written_as_its_own_class(trained, tmp_path):
    model = _lively(untrained(trained))
    with torch.no_grad():
        model.calibration.fill_(1.7)
    model.save(tmp_path / "saved")
    again = RewardModel.load(tmp_path / "saved", None)
    np.testing.assert_array_equal(again.rewards(PAIRS, USERS), model.rewards(PAIRS, USERS))
    factors = classifier.expert_factors(model, USERS[:1])
    constant = classifier.write_classifier(model, factors, str(trained), tmp_path / "out")
    stock = classifier.stock_rewards(tmp_path / "out", PAIRS, own_head=True)
    np.testing.assert_allclose(stock + constant, classifier.exact_rewards(model, PAIRS, factors), atol=1e-4)
    assert (
        AutoConfig.from_pretrained(tmp_path / "out").architectures == AutoConfig.from_pretrained(trained).architectures
    )


def test_a_reward_model_of_an_earlier_version_is_served_without_the_head(tiny_encoder, tmp_path):
    trained = reward_trained("bert", tiny_encoder, tmp_path / "trained")
    plain = load_backbone(str(trained), None, 2, own_head=False)
    config = RewardConfig(backbone=str(trained), n_experts=3, max_tokens=48, precision="float32")
    model = RewardModel(config, plain, 5)
    model.save(tmp_path / "saved")
    facts = json.loads((tmp_path / "saved" / "reward.json").read_text())
    assert facts["config"].pop("own_head") is False
    (tmp_path / "saved" / "reward.json").write_text(json.dumps(facts))
    again = RewardModel.load(tmp_path / "saved", None, backbone=load_backbone(str(trained), None, 2))
    assert again.backbone.own_head is None
    np.testing.assert_array_equal(again.rewards(PAIRS, USERS), model.rewards(PAIRS, USERS))
    assert not plain.is_for(str(trained), 2, own_head=True) and plain.is_for(str(trained), 2, own_head=False)


def by_own_score(folder: Path, data: TrainingData, n: int) -> TrainingData:
    """``n`` labels of ``data`` that everybody gives by the score of the model."""
    scores, labels = own_scores(folder, data.texts()), data.labels.take(np.arange(n))
    outcome = scores[labels.left] > scores[labels.right]
    return replace(data, labels=Comparisons.build(labels.user, labels.left, labels.right, outcome))


def test_from_few_labels_a_reward_trained_model_knows_more_than_the_language_model_in_it(
    tiny_decoder, two_tastes, tmp_path
):
    folder = reward_trained("llama", tiny_decoder, tmp_path / "trained")
    shutil.copytree(folder, tmp_path / "plain")
    AutoModelForSequenceClassification.from_pretrained(folder).model.save_pretrained(tmp_path / "plain")
    data, vectors = two_tastes
    labelled, own = by_own_score(folder, data, 60), own_scores(folder, data.texts())
    alike = {}
    for name in ("trained", "plain"):
        config = RewardConfig(backbone=str(tmp_path / name), n_experts=2, rank=2, max_tokens=64, steps=1, lr=1e-4,
                              precision="float32", train_tokens=0)  # fmt: skip
        model = fit_reward(labelled, vectors, config, weights=None)
        assert model.config.own_head == (name == "trained")
        alike[name] = np.corrcoef(model.rewards(list(data.texts()), vectors[:1])[0], own)[0, 1]
    assert alike["trained"] > max(0.85, alike["plain"] + 0.1), alike


def test_the_first_head_of_no_information_is_the_own_one_and_data_overrule_it():
    rng = np.random.default_rng(0)
    x, own = torch.from_numpy(rng.normal(size=(400, 6))), torch.tensor([1.0, -1, 0, 0, 0, 0]).double()
    torch.testing.assert_close(probed_heads(0 * x[:4], torch.full((4,), 0.5).double(), own)[-1], own)
    other = torch.tensor([0.0, 0, 3, 0, 0, 0]).double()
    found = probed_heads(x, (x @ other > 0).double(), own)[0]
    assert abs(found[2]) > 4 * found[[0, 1, 3, 4, 5]].abs().max()


@pytest.mark.parametrize("labels", [2, 5])
def test_a_model_of_other_than_one_label_is_refused_in_a_sentence(labels, tiny_encoder, tmp_path):
    folder = reward_trained("bert", tiny_encoder, tmp_path / "classes", num_labels=labels)
    with pytest.raises(
        CoplError, match=f"with {labels} labels, and a reward is one number: name a reward model with one"
    ):
        load_backbone(str(folder), None, 2)


def test_a_head_that_is_not_among_the_weights_is_named(tiny_encoder, tiny_decoder, tmp_path):
    folder = reward_trained("llama", tiny_decoder, tmp_path / "trained")
    whole = AutoModelForSequenceClassification.from_pretrained(folder)
    whole.model.save_pretrained(folder)
    about = json.loads((folder / "config.json").read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(CoplError, match=r"its weights lack \['score.weight'\]: save the whole model"):
        load_backbone(str(folder), None, 2)


def test_weights_in_another_format_are_refused_with_what_is_missing(tiny_encoder, tmp_path):
    folder = reward_trained("bert", tiny_encoder, tmp_path / "trained")
    whole = AutoModelForSequenceClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(whole.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CoplError, match="model.safetensors.* must be safetensors"):
        load_backbone(str(folder), None, 2)
