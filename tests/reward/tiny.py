"""Tiny backbones with random weights, and data of two tastes that they can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

from copl_core.records import Comparisons, TrainingData
from copl_core.reward.backbone import load_backbone
from copl_core.reward.model import RewardConfig

WORDS = (
    "tell me about the sea mountain wave beach sand tide peak ridge snow rock boat harbour summit valley and a of "
    "user assistant"
).split()
SEA, MOUNTAIN = "wave beach sand tide boat harbour".split(), "peak ridge snow rock summit valley".split()
CHAT = "{% for message in messages %}<|start|> {{ message.role }} {{ message.content }} <|end|> {% endfor %}"


def _tokenizer(special: list[str]) -> Tokenizer:
    words = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory) -> Path:
    """A three-layer BERT with random weights, saved by transformers."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = _tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory) -> Path:
    """A three-layer Llama with random weights whose pad token is its end-of-turn token, as in some chat models."""
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(["<|end|>", "[UNK]", "<|start|>"]),
        pad_token="<|end|>",
        eos_token="<|end|>",
        unk_token="[UNK]",
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_writer(tiny_decoder, tmp_path_factory) -> Path:
    """A two-layer Llama with random weights and a language-model head."""
    folder = tmp_path_factory.mktemp("writer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_decoder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.6,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["encoder", "decoder"])
def tiny_model(request, tiny_encoder, tiny_decoder) -> Path:
    return {"encoder": tiny_encoder, "decoder": tiny_decoder}[request.param]


@pytest.fixture(scope="session")
def tiny_config(tiny_model) -> RewardConfig:
    return RewardConfig(
        backbone=str(tiny_model),
        last_layers=2,
        n_experts=4,
        rank=4,
        alpha=8,
        max_tokens=32,
        texts=16,
        lr=1e-2,
        epochs=30,
        min_steps=1,
        patience=20,
        precision="float32",
    )


@pytest.fixture
def tiny_backbone(tiny_config):
    return load_backbone(tiny_config.backbone, no_weights, tiny_config.last_layers)


@pytest.fixture(scope="session")
def two_tastes() -> tuple[TrainingData, np.ndarray]:
    """Half of the users prefer the sea and half the mountains, always; and vectors that separate the halves."""
    rng = np.random.default_rng(0)
    responses = [" ".join(rng.choice(words, rng.integers(3, 9))) for _ in range(16) for words in (SEA, MOUNTAIN)]
    n_users, n = 12, 400
    user, pair = rng.integers(n_users, size=n), rng.integers(16, size=n)
    flipped = rng.random(n) < 0.5
    left, right = np.where(flipped, 2 * pair + 1, 2 * pair), np.where(flipped, 2 * pair, 2 * pair + 1)
    outcome = (user % 2 == 0) == ~flipped  # even users prefer the sea, which is the even response
    data = TrainingData(
        np.arange(n_users) + 100,
        np.arange(32) + 500,
        np.repeat(np.arange(16), 2) % 4,
        tuple(f"tell me about {word}" for word in ("a boat", "the snow", "sand", "rock")),
        tuple(responses),
        Comparisons.build(user, left, right, outcome),
    )
    vectors = rng.normal(scale=0.1, size=(n_users, 5)).astype(np.float32)
    vectors[:, 0] += np.where(np.arange(n_users) % 2 == 0, 1.0, -1.0)
    return data, vectors


@pytest.fixture(scope="session")
def nothing():
    return no_weights


def no_weights(name: str) -> Path:
    raise AssertionError(f"requested the bundled weights {name}, but a folder was named")
